//! The forward pass: one decoder for all architectures, for the rows of many sequences under many
//! adapters.

use std::time::Instant;

use multigraft_kernels::{
    Activations, Angles, Attention, AttentionPlan, HeadNorms, KvLayer, PackedMatrix, Part, Pool, Query,
    add_residual, attention, gated, matmul, rms_norm, softcap, store_kv,
};
use multigraft_model::config::LayerConfig;
use multigraft_model::{Outputs, StepTime, Throttle};

use crate::experts::Experts;
use crate::model::CpuBase;
use crate::project::{ProjectScratch, Projector, Segment, add, finish, lap};
use crate::weights::{Ffn, Layer};

/// One row of a step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    pub(crate) token: u32,
    pub(crate) position: usize,
    /// The block table of its sequence.
    pub(crate) blocks: &'a [u32],
}

/// What depends on the rows' positions alone, computed once for all layers of a step.
struct Positions<'a> {
    plan: AttentionPlan<'a>,
    /// One for each rotation of the model.
    angles: Vec<Angles>,
}

/// Buffers that are kept from step to step, so that a step allocates little.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// The residual stream, `[rows, hidden]`.
    x: Vec<f32>,
    /// Input, then output, of an attention or feed-forward block, `[rows, hidden]`.
    h: Vec<f32>,
    qkv: Vec<f32>,
    attended: Vec<f32>,
    /// Scratch memory of the attention kernel.
    partials: Vec<f32>,
    gate_up: Vec<f32>,
    inner: Vec<f32>,
    project: ProjectScratch,
}

/// A forward pass over rows that are sorted by segment.
pub(crate) struct Decoder<'a> {
    pub(crate) model: &'a CpuBase,
    pub(crate) pool: &'a Pool,
    /// Pauses between layers.
    pub(crate) throttle: &'a Throttle,
    /// One per layer.
    pub(crate) kv: &'a mut [KvLayer],
    /// The longest sequence, in tokens, which decides which form of a longrope rotation is used.
    pub(crate) context: usize,
    pub(crate) rows: &'a [Row<'a>],
    pub(crate) segments: &'a [Segment<'a>],
    pub(crate) scratch: &'a mut Scratch,
}

impl<'a> Decoder<'a> {
    /// Computes the rows and writes the logits of those in `wanted` and the hidden states of those
    /// in `wanted_hidden` (both ascending).
    pub(crate) fn run(&mut self, wanted: &[usize], wanted_hidden: &[usize], outputs: &mut Outputs) {
        self.scratch.project.time = StepTime::default();
        self.embed();
        let positions = self.positions();
        let model = self.model;
        for (index, layer) in model.layers.iter().enumerate() {
            self.throttle.pause();
            self.attend(index, layer, &positions);
            self.feed_forward(index, layer);
        }
        self.logits(wanted, &mut outputs.logits);
        self.normed(wanted_hidden, &mut outputs.hidden);
        outputs.time = self.scratch.project.time;
    }

    fn embed(&mut self) {
        let config = &self.model.config;
        let x = &mut self.scratch.x;
        x.clear();
        x.resize(self.rows.len() * config.hidden, 0.0);
        for segment in self.segments {
            let delta = segment.adapter.and_then(|adapter| adapter.embedding.as_ref());
            let rows = self.rows[segment.start..][..segment.rows].iter();
            for (row, x) in rows.zip(x[segment.start * config.hidden..].chunks_exact_mut(config.hidden)) {
                match delta {
                    Some(delta) => delta.embed(row.token, segment.scale, &self.model.embedding, x),
                    None => self.model.embedding.row(row.token as usize, x),
                }
                x.iter_mut().for_each(|x| *x *= config.embedding_scale);
            }
        }
    }

    fn positions(&self) -> Positions<'a> {
        let config = &self.model.config;
        let queries: Vec<Query<'_>> = self
            .rows
            .iter()
            .map(|row| Query {
                position: row.position,
                blocks: row.blocks,
            })
            .collect();
        let angles = config.ropes.iter().map(|rope| {
            let long = rope
                .long_inv_freq
                .as_ref()
                .filter(|_| self.context > rope.short_context);
            let positions = self.rows.iter().map(|row| row.position);
            Angles::new(positions, long.unwrap_or(&rope.inv_freq), rope.scale)
        });
        Positions {
            angles: angles.collect(),
            plan: AttentionPlan::new(&queries, config.kv_heads, self.pool.threads()),
        }
    }

    /// `x += attention(norm(x))`.
    fn attend(&mut self, index: usize, layer: &Layer, positions: &Positions<'_>) {
        let config = &self.model.config;
        let LayerConfig { window, rope, .. } = config.layers[index];
        let (rows, width) = (self.rows.len(), config.qkv_width());
        let Scratch {
            x,
            h,
            qkv,
            attended,
            project,
            partials,
            ..
        } = &mut *self.scratch;
        let mut projector = Projector {
            pool: self.pool,
            segments: self.segments,
            scratch: project,
        };

        let norm = layer.norms.before_attention.as_deref();
        normalised(self.pool, x, norm, config.norm_eps, h);
        qkv.resize(rows * width, 0.0);
        projector.project(index, &layer.qkv, h, qkv);

        let norms = layer.norms.query.as_ref().zip(layer.norms.key.as_ref());
        let norms = norms.map(|(query, key)| HeadNorms {
            query,
            key,
            eps: config.norm_eps,
        });
        let angles = rope.map(|rope| &positions.angles[rope]);
        let began = Instant::now();
        store_kv(
            self.pool,
            &mut self.kv[index],
            &positions.plan,
            norms,
            angles,
            qkv,
        );
        attended.resize(rows * config.heads * config.head_dim, 0.0);
        let settings = Attention {
            heads: config.heads,
            scale: config.attention_scale,
            softcap: config.attention_softcap,
            window,
        };
        attention(
            self.pool,
            &self.kv[index],
            settings,
            &positions.plan,
            qkv,
            partials,
            attended,
        );
        lap(&mut projector.scratch.time.attention, began);
        projector.project(index, &layer.o, attended, h);

        let norm = layer.norms.after_attention.as_deref();
        let norm = norm.map(|weight| (weight, config.norm_eps));
        add_residual(self.pool, x, h, config.hidden, norm, config.residual_scale);
    }

    /// `x += ffn(norm(x))`.
    fn feed_forward(&mut self, index: usize, layer: &Layer) {
        let config = &self.model.config;
        let rows = self.rows.len();
        let Scratch {
            x,
            h,
            gate_up,
            inner,
            project,
            ..
        } = &mut *self.scratch;
        let norm = layer.norms.before_ffn.as_deref();
        normalised(self.pool, x, norm, config.norm_eps, h);
        match &layer.ffn {
            Ffn::Dense { gate_up: up, down } => {
                let mut projector = Projector {
                    pool: self.pool,
                    segments: self.segments,
                    scratch: project,
                };
                gate_up.resize(rows * up.width, 0.0);
                projector.project(index, up, h, gate_up);
                inner.resize(rows * up.width / 2, 0.0);
                gated(self.pool, config.activation, gate_up, inner, up.width / 2);
                projector.project(index, down, inner, h);
            }
            &Ffn::Experts {
                ref router,
                ref experts,
                active,
                width,
                normalise,
            } => {
                let began = Instant::now();
                let activation = config.activation;
                let input = std::mem::take(h);
                h.resize(input.len(), 0.0);
                Experts {
                    router,
                    experts,
                    active,
                    width,
                    normalise,
                    activation,
                }
                .run(self.pool, &input, &mut project.activations, h);
                lap(&mut project.time.matmul, began);
            }
        }
        let norm = layer.norms.after_ffn.as_deref();
        let norm = norm.map(|weight| (weight, config.norm_eps));
        add_residual(self.pool, x, h, config.hidden, norm, config.residual_scale);
    }

    /// The residual stream of the wanted rows after the last norm.
    fn normed(&self, wanted: &[usize], normed: &mut Vec<f32>) {
        let hidden = self.model.config.hidden;
        let x = &self.scratch.x;
        normed.clear();
        normed.extend(wanted.iter().flat_map(|row| &x[row * hidden..][..hidden]));
        rms_norm(self.pool, normed, &self.model.norm, self.model.config.norm_eps);
    }

    fn logits(&mut self, wanted: &[usize], logits: &mut Vec<f32>) {
        let config = &self.model.config;
        let (hidden, vocab) = (config.hidden, config.vocab);
        let mut h = std::mem::take(&mut self.scratch.h);
        self.normed(wanted, &mut h);
        self.scratch.h = h;
        let Scratch { h, project, .. } = &mut *self.scratch;
        let began = Instant::now();
        logits.clear();
        // Exactly: logits are large, and spare capacity for further rows would be megabytes.
        logits.reserve_exact(wanted.len() * vocab);
        logits.resize(wanted.len() * vocab, 0.0);
        let segments = wanted_segments(self.segments, wanted);

        // Neighbouring segments with the same head share one pass over its weights.
        for run in segments.chunk_by(|a, b| std::ptr::eq(head(self.model, a), head(self.model, b))) {
            let (start, rows) = (
                run[0].start,
                run.iter().map(|segment| segment.rows).sum::<usize>(),
            );
            let inputs = &h[start * hidden..(start + rows) * hidden];
            let outputs = &mut logits[start * vocab..(start + rows) * vocab];
            let part = Part {
                weight: head(self.model, &run[0]),
                at: 0,
            };
            let mut inputs = Activations::new(inputs, hidden, &mut project.activations);
            matmul(self.pool, &[part], &mut inputs, outputs, vocab, &[]);
        }

        let multiplied = lap(&mut project.time.matmul, began);
        let changes: Vec<_> = segments
            .iter()
            .filter_map(|segment| Some((*segment, 0, segment.adapter?.head.as_ref()?)))
            .collect();
        Projector {
            pool: self.pool,
            segments: &segments,
            scratch: &mut *project,
        }
        .add_low_rank(&changes, h, logits, vocab);
        for &(segment, _, change) in &changes {
            let inputs = &h[segment.start * hidden..][..segment.rows * hidden];
            let outputs = logits[segment.start * vocab..][..segment.rows * vocab].chunks_exact_mut(vocab);
            let new_rows = change.rows.as_ref().map(|(tokens, weights)| {
                let mut values = vec![0.0; segment.rows * tokens.len()];
                let mut inputs = Activations::new(inputs, hidden, &mut project.activations);
                let part = Part {
                    weight: weights,
                    at: 0,
                };
                matmul(self.pool, &[part], &mut inputs, &mut values, tokens.len(), &[]);
                (tokens, values)
            });
            for (r, row) in outputs.enumerate() {
                if let Some((tokens, values)) = &new_rows {
                    for (token, value) in tokens.iter().zip(&values[r * tokens.len()..]) {
                        row[*token as usize] = *value;
                    }
                }
                finish(change, segment.scale, row);
                if let Some(bias) = &change.bias {
                    add(row, bias);
                }
            }
        }
        if !changes.is_empty() {
            lap(&mut project.time.lora, multiplied);
        }
        if config.logit_scale != 1.0 {
            logits.iter_mut().for_each(|logit| *logit *= config.logit_scale);
        }
        if let Some(cap) = config.logit_softcap {
            softcap(logits, cap);
        }
    }
}

/// The matrix that gives a segment's logits.
fn head<'a>(model: &'a CpuBase, segment: &Segment<'a>) -> &'a PackedMatrix {
    let replaced = segment
        .adapter
        .and_then(|adapter| adapter.head.as_ref()?.replaced.as_ref());
    replaced.unwrap_or_else(|| model.head())
}

/// `h = norm(x)`, or `x` itself where the architecture has no norm there.
fn normalised(pool: &Pool, x: &[f32], weight: Option<&[f32]>, eps: f32, h: &mut Vec<f32>) {
    h.clear();
    h.extend_from_slice(x);
    if let Some(weight) = weight {
        rms_norm(pool, h, weight, eps);
    }
}

/// The segments of the wanted rows, with indices into the wanted rows.
fn wanted_segments<'a>(segments: &[Segment<'a>], wanted: &[usize]) -> Vec<Segment<'a>> {
    let mut start = 0;
    segments
        .iter()
        .filter_map(|segment| {
            let rows = wanted[start..]
                .iter()
                .take_while(|row| **row < segment.start + segment.rows)
                .count();
            let found = Segment {
                start,
                rows,
                ..*segment
            };
            start += rows;
            (rows > 0).then_some(found)
        })
        .collect()
}

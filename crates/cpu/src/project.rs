//! A projection for the rows of many adapters: first the base's product for all rows, then each
//! segment's change.

use std::time::{Duration, Instant};

use multigraft_kernels::{
    ActivationScratch, Activations, LoraSegment, PackedLora, Part, Pool, add_lora, matmul,
};
use multigraft_model::StepTime;
use smallvec::SmallVec;

use crate::adapter::{PackedAdapter, PackedLinear};
use crate::weights::Projection;

/// Neighbouring rows with the same adapter and scale.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment<'a> {
    pub(crate) start: usize,
    pub(crate) rows: usize,
    /// `None` is the base.
    pub(crate) adapter: Option<&'a PackedAdapter>,
    /// Factor of the adapter's updates.
    pub(crate) scale: f32,
}

/// Computes projections of a step.
pub(crate) struct Projector<'a> {
    pub(crate) pool: &'a Pool,
    pub(crate) segments: &'a [Segment<'a>],
    pub(crate) scratch: &'a mut ProjectScratch,
}

/// Buffers that are kept from projection to projection.
#[derive(Debug, Default)]
pub(crate) struct ProjectScratch {
    /// Quantised inputs of the base's product.
    pub(crate) activations: ActivationScratch,
    /// `A·x` of the low-rank updates.
    shrunk: Vec<f32>,
    /// Where the time of the step went so far.
    pub(crate) time: StepTime,
}

impl Projector<'_> {
    /// `out[r] = projection(x[r])` under each row's adapter: `x` is `[rows, in]`, `out` `[rows,
    /// width]`.
    pub(crate) fn project(&mut self, layer: usize, projection: &Projection, x: &[f32], out: &mut [f32]) {
        let began = Instant::now();
        let width = projection.width;
        let parts: SmallVec<[Part<'_>; 3]> = projection
            .parts
            .iter()
            .map(|part| Part {
                weight: &part.linear.weight,
                at: part.at,
            })
            .collect();
        let changes: Vec<(Segment<'_>, usize, &PackedLinear)> = self
            .segments
            .iter()
            .flat_map(|segment| {
                let adapter = segment.adapter.into_iter();
                adapter.flat_map(|adapter| {
                    let parts = projection.parts.iter();
                    parts.filter_map(|part| Some((*segment, part.at, adapter.linear(layer, part.target)?)))
                })
            })
            .collect();
        let updates: Vec<&[u8]> = changes
            .iter()
            .filter_map(|(_, _, change)| change.lora.as_ref())
            .flat_map(PackedLora::memory)
            .collect();
        let mut input = Activations::new(x, parts[0].weight.inp(), &mut self.scratch.activations);
        matmul(self.pool, &parts, &mut input, out, width, &updates);
        let multiplied = lap(&mut self.scratch.time.matmul, began);
        self.add_low_rank(&changes, x, out, width);
        for part in &projection.parts {
            let outputs = part.linear.weight.out();
            for segment in self.segments {
                let change = segment
                    .adapter
                    .and_then(|adapter| adapter.linear(layer, part.target));
                let bias = change.and_then(|c| c.bias.as_ref()).or(part.linear.bias.as_ref());
                let rows = out.chunks_exact_mut(width).skip(segment.start).take(segment.rows);
                for row in rows {
                    let row = &mut row[part.at..part.at + outputs];
                    if let Some(change) = change {
                        finish(change, segment.scale, row);
                    }
                    if let Some(bias) = bias {
                        add(row, bias);
                    }
                }
            }
        }
        // Without changes of adapters, this time went into the base's biases.
        let time = &mut self.scratch.time;
        let part = if changes.is_empty() {
            &mut time.matmul
        } else {
            &mut time.lora
        };
        lap(part, multiplied);
    }

    /// Adds the low-rank updates of `changes` (segment, first column, change).
    pub(crate) fn add_low_rank(
        &mut self,
        changes: &[(Segment<'_>, usize, &PackedLinear)],
        x: &[f32],
        out: &mut [f32],
        stride: usize,
    ) {
        let updates: Vec<LoraSegment<'_>> = changes
            .iter()
            .filter_map(|(segment, at, change)| {
                let lora = change.lora.as_ref()?;
                Some(LoraSegment {
                    start: segment.start,
                    rows: segment.rows,
                    lora,
                    at: *at,
                    scale: segment.scale,
                })
            })
            .collect();
        add_lora(self.pool, &updates, x, out, stride, &mut self.scratch.shrunk);
    }
}

/// Adds the time since `from` to `part`, and returns the time now.
pub(crate) fn lap(part: &mut Duration, from: Instant) -> Instant {
    let now = Instant::now();
    *part += now - from;
    now
}

/// Applies what follows the low-rank update and precedes the bias: DoRA's gain and LoRA's own bias.
pub(crate) fn finish(change: &PackedLinear, scale: f32, row: &mut [f32]) {
    if let Some(gain) = &change.gain {
        row.iter_mut().zip(gain).for_each(|(y, g)| *y *= g);
    }
    if let Some(addend) = &change.addend {
        row.iter_mut().zip(addend).for_each(|(y, v)| *y += scale * v);
    }
}

/// `row += values`.
pub(crate) fn add(row: &mut [f32], values: &[f32]) {
    row.iter_mut().zip(values).for_each(|(y, v)| *y += v);
}

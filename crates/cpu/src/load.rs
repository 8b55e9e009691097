//! From files to packed weights.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use multigraft_kernels::{PackedMatrix, Precision, RowOrder};
use multigraft_model::config::{FfnConfig, NormPlacement, QkNorm};
use multigraft_model::{Config, ModelError, ModelFiles, Target};
use multigraft_weights::Tensor;

use crate::model::CpuBase;
use crate::weights::{Expert, Ffn, Layer, Linear, Norms, Part, Projection};

/// How a base model is loaded.
#[derive(Clone, Copy)]
pub struct LoadOptions<'a> {
    /// Threads that pack weights.
    pub threads: usize,
    /// The precision of activations that are multiplied by the base's weights. Those that are
    /// multiplied by adapters' weights are float32 either way.
    pub precision: Precision,
    /// Called from any thread when a part is packed, with the number of packed parts and of all
    /// parts.
    pub progress: Option<&'a (dyn Fn(usize, usize) + Sync)>,
}

impl Default for LoadOptions<'_> {
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            precision: Precision::Native,
            progress: None,
        }
    }
}

impl std::fmt::Debug for LoadOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadOptions")
            .field("threads", &self.threads)
            .finish_non_exhaustive()
    }
}

/// Opens a model and packs its weights, several layers at a time.
pub(crate) fn load(path: &Path, options: LoadOptions<'_>) -> Result<CpuBase, ModelError> {
    let files = ModelFiles::open(path)?;
    let config = files.config()?;
    let loader = Loader {
        files: &files,
        config: &config,
        precision: options.precision,
    };
    let count = config.layers.len();
    let slots: Vec<Mutex<Option<Result<Layer, ModelError>>>> = (0..count).map(|_| Mutex::new(None)).collect();
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let finished = || {
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(progress) = options.progress {
            progress(done, count + 1);
        }
    };
    let (embedding, head) = std::thread::scope(|scope| {
        for _ in 0..options.threads.clamp(1, count) {
            scope.spawn(|| {
                while let Some((layer, slot)) = Some(next.fetch_add(1, Ordering::Relaxed))
                    .and_then(|layer| slots.get(layer).map(|slot| (layer, slot)))
                {
                    let result = loader.layer(layer);
                    *slot.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(result);
                    finished();
                }
            });
        }
        let ends = loader.ends();
        finished();
        ends
    })?;
    let layers = slots
        .into_iter()
        .map(|slot| {
            let result = slot
                .into_inner()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            result.expect("every layer was claimed by a thread, and the scope waited for it")
        })
        .collect::<Result<Vec<Layer>, ModelError>>()?;
    let norm = loader.norm("model.norm", config.hidden)?;
    let name = files.name().unwrap_or_else(|| {
        let stem = path.file_stem().unwrap_or(path.as_os_str());
        stem.to_string_lossy().into_owned()
    });
    Ok(CpuBase::new(config, name, embedding, layers, norm, head))
}

struct Loader<'a> {
    files: &'a ModelFiles,
    config: &'a Config,
    precision: Precision,
}

impl Loader<'_> {
    /// The embedding table, and the lm_head unless it is tied to the table.
    fn ends(&self) -> Result<(PackedMatrix, Option<PackedMatrix>), ModelError> {
        let Config {
            vocab,
            hidden,
            tied_embeddings,
            ..
        } = *self.config;
        let embedding = self.matrix("model.embed_tokens.weight", vocab, hidden)?;
        let head = (!tied_embeddings)
            .then(|| self.matrix("lm_head.weight", vocab, hidden))
            .transpose()?;
        Ok((embedding, head))
    }

    fn layer(&self, layer: usize) -> Result<Layer, ModelError> {
        let config = self.config;
        let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let qkv: &[(Target, usize)] = match config.fused {
            true => &[(Target::Qkv, q + 2 * kv)],
            false => &[(Target::Q, q), (Target::K, kv), (Target::V, kv)],
        };
        let ffn = match config.layers[layer].ffn {
            FfnConfig::Dense { width } => {
                let gate_up: &[(Target, usize)] = match config.fused {
                    true => &[(Target::GateUp, 2 * width)],
                    false => &[(Target::Gate, width), (Target::Up, width)],
                };
                Ffn::Dense {
                    gate_up: self.projection(layer, gate_up, config.hidden, config.mlp_bias)?,
                    down: self.projection(layer, &[(Target::Down, config.hidden)], width, config.mlp_bias)?,
                }
            }
            FfnConfig::Experts {
                count,
                active,
                width,
                normalise,
            } => {
                let (block, _) = config.expert_names();
                let router = format!("model.layers.{layer}.{block}.gate.weight");
                let router = self.matrix(&router, count, config.hidden)?;
                Ffn::Experts {
                    router,
                    experts: self.experts(layer, count, width)?,
                    active,
                    width,
                    normalise,
                }
            }
        };
        Ok(Layer {
            norms: self.norms(layer)?,
            qkv: self.projection(layer, qkv, config.hidden, config.qkv_bias)?,
            o: self.projection(layer, &[(Target::O, config.hidden)], q, config.o_bias)?,
            ffn,
        })
    }

    fn norms(&self, layer: usize) -> Result<Norms, ModelError> {
        let config = self.config;
        let norm = |name: &str, size| self.norm(&format!("model.layers.{layer}.{name}"), size).map(Some);
        let hidden = config.hidden;
        let (query, key) = match config.qk_norm {
            QkNorm::None => (None, None),
            QkNorm::PerHead => (
                norm("self_attn.q_norm", config.head_dim)?,
                norm("self_attn.k_norm", config.head_dim)?,
            ),
            QkNorm::Whole => (
                norm("self_attn.q_norm", config.heads * config.head_dim)?,
                norm("self_attn.k_norm", config.kv_heads * config.head_dim)?,
            ),
        };
        let mut norms = Norms {
            before_attention: None,
            after_attention: None,
            before_ffn: None,
            after_ffn: None,
            query,
            key,
        };
        match config.norms {
            NormPlacement::Before => {
                norms.before_attention = norm("input_layernorm", hidden)?;
                norms.before_ffn = norm("post_attention_layernorm", hidden)?;
            }
            NormPlacement::After => {
                norms.after_attention = norm("post_attention_layernorm", hidden)?;
                norms.after_ffn = norm("post_feedforward_layernorm", hidden)?;
            }
            NormPlacement::Both => {
                norms.before_attention = norm("input_layernorm", hidden)?;
                norms.after_attention = norm("post_attention_layernorm", hidden)?;
                norms.before_ffn = norm("pre_feedforward_layernorm", hidden)?;
                norms.after_ffn = norm("post_feedforward_layernorm", hidden)?;
            }
        }
        Ok(norms)
    }

    fn norm(&self, module: &str, size: usize) -> Result<Vec<f32>, ModelError> {
        let mut weights = self
            .files
            .require(&format!("{module}.weight"), &[size], self.config)?
            .to_f32();
        if self.config.norm_plus_one {
            weights.iter_mut().for_each(|w| *w += 1.0);
        }
        Ok(weights)
    }

    fn projection(
        &self,
        layer: usize,
        maps: &[(Target, usize)],
        inp: usize,
        bias: bool,
    ) -> Result<Projection, ModelError> {
        let mut at = 0;
        let mut parts = Vec::with_capacity(maps.len());
        for &(target, out) in maps {
            let module = format!("model.layers.{layer}.{}", module_name(target));
            parts.push(Part {
                target,
                linear: self.linear(&module, target, out, inp, bias)?,
                at,
            });
            at += out;
        }
        Ok(Projection { parts, width: at })
    }

    fn linear(
        &self,
        module: &str,
        target: Target,
        out: usize,
        inp: usize,
        bias: bool,
    ) -> Result<Linear, ModelError> {
        let turned = matches!(target, Target::Q | Target::K);
        let order = |row: usize| {
            if turned {
                self.files.rotary_row(row, self.config)
            } else {
                row
            }
        };
        let tensor = self
            .files
            .require(&format!("{module}.weight"), &[out, inp], self.config)?;
        let weight = self.pack(&tensor, tensor.bytes, out, inp, &order)?;
        let bias = match bias {
            true => {
                let stored = self
                    .files
                    .require(&format!("{module}.bias"), &[out], self.config)?
                    .to_f32();
                Some((0..out).map(|row| stored[order(row)]).collect())
            }
            false => None,
        };
        Ok(Linear { weight, bias })
    }

    fn pack(
        &self,
        tensor: &Tensor<'_>,
        bytes: &[u8],
        out: usize,
        inp: usize,
        order: RowOrder<'_>,
    ) -> Result<PackedMatrix, ModelError> {
        PackedMatrix::pack_ordered(tensor.block_type, bytes, out, inp, self.precision, order).map_err(
            |source| ModelError::Pack {
                name: tensor.name.to_owned(),
                source,
            },
        )
    }

    fn matrix(&self, name: &str, out: usize, inp: usize) -> Result<PackedMatrix, ModelError> {
        let tensor = self.files.require(name, &[out, inp], self.config)?;
        self.pack(&tensor, tensor.bytes, out, inp, &|row| row)
    }

    /// The experts of a layer. GGUF stores all of them in one tensor, safetensors each in its own.
    fn experts(&self, layer: usize, count: usize, width: usize) -> Result<Vec<Expert>, ModelError> {
        let hidden = self.config.hidden;
        let (block, names) = self.config.expert_names();
        let expert = |index: usize, which: usize, out: usize, inp: usize| match self.files {
            ModelFiles::Gguf(_) => {
                let name = format!(
                    "model.layers.{layer}.experts.{}.weight",
                    ["gate", "up", "down"][which]
                );
                let tensor = self.files.require(&name, &[count, out, inp], self.config)?;
                let size = tensor.bytes.len() / count;
                self.pack(&tensor, &tensor.bytes[index * size..][..size], out, inp, &|row| {
                    row
                })
            }
            ModelFiles::Folder { .. } => {
                let name = format!(
                    "model.layers.{layer}.{block}.experts.{index}.{}.weight",
                    names[which]
                );
                self.matrix(&name, out, inp)
            }
        };
        (0..count)
            .map(|index| {
                Ok(Expert {
                    gate: expert(index, 0, width, hidden)?,
                    up: expert(index, 1, width, hidden)?,
                    down: expert(index, 2, hidden, width)?,
                })
            })
            .collect()
    }
}

/// The path of a target within its layer.
fn module_name(target: Target) -> &'static str {
    match target {
        Target::Q => "self_attn.q_proj",
        Target::K => "self_attn.k_proj",
        Target::V => "self_attn.v_proj",
        Target::Qkv => "self_attn.qkv_proj",
        Target::O => "self_attn.o_proj",
        Target::Gate => "mlp.gate_proj",
        Target::Up => "mlp.up_proj",
        Target::GateUp => "mlp.gate_up_proj",
        Target::Down => "mlp.down_proj",
    }
}

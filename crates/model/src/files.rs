//! A base model's files behind one face: tensors are asked for by the names that transformers gives them, and a
//! GGUF file answers by its own.

use std::path::Path;

use multigraft_weights::Tensor;
use multigraft_weights::gguf::Gguf;
use multigraft_weights::safetensors::Checkpoint;

use crate::config::{Config, NormPlacement};
use crate::error::ModelError;

/// Open files of a base model.
#[derive(Debug)]
pub enum ModelFiles {
    /// One GGUF file.
    Gguf(Gguf),
    /// A folder with `config.json` and safetensors.
    Folder {
        /// The tensors.
        checkpoint: Checkpoint,
        /// The text of `config.json`.
        config: String,
    },
}

impl ModelFiles {
    /// Opens a `.gguf` file or a model folder.
    ///
    /// # Errors
    /// If it is neither, or unreadable.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        if path.is_file() {
            return Ok(Self::Gguf(Gguf::open(path)?));
        }
        let config = path.join("config.json");
        if !config.is_file() {
            return Err(ModelError::NotAModel(path.to_owned()));
        }
        let text =
            std::fs::read_to_string(&config).map_err(|source| ModelError::Io { path: config, source })?;
        Ok(Self::Folder {
            checkpoint: Checkpoint::open_folder(path)?,
            config: text,
        })
    }

    /// The decoder that the files describe.
    ///
    /// # Errors
    /// As [`Config::from_hf_json`].
    pub fn config(&self) -> Result<Config, ModelError> {
        match self {
            Self::Gguf(gguf) => Config::from_gguf(gguf),
            Self::Folder { config, .. } => {
                let mut config = Config::from_hf_json(config)?;
                // A checkpoint without a head uses its embedding, whatever the configuration leaves out.
                config.tied_embeddings |= self.find("lm_head.weight").is_none();
                Ok(config)
            }
        }
    }

    /// What the files call the model, if they do.
    pub fn name(&self) -> Option<String> {
        match self {
            Self::Gguf(gguf) => gguf.metadata().str("general.name").map(str::to_owned),
            Self::Folder { config, .. } => {
                let config: serde_json::Value = serde_json::from_str(config).ok()?;
                config
                    .get("_name_or_path")?
                    .as_str()
                    .filter(|name| !name.is_empty())
                    .map(str::to_owned)
            }
        }
    }

    /// All tensors, in the files' order.
    pub fn tensors(&self) -> Box<dyn Iterator<Item = Tensor<'_>> + '_> {
        match self {
            Self::Gguf(gguf) => Box::new(gguf.tensors()),
            Self::Folder { checkpoint, .. } => Box::new(checkpoint.tensors()),
        }
    }

    /// A tensor by its name in a Hugging Face checkpoint, with or without the prefixes of multimodal wrappers.
    fn find(&self, name: &str) -> Option<Tensor<'_>> {
        match self {
            Self::Gguf(gguf) => gguf.tensor(name),
            Self::Folder { checkpoint, .. } => checkpoint.tensor(name).or_else(|| {
                let wrapped = ["language_model.", "model.language_model."];
                let inner = name.strip_prefix("model.").unwrap_or(name);
                checkpoint
                    .tensor(&format!("{}{name}", wrapped[0]))
                    .or_else(|| checkpoint.tensor(&format!("{}{inner}", wrapped[1])))
            }),
        }
    }

    /// The tensor that transformers calls `name`.
    pub(crate) fn tensor(&self, name: &str, config: &Config) -> Option<Tensor<'_>> {
        match self {
            Self::Gguf(_) => self.find(&gguf_name(name, config)?),
            Self::Folder { .. } => self.find(name),
        }
    }

    /// As [`ModelFiles::tensor`], checked to have a shape.
    pub(crate) fn require(
        &self,
        name: &str,
        shape: &[usize],
        config: &Config,
    ) -> Result<Tensor<'_>, ModelError> {
        let tensor = self.tensor(name, config).ok_or_else(|| {
            let theirs = matches!(self, Self::Gguf(_))
                .then(|| gguf_name(name, config))
                .flatten();
            ModelError::MissingTensor(theirs.unwrap_or_else(|| name.to_owned()))
        })?;
        if tensor.shape != shape {
            return Err(ModelError::Shape {
                name: tensor.name.to_owned(),
                found: tensor.shape.to_vec(),
                expected: shape.to_vec(),
            });
        }
        Ok(tensor)
    }

    /// Where row `row` of a query or key projection lies in the file. GGUF stores the pairs of a head that turn
    /// together as neighbours for these architectures; transformers half a head apart.
    pub(crate) fn rotary_row(&self, row: usize, config: &Config) -> usize {
        let interleaved = matches!(self, Self::Gguf(_))
            && ["llama", "mistral", "mixtral", "granite", "smollm3"].contains(&config.architecture.as_str());
        if !interleaved {
            return row;
        }
        let (head, within) = (row / config.head_dim, row % config.head_dim);
        let half = config.head_dim / 2;
        head * config.head_dim + 2 * (within % half) + within / half
    }
}

/// GGUF's name of a tensor that transformers calls `name` (`…weight` or `…bias`).
fn gguf_name(name: &str, config: &Config) -> Option<String> {
    let (module, kind) = name.rsplit_once('.')?;
    let whole = match module {
        "model.embed_tokens" => Some("token_embd"),
        "model.norm" => Some("output_norm"),
        "lm_head" => Some("output"),
        _ => None,
    };
    if let Some(whole) = whole {
        return Some(format!("{whole}.{kind}"));
    }
    let (layer, part) = module.strip_prefix("model.layers.")?.split_once('.')?;
    let after = config.norms != NormPlacement::Before;
    let part = match part {
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.qkv_proj" => "attn_qkv",
        "self_attn.o_proj" => "attn_output",
        "self_attn.q_norm" => "attn_q_norm",
        "self_attn.k_norm" => "attn_k_norm",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" | "mlp.gate_up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        "input_layernorm" => "attn_norm",
        "post_attention_layernorm" if after => "post_attention_norm",
        "post_attention_layernorm" | "pre_feedforward_layernorm" => "ffn_norm",
        "post_feedforward_layernorm" => "post_ffw_norm",
        "mlp.gate" | "block_sparse_moe.gate" => "ffn_gate_inp",
        // All experts of a layer in one tensor; not a name of transformers.
        "experts.gate" => "ffn_gate_exps",
        "experts.up" => "ffn_up_exps",
        "experts.down" => "ffn_down_exps",
        _ => return None,
    };
    Some(format!("blk.{layer}.{part}.{kind}"))
}

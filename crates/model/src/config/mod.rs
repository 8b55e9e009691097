//! The configuration of a base model: one description of a decoder for all architectures.
//!
//! A [`Config`] is read from the `config.json` of a Hugging Face folder or from GGUF metadata. Both
//! fill the same raw fields (`raw::Raw`), and one function turns these into the [`Config`] that the
//! decoder follows.

pub(crate) mod architectures;
mod build;
mod gguf;
mod gguf_names;
mod modules;
mod raw;
mod rope;

pub use architectures::SUPPORTED;
pub use rope::Rope;

use multigraft_kernels::Activation;
use multigraft_weights::gguf::Gguf;

use crate::error::ModelError;

/// Where a layer normalises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormPlacement {
    /// Before attention and before the feed-forward network.
    Before,
    /// After each, before the residual is added (olmo2).
    After,
    /// Both (gemma).
    Both,
}

/// How queries and keys are normalised before the rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    /// Not at all.
    None,
    /// Each head by itself, weights `[head_dim]`.
    PerHead,
    /// All heads together, weights `[heads · head_dim]`.
    Whole,
}

/// A layer's feed-forward network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FfnConfig {
    /// One gated network.
    Dense {
        /// Its inner size.
        width: usize,
    },
    /// Routed experts, each a gated network.
    Experts {
        /// Number of experts.
        count: usize,
        /// How many of them each token uses.
        active: usize,
        /// Inner size of each.
        width: usize,
        /// Whether the chosen experts' weights are scaled to sum to 1.
        normalise: bool,
    },
}

/// What differs from layer to layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerConfig {
    /// Attention reaches this many positions back, the row's own included; `None` is all.
    pub window: Option<usize>,
    /// Index into [`Config::ropes`]; `None` is no rotation (NoPE).
    pub rope: Option<usize>,
    /// The feed-forward network.
    pub ffn: FfnConfig,
}

/// The configuration of a decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The architecture's name in `config.json`.
    pub architecture: String,
    /// Size of the vocabulary.
    pub vocab: usize,
    /// Hidden size.
    pub hidden: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Size of a head.
    pub head_dim: usize,
    /// The longest sequence that the model was trained for, in tokens.
    pub context: usize,
    /// Added to the mean square in norms.
    pub norm_eps: f32,
    /// Norm weights in the file are offsets from 1 (gemma's safetensors).
    pub norm_plus_one: bool,
    /// Where layers normalise.
    pub norms: NormPlacement,
    /// How queries and keys are normalised.
    pub qk_norm: QkNorm,
    /// The lm_head is the embedding table.
    pub tied_embeddings: bool,
    /// Query, key and value are one matrix, gate and up another (phi3).
    pub fused: bool,
    /// Biases on query, key and value.
    pub qkv_bias: bool,
    /// Bias on the attention's output.
    pub o_bias: bool,
    /// Biases in the feed-forward network.
    pub mlp_bias: bool,
    /// The non-linearity.
    pub activation: Activation,
    /// Factor of embeddings.
    pub embedding_scale: f32,
    /// Factor of what attention and feed-forward add to the residual.
    pub residual_scale: f32,
    /// Factor of query·key.
    pub attention_scale: f32,
    /// Scores become `cap · tanh(score / cap)`.
    pub attention_softcap: Option<f32>,
    /// Factor of logits.
    pub logit_scale: f32,
    /// Logits become `cap · tanh(logit / cap)`.
    pub logit_softcap: Option<f32>,
    /// The rotary embeddings that layers use.
    pub ropes: Vec<Rope>,
    /// What differs from layer to layer, `[layers]`.
    pub layers: Vec<LayerConfig>,
}

impl Config {
    /// Reads a Hugging Face `config.json`.
    ///
    /// # Errors
    /// If it does not parse, lacks a field, or has a value that the decoder does not support.
    pub fn from_hf_json(json: &str) -> Result<Self, ModelError> {
        build::build(&raw::Raw::from_json(json)?)
    }

    /// Reads the metadata (and, where they carry configuration, the tensors) of a GGUF file.
    ///
    /// # Errors
    /// As [`Config::from_hf_json`].
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, ModelError> {
        build::build(&gguf::raw(gguf)?)
    }

    /// The longest sequence that is served by default: what the model was trained for, or, for
    /// models whose rotation differs in long sequences (longrope), the longest that needs no
    /// stretch.
    pub fn default_context(&self) -> usize {
        let ropes = self.ropes.iter().filter(|rope| rope.long_inv_freq.is_some());
        ropes
            .map(|rope| rope.short_context)
            .fold(self.context, usize::min)
    }

    /// Query, key and value features of one row: `(heads + 2·kv_heads) · head_dim`.
    pub fn qkv_width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }
}

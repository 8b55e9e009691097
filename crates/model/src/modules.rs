//! The modules of a decoder, by their paths in transformers. An adapter's tensors name these
//! modules.

use crate::delta::LinearId;

/// What an adapter can change of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModuleKind {
    /// A linear map that takes low-rank updates.
    Linear(LinearId),
    /// The token embedding.
    Embedding,
    /// A part of the model that no adapter can change (norms, routed experts, routers).
    Fixed,
}

/// A module of the base model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Path in transformers, such as `model.layers.0.self_attn.q_proj`.
    pub path: String,
    /// What an adapter can change of it.
    pub kind: ModuleKind,
    /// Output features (for the embedding: rows, the vocabulary).
    pub out: usize,
    /// Input features (for the embedding: columns, the hidden size).
    pub inp: usize,
    /// Whether the base has a bias for it.
    pub bias: bool,
}

//! The modules of a decoder by the paths that transformers gives them: what an adapter's tensors
//! can name.

use crate::delta::LinearId;

/// What a module is to an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModuleKind {
    /// A linear map that takes low-rank updates.
    Linear(LinearId),
    /// The token embedding.
    Embedding,
    /// Part of the model that no adapter can change here (norms, routed experts, routers).
    Fixed,
}

/// A module of the base model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Path in transformers, such as `model.layers.0.self_attn.q_proj`.
    pub path: String,
    /// What it is.
    pub kind: ModuleKind,
    /// Output features (for the embedding: rows, the vocabulary).
    pub out: usize,
    /// Input features (for the embedding: columns, the hidden size).
    pub inp: usize,
    /// Whether the base has a bias here.
    pub bias: bool,
}

//! Base models: from files to a decoder that runs steps.
//!
//! [`Backend`] is the seam that the engine drives; [`AdapterWeights`] is what an adapter changes.

pub mod delta;
mod modules;
mod step;
mod adapter;

pub use adapter::PackedAdapter;
pub use delta::{AdapterHash, AdapterWeights, EmbeddingDelta, LinearDelta, LinearId, LowRank, Matrix, Target};
pub use modules::{Module, ModuleKind};
pub use step::{BLOCK_TOKENS, Backend, BackendError, BlockId, Limits, Run, Slot, Step, Wanted};

//! Base models: from files to a decoder that runs steps.
//!
//! [`Config`] describes a decoder, [`Backend`] is the seam that the engine drives, [`AdapterWeights`] is what an
//! adapter changes.

mod adapter;
pub mod config;
pub mod delta;
mod error;
mod modules;
mod step;

pub use adapter::PackedAdapter;
pub use config::Config;
pub use delta::{
    AdapterHash, AdapterWeights, EmbeddingDelta, LinearDelta, LinearId, LowRank, Matrix, Target,
};
pub use error::ModelError;
pub use modules::{Module, ModuleKind};
pub use step::{BLOCK_TOKENS, Backend, BackendError, BlockId, Limits, Run, Slot, Step, Wanted};

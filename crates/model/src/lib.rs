//! Base models: from files to a decoder that runs steps.
//!
//! ```text
//! ModelFiles (GGUF or folder) ─ Config ─┐
//!                                       ├─ Model ── pack(AdapterWeights) → PackedAdapter
//!                    tensors, packed ───┘    └──── CpuBackend: forward(Step) → logits
//! ```
//!
//! [`Backend`] is the seam that the engine drives. [`AdapterWeights`] is what an adapter changes,
//! free of any file format. This crate knows nothing of requests, sampling, names of adapters, or
//! HTTP.

mod adapter;
mod budget;
pub mod config;
mod cpu;
mod decoder;
pub mod delta;
mod error;
mod experts;
mod files;
mod load;
mod model;
mod modules;
pub mod pace;
mod project;
mod size;
mod step;
mod weights;

pub use adapter::PackedAdapter;
pub use budget::{MemoryBudget, Want};
pub use config::Config;
pub use cpu::{CpuBackend, CpuOptions};
pub use delta::{
    AdapterHash, AdapterWeights, EmbeddingDelta, LinearDelta, LinearId, LowRank, Matrix, Target,
};
pub use error::ModelError;
pub use files::ModelFiles;
pub use load::LoadOptions;
pub use model::{AdapterDtype, Model};
pub use modules::{Module, ModuleKind};
pub use multigraft_kernels::{InstructionSet, KvDtype, Precision, return_freed, share_one_pool};
pub use step::{
    BLOCK_TOKENS, Backend, BackendError, BlockId, Limits, Outputs, Run, Slot, Step, StepTime, Wanted,
};

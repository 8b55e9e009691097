//! Base models: what one is, and the seam to the devices that compute with it.
//!
//! ```text
//! ModelFiles (GGUF or folder) ── Config ── Base ──── ready(AdapterWeights) → ReadyAdapter
//!                                            └────── backend() → Backend: forward(Step) → logits
//! ```
//!
//! A device implements [`Base`], the weights in its own form, and [`Backend`], which the engine
//! drives. [`AdapterWeights`] is what an adapter changes, free of any file format. This crate knows
//! nothing of how a device computes, nor of requests, sampling, names of adapters, or HTTP.

mod base;
mod budget;
pub mod config;
pub mod delta;
pub mod drive;
mod error;
mod files;
mod modules;
mod ready;
mod step;
mod throttle;

pub use base::{BackendOptions, Base, KvBlock};
pub use budget::{MemoryBudget, Want};
pub use config::Config;
pub use delta::{
    AdapterHash, AdapterWeights, EmbeddingDelta, LinearDelta, LinearId, LowRank, Matrix, Target,
};
pub use error::ModelError;
pub use files::ModelFiles;
pub use modules::{Module, ModuleKind};
pub use multigraft_kernels::{KvDtype, LoraDtype as AdapterDtype, Precision};
pub use ready::ReadyAdapter;
pub use step::{Backend, BackendError, BlockId, Limits, Outputs, Run, Slot, Step, StepTime, Wanted};
pub use throttle::Throttle;

//! Base models on this machine's processor: weights packed for its kernels, one decoder for all
//! architectures, and the backend that runs steps.
//!
//! ```text
//! ModelFiles (GGUF or folder) ─ Config ─┐
//!                                       ├─ CpuBase ── ready(AdapterWeights) → ReadyAdapter
//!                    tensors, packed ───┘     └────── backend() → CpuBackend: forward → logits
//! ```
//!
//! [`CpuBase`] implements [`Base`](multigraft_model::Base), and what it opens implements
//! [`Backend`](multigraft_model::Backend). The rest of the program knows these two traits; only the
//! place that chooses the device, and tests, name a type of this crate.

mod adapter;
mod backend;
mod base;
mod decoder;
mod experts;
mod load;
mod model;
mod project;
mod size;
mod weights;

pub use backend::{BLOCK_TOKENS, CpuBackend, kv_block};
pub use load::LoadOptions;
pub use model::CpuBase;

//! The arithmetic of a decoder on a CPU.
//!
//! This crate knows matrices, rows and threads. It knows nothing of files, requests, names of
//! adapters or HTTP.
//!
//! Start at [`BlockType`] (how weights are stored in a file), [`PackedMatrix`] and [`matmul`] (how
//! they are multiplied), and [`Pool`] (the threads). Every kernel keeps two promises. A row's
//! result does not depend on the other rows, the number of threads or the instruction set, to the
//! bit. And the portable version is the specification that the vector versions are tested against.

mod activation;
mod attention;
mod blocks;
mod isa;
mod lora;
pub mod machine;
pub mod malloc;
mod matrix;
mod norm;
mod pool;
mod reclaim;
mod rope;
mod scaled;
mod shared;

pub use activation::{Activation, gated, softcap};
pub use attention::{
    Attention, AttentionPlan, BLOCK_POSITIONS, HeadNorms, KvDtype, KvLayer, Query, attention, store_kv,
};
pub use blocks::{BlockType, UnknownBlockType};
pub use isa::{InstructionSet, UnavailableSet};
pub use lora::{LoraDtype, LoraSegment, PackedLora, add_lora};
pub use matrix::{
    ActivationScratch, Activations, PackError, PackedMatrix, Part, Precision, RowOrder, matmul,
};
pub use norm::{add_residual, rms_norm};
pub use pool::Pool;
pub use rope::Angles;

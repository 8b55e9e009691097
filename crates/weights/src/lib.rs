//! Reading untrusted model files: GGUF, and safetensors in one file or many.
//!
//! A file is mapped into memory (small safetensors files are read), its header is checked once, and
//! from then on [`Tensor`]s borrow their bytes from it without copying. Every count, length and
//! offset in a file is compared with the file's real size *before* memory is allocated for it, so a
//! false header costs an error message and nothing else. Pickled checkpoints are never read.
//!
//! ```text
//! Gguf::open ──────── gguf::header ──┐
//!                                    ├── Tensor { name, shape, block_type, bytes } ── to_f32
//! Checkpoint::open_* ─ safetensors::header ┘
//! ```
//!
//! The numbers inside a tensor are not checked here (a NaN is a valid float); [`BlockType::decode`]
//! defines the floats that they stand for.

mod bytes;
mod error;
pub mod gguf;
mod mmap;
pub mod safetensors;
mod tensor;

pub use error::{Fault, WeightsError};
pub use multigraft_kernels::BlockType;
pub use tensor::Tensor;

//! Numbers in, numbers out: the arithmetic of a decoder on a CPU.
//!
//! This crate knows matrices, rows and threads. It knows nothing of files, requests, adapters' names or HTTP.
//!
//! Start at [`BlockType`]: how numbers lie in a file.

mod blocks;

pub use blocks::{BlockType, UnknownBlockType};

//! GGUF, versions 2 and 3, little-endian: llama.cpp's single-file format.
//!
//! Specification: `docs/gguf.md` of the GGML repository. A file is a fixed header, metadata (typed
//! key-value pairs), one description per tensor, padding, and the tensors' data, each aligned to
//! `general.alignment`.

mod cursor;
mod header;
mod metadata;
mod value;
mod write;

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

pub use metadata::Metadata;
pub use value::{Array, Value};
pub use write::{Pair, Planned, write, write_like};

use crate::bytes::{Access, FileBytes};
use crate::error::WeightsError;
use crate::tensor::Tensor;
use header::{Header, TensorInfo};

/// An open GGUF file.
pub struct Gguf {
    path: PathBuf,
    bytes: FileBytes,
    metadata: Metadata,
    /// Where the metadata's pairs are.
    pairs: Range<usize>,
    alignment: usize,
    tensors: Vec<TensorInfo>,
    /// Name → position in `tensors`.
    by_name: HashMap<String, usize>,
}

impl Gguf {
    /// Maps the file and checks its header.
    ///
    /// # Errors
    /// If it cannot be read, is no GGUF file of version 2 or 3, is truncated, or contradicts
    /// itself.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        Self::new(path.to_owned(), FileBytes::open(path, Access::Map)?)
    }

    /// The same for bytes in memory; `name` stands for the path in messages.
    ///
    /// # Errors
    /// As [`Gguf::open`].
    pub fn from_bytes(name: &str, bytes: Vec<u8>) -> Result<Self, WeightsError> {
        Self::new(PathBuf::from(name), FileBytes::Owned(bytes))
    }

    fn new(path: PathBuf, bytes: FileBytes) -> Result<Self, WeightsError> {
        let Header {
            metadata,
            pairs,
            alignment,
            tensors,
            by_name,
        } = Header::parse(&bytes).map_err(|fault| fault.in_file(&path))?;
        Ok(Self {
            path,
            bytes,
            metadata,
            pairs,
            alignment,
            tensors,
            by_name,
        })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The key-value pairs.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// All tensors in the file's order.
    pub fn tensors(&self) -> impl Iterator<Item = Tensor<'_>> {
        self.tensors.iter().map(|info| self.view(info))
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<Tensor<'_>> {
        self.by_name.get(name).map(|&i| self.view(&self.tensors[i]))
    }

    /// The tensor called `name`.
    ///
    /// # Errors
    /// [`WeightsError::NoTensor`] if there is none.
    pub fn require(&self, name: &str) -> Result<Tensor<'_>, WeightsError> {
        self.tensor(name).ok_or_else(|| WeightsError::NoTensor {
            path: self.path.clone(),
            tensor: name.to_owned(),
        })
    }

    fn view<'a>(&'a self, info: &'a TensorInfo) -> Tensor<'a> {
        Tensor {
            name: &info.name,
            shape: &info.shape,
            block_type: info.block_type,
            bytes: &self.bytes[info.range.clone()],
        }
    }
}

impl fmt::Debug for Gguf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gguf")
            .field("path", &self.path)
            .field("tensors", &self.tensors.len())
            .finish_non_exhaustive()
    }
}

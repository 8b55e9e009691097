//! safetensors: Hugging Face's format, one file or several shards with an index.
//!
//! Specification: the `safetensors` repository's README. A file is the header's length (64 bits),
//! the header (JSON: name → dtype, shape, data_offsets), and the tensors' bytes without gaps. The
//! header is parsed here rather than by the `safetensors` crate so that an error can name the
//! tensor, a name that occurs twice is seen, and a dtype that nobody knows yet spoils only its own
//! tensor. The crate is the oracle of the tests.

mod folder;
mod header;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};

use multigraft_kernels::BlockType;

use crate::bytes::{Access, FileBytes};
use crate::error::WeightsError;
use crate::tensor::Tensor;
use header::{Header, TensorInfo};

/// The tensors of one safetensors file or of all shards of a checkpoint, under unique names.
pub struct Checkpoint {
    path: PathBuf,
    files: Vec<FileBytes>,
    /// In order of the files, then of their bytes.
    tensors: Vec<Located>,
    /// Name → position in `tensors`.
    by_name: HashMap<String, usize>,
    metadata: BTreeMap<String, String>,
}

/// A tensor and the file that it is in.
struct Located {
    file: usize,
    info: TensorInfo,
}

impl Checkpoint {
    /// Opens a Hugging Face folder: `model.safetensors`; else `model.safetensors.index.json` and
    /// the shards that it names; else every `*.safetensors` in it. With an index, tensors that it
    /// does not list are left out.
    ///
    /// # Errors
    /// If there are no such files (pickled files are named and refused), or one cannot be read or
    /// contradicts itself or the index.
    pub fn open_folder(path: &Path) -> Result<Self, WeightsError> {
        folder::open(path)
    }

    /// Opens one safetensors file.
    ///
    /// # Errors
    /// If it cannot be read, is truncated, or contradicts itself.
    pub fn open_file(path: &Path) -> Result<Self, WeightsError> {
        let mut checkpoint = Self::empty(path);
        checkpoint.add(path, FileBytes::open(path, Access::ReadSmall)?, |_| true)?;
        Ok(checkpoint)
    }

    /// The same for bytes in memory; `name` stands for the path in messages.
    ///
    /// # Errors
    /// As [`Checkpoint::open_file`].
    pub fn from_bytes(name: &str, bytes: Vec<u8>) -> Result<Self, WeightsError> {
        let path = Path::new(name);
        let mut checkpoint = Self::empty(path);
        checkpoint.add(path, FileBytes::Owned(bytes), |_| true)?;
        Ok(checkpoint)
    }

    fn empty(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            files: Vec::new(),
            tensors: Vec::new(),
            by_name: HashMap::new(),
            metadata: BTreeMap::new(),
        }
    }

    /// Adds those tensors of a file whose names are `wanted`.
    fn add(
        &mut self,
        path: &Path,
        bytes: FileBytes,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<(), WeightsError> {
        let header = Header::parse(&bytes).map_err(|fault| fault.in_file(path))?;
        let file = self.files.len();
        for info in header.tensors.into_iter().filter(|info| wanted(&info.name)) {
            if self
                .by_name
                .insert(info.name.clone(), self.tensors.len())
                .is_some()
            {
                return Err(crate::Fault::DuplicateTensor(info.name).in_file(path));
            }
            self.tensors.push(Located { file, info });
        }
        self.files.push(bytes);
        for (key, value) in header.metadata {
            self.metadata.entry(key).or_insert(value);
        }
        Ok(())
    }

    /// The file or folder that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All tensors of dtype F32, F16 or BF16, in order of the files and of the bytes in them.
    /// Tensors of other dtypes are in [`Checkpoint::others`].
    pub fn tensors(&self) -> impl Iterator<Item = Tensor<'_>> {
        self.tensors.iter().filter_map(|located| self.view(located))
    }

    /// The tensor called `name`, if its dtype is F32, F16 or BF16.
    pub fn tensor(&self, name: &str) -> Option<Tensor<'_>> {
        self.view(self.located(name)?)
    }

    /// The tensor called `name`.
    ///
    /// # Errors
    /// [`WeightsError::NoTensor`] if there is none, [`WeightsError::UnsupportedDtype`] if it is not
    /// F32, F16 or BF16.
    pub fn require(&self, name: &str) -> Result<Tensor<'_>, WeightsError> {
        let (path, tensor) = (self.path.clone(), name.to_owned());
        match self.located(name) {
            None => Err(WeightsError::NoTensor { path, tensor }),
            Some(located) => self.view(located).ok_or_else(|| WeightsError::UnsupportedDtype {
                path,
                tensor,
                dtype: located.info.dtype.clone(),
            }),
        }
    }

    /// The tensors that are not F32, F16 or BF16: name, dtype as in the file, shape.
    pub fn others(&self) -> impl Iterator<Item = (&str, &str, &[usize])> {
        self.tensors
            .iter()
            .map(|located| &located.info)
            .filter(|info| info.block_type().is_none())
            .map(|info| (info.name.as_str(), info.dtype.as_str(), info.shape.as_slice()))
    }

    /// The dtype of a tensor as in the file.
    pub fn dtype(&self, name: &str) -> Option<&str> {
        Some(&self.located(name)?.info.dtype)
    }

    /// The shape of a tensor of any dtype.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        Some(&self.located(name)?.info.shape)
    }

    /// The elements of the tensor called `name`, if its dtype is I64 or I32.
    pub fn i64s(&self, name: &str) -> Option<Vec<i64>> {
        let located = self.located(name)?;
        let bytes = self.bytes(located);
        match located.info.dtype.as_str() {
            "I64" => Some(
                bytes
                    .as_chunks()
                    .0
                    .iter()
                    .map(|&chunk| i64::from_le_bytes(chunk))
                    .collect(),
            ),
            "I32" => Some(
                bytes
                    .as_chunks()
                    .0
                    .iter()
                    .map(|&chunk| i32::from_le_bytes(chunk).into())
                    .collect(),
            ),
            _ => None,
        }
    }

    /// The free-form text in the headers' `__metadata__`; where shards differ, the first one's.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    fn located(&self, name: &str) -> Option<&Located> {
        self.by_name.get(name).map(|&i| &self.tensors[i])
    }

    fn bytes(&self, located: &Located) -> &[u8] {
        &self.files[located.file][located.info.range.clone()]
    }

    fn view<'a>(&'a self, located: &'a Located) -> Option<Tensor<'a>> {
        let TensorInfo { name, shape, .. } = &located.info;
        let block_type: BlockType = located.info.block_type()?;
        Some(Tensor {
            name,
            shape,
            block_type,
            bytes: self.bytes(located),
        })
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpoint")
            .field("path", &self.path)
            .field("files", &self.files.len())
            .field("tensors", &self.tensors.len())
            .finish_non_exhaustive()
    }
}

//! Errors of model files.

use std::fmt;
use std::path::{Path, PathBuf};

use multigraft_kernels::UnknownBlockType;

/// Why weights could not be read. Every message names the file or folder.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The operating system reported an error.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A folder, pipe or device where a file was expected.
    #[error("`{}` is not a regular file", path.display())]
    NotAFile {
        /// What was opened.
        path: PathBuf,
    },
    /// The contents violate the format.
    #[error("`{}`: {fault}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: Fault,
    },
    /// A folder holds nothing to read.
    #[error(
        "`{}` holds no weights: looked for model.safetensors, model.safetensors.index.json and any other *.safetensors{hint}",
        path.display()
    )]
    NoWeights {
        /// The folder.
        path: PathBuf,
        /// A further sentence if there is a GGUF file, or nothing.
        hint: String,
    },
    /// The folder has only pickled weights, which could run code when they are read.
    #[error(
        "`{}` is a pickled file, which is never read because reading it can run code: convert it to safetensors (with \
         transformers or PEFT: load it and `save_pretrained(…, safe_serialization=True)`)",
        path.display()
    )]
    Pickled {
        /// The pickled file.
        path: PathBuf,
    },
    /// The index of a sharded checkpoint names a file that does not exist.
    #[error("`{}` is missing: `{}` says that it holds tensor `{}`", shard.display(), index.display(), Quoted(tensor))]
    MissingShard {
        /// The index file.
        index: PathBuf,
        /// The missing file.
        shard: PathBuf,
        /// A tensor that should be in it.
        tensor: String,
    },
    /// The requested tensor is not in the file.
    #[error("`{}` has no tensor `{}`", path.display(), Quoted(tensor))]
    NoTensor {
        /// The file or folder.
        path: PathBuf,
        /// The requested name.
        tensor: String,
    },
    /// The requested tensor has a dtype that multigraft does not read as floats.
    #[error(
        "tensor `{}` in `{}` has dtype {}; weights must be F32, F16 or BF16",
        Quoted(tensor), path.display(), Quoted(dtype)
    )]
    UnsupportedDtype {
        /// The file or folder.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The dtype as written in the file.
        dtype: String,
    },
}

/// What is wrong inside one file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No bytes at all.
    #[error("the file is empty")]
    Empty,
    /// The file ends before something that it announced.
    #[error(
        "{what} takes {needed} bytes at offset {offset}, but the file has only {size}: it is truncated or corrupt"
    )]
    Truncated {
        /// What was being read.
        what: String,
        /// How many bytes it takes.
        needed: u64,
        /// Where it starts.
        offset: u64,
        /// The file's size.
        size: u64,
    },
    /// A count that is impossible in a file of this size.
    #[error("{what}: {count} is more than the {left} bytes that are left in the file can hold")]
    TooMany {
        /// What is counted.
        what: String,
        /// The count in the file.
        count: u64,
        /// Bytes from here to the end of the file.
        left: u64,
    },
    /// A GGUF header larger than any real one.
    #[error(
        "{what} reaches past the first {limit} bytes, within which a GGUF header must end: the file is corrupt"
    )]
    PastHeaderLimit {
        /// What was being read.
        what: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// Text that is not UTF-8.
    #[error("{what} is not valid UTF-8")]
    NotUtf8 {
        /// What was being read.
        what: String,
    },
    /// A name that is longer than the limit.
    #[error("{what} is {len} bytes long, the limit is {limit}")]
    TooLong {
        /// What was being read.
        what: String,
        /// Its length in bytes.
        len: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The first four bytes are not `GGUF`.
    #[error("not a GGUF file: it starts with {0:02x?} instead of `GGUF`")]
    NotGguf([u8; 4]),
    /// Written for a big-endian machine.
    #[error("the GGUF file is big-endian; only little-endian files are read")]
    BigEndian,
    /// A GGUF version with another layout.
    #[error(
        "GGUF version {0} is not supported; versions 2 and 3 are (convert the model again with a current tool)"
    )]
    GgufVersion(u32),
    /// A metadata type number that GGUF does not define.
    #[error("{what} has type {id}, which GGUF does not define")]
    UnknownValueType {
        /// What was being read.
        what: String,
        /// The number in the file.
        id: u32,
    },
    /// Arrays that are nested too deeply.
    #[error("{what} nests arrays more than {limit} deep")]
    NestedTooDeep {
        /// What was being read.
        what: String,
        /// The limit.
        limit: usize,
    },
    /// A boolean that is neither 0 nor 1.
    #[error("{what} holds the byte {byte} where a bool (0 or 1) is expected")]
    NotABool {
        /// What was being read.
        what: String,
        /// The byte in the file.
        byte: u8,
    },
    /// The same metadata key twice.
    #[error("metadata key `{}` occurs twice", Quoted(.0))]
    DuplicateKey(String),
    /// `general.alignment` is unusable.
    #[error("general.alignment is {0}; it must be a power of two from 1 to 1048576")]
    BadAlignment(String),
    /// The same tensor name twice.
    #[error("tensor `{}` occurs twice", Quoted(.0))]
    DuplicateTensor(String),
    /// More dimensions than GGUF allows.
    #[error("tensor `{}` has {dims} dimensions; GGUF allows 1 to 4", Quoted(tensor))]
    BadDimensions {
        /// The tensor.
        tensor: String,
        /// Its number of dimensions in the file.
        dims: u32,
    },
    /// A shape whose size does not fit the address space.
    #[error(
        "tensor `{}` has shape {shape:?}, whose size in bytes overflows",
        Quoted(tensor)
    )]
    ShapeOverflow {
        /// The tensor.
        tensor: String,
        /// The shape, outermost first.
        shape: Vec<u64>,
    },
    /// A GGUF dimension of zero.
    #[error("tensor `{}` has shape {shape:?} with a dimension of 0", Quoted(tensor))]
    ZeroDimension {
        /// The tensor.
        tensor: String,
        /// The shape, outermost first.
        shape: Vec<u64>,
    },
    /// A row that is not made of whole blocks.
    #[error(
        "tensor `{}` has rows of {cols} weights, which is no multiple of {block_type}'s block of {block}",
        Quoted(tensor)
    )]
    PartialBlock {
        /// The tensor.
        tensor: String,
        /// The length of its rows.
        cols: usize,
        /// The name of its block type.
        block_type: &'static str,
        /// Weights per block.
        block: usize,
    },
    /// A block type that multigraft does not read.
    #[error("tensor `{}`: {source}", Quoted(tensor))]
    UnknownBlockType {
        /// The tensor.
        tensor: String,
        /// The type.
        source: UnknownBlockType,
    },
    /// An offset that is not a multiple of the file's alignment.
    #[error(
        "tensor `{}` is at offset {offset}, which is no multiple of the file's alignment {alignment}",
        Quoted(tensor)
    )]
    Misaligned {
        /// The tensor.
        tensor: String,
        /// Its offset in the data section.
        offset: u64,
        /// `general.alignment`.
        alignment: u64,
    },
    /// Two tensors that share bytes.
    #[error("tensors `{}` and `{}` overlap", Quoted(first), Quoted(second))]
    Overlap {
        /// The one that starts first.
        first: String,
        /// The other.
        second: String,
    },
    /// A safetensors header longer than any real one.
    #[error(
        "the header is {len} bytes long; the limit is {limit}: this is not a safetensors file or it is corrupt"
    )]
    HeaderTooLong {
        /// The length in the file.
        len: u64,
        /// The limit.
        limit: u64,
    },
    /// A safetensors header or index that is invalid JSON or has the wrong fields.
    #[error("{what} is not valid: {reason}")]
    BadJson {
        /// What was being read.
        what: &'static str,
        /// The parser's message, with line and column.
        reason: String,
    },
    /// A tensor that ends before it starts.
    #[error(
        "tensor `{}` has data_offsets [{begin}, {end}], which end before they begin",
        Quoted(tensor)
    )]
    BackwardOffsets {
        /// The tensor.
        tensor: String,
        /// First byte in the data section.
        begin: u64,
        /// One past its last byte.
        end: u64,
    },
    /// Offsets and shape disagree.
    #[error(
        "tensor `{}` has shape {shape:?} and dtype {dtype}, which take {expected} bytes, but its data_offsets span {actual}",
        Quoted(tensor)
    )]
    SizeMismatch {
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<u64>,
        /// Its dtype as in the file.
        dtype: String,
        /// Bytes by shape and dtype.
        expected: u64,
        /// Bytes by offsets.
        actual: u64,
    },
    /// Bytes that belong to no tensor.
    #[error("{bytes} bytes before {what} belong to no tensor")]
    Hole {
        /// How many bytes.
        bytes: u64,
        /// The tensor after them, or the end of the file.
        what: String,
    },
    /// An index that names a file outside of its folder or a file that is not safetensors.
    #[error(
        "the index puts tensor `{}` into `{}`, which is not the plain name of a .safetensors file in the same folder",
        Quoted(tensor),
        Quoted(shard)
    )]
    BadShardName {
        /// The tensor.
        tensor: String,
        /// The file name in the index.
        shard: String,
    },
    /// An index that names no tensor.
    #[error("the index's weight_map is empty")]
    EmptyIndex,
    /// The index names this file for a tensor that is not in it.
    #[error("tensor `{}` is missing, although the index says that it is in this file", Quoted(.0))]
    MissingFromShard(String),
}

impl Fault {
    /// The error for the file that it is in.
    pub(crate) fn in_file(self, path: &Path) -> WeightsError {
        WeightsError::Invalid {
            path: path.to_owned(),
            fault: self,
        }
    }
}

/// Text from a file, made safe for messages: control characters are escaped, long texts truncated.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 120;
        for c in self.0.chars().take(SHOWN) {
            if c.is_control() {
                write!(f, "{}", c.escape_default())?
            } else {
                write!(f, "{c}")?
            }
        }
        if self.0.chars().nth(SHOWN).is_some() {
            f.write_str("…")
        } else {
            Ok(())
        }
    }
}

//! What can go wrong when an adapter's files are read.

use std::path::PathBuf;

use multigraft_text::TextError;
use multigraft_weights::WeightsError;

use crate::refusal::Refusal;

/// Why an adapter could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The operating system refused.
    #[error("cannot read `{}`: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A folder, pipe or device where a file was expected.
    #[error("`{}` is not a regular file", path.display())]
    NotAFile {
        /// What was found.
        path: PathBuf,
    },
    /// Neither `adapter_config.json` nor a `.gguf` file.
    #[error("`{}` is no adapter: it holds neither adapter_config.json nor a .gguf file{hint}", folder.display())]
    NoConfig {
        /// The folder.
        folder: PathBuf,
        /// A further clause if a sub-folder holds one, or nothing.
        hint: String,
    },
    /// Several files in llama.cpp's format, of which one would have to be chosen.
    #[error(
        "`{}` holds no adapter_config.json and more than one .gguf file (`{}`, `{}`): name one of them",
        folder.display(), first.display(), second.display()
    )]
    SeveralGgufs {
        /// The folder.
        folder: PathBuf,
        /// One of them.
        first: PathBuf,
        /// Another.
        second: PathBuf,
    },
    /// A config without tensors.
    #[error("`{}` holds adapter_config.json but no adapter_model.safetensors", folder.display())]
    NoWeights {
        /// The folder.
        folder: PathBuf,
    },
    /// Only pickled tensors, which could run code when read.
    #[error(
        "`{}` is a pickled file, which is never read because reading it can run code: load the adapter with PEFT and save it \
         again with `save_pretrained(…, safe_serialization=True)`",
        path.display()
    )]
    Pickled {
        /// The file.
        path: PathBuf,
    },
    /// A chat template in the folder that cannot be used.
    #[error("`{}`: {reason}", path.display())]
    Template {
        /// The file that it is in.
        path: PathBuf,
        /// Why not.
        reason: TextError,
    },
    /// A file beyond the size that is read.
    #[error("`{}` has {size} bytes, the limit is {limit}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// `adapter_model.safetensors` is not a safetensors file, or a `.gguf` no GGUF, or damaged.
    #[error(transparent)]
    Weights(Box<WeightsError>),
    /// The adapter says something that cannot be applied to this base.
    #[error("`{}`: {reason}", path.display())]
    Refused {
        /// The file that says it.
        path: PathBuf,
        /// What it says.
        reason: Refusal,
    },
}

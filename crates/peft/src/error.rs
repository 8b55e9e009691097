//! Errors of reading an adapter's files.

use std::path::PathBuf;

use multigraft_text::TextError;
use multigraft_weights::WeightsError;

use crate::refusal::Refusal;

/// Why an adapter could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A file or folder cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The path is a folder, pipe or device instead of a file.
    #[error("`{}` is not a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The folder has neither `adapter_config.json` nor a `.gguf` file.
    #[error("`{}` is not an adapter: it holds neither adapter_config.json nor a .gguf file{hint}", folder.display())]
    NoConfig {
        /// The folder.
        folder: PathBuf,
        /// A clause that names a sub-folder with an adapter, or nothing.
        hint: String,
    },
    /// The folder has several GGUF files, so the adapter is ambiguous.
    #[error(
        "`{}` holds no adapter_config.json and more than one .gguf file (`{}`, `{}`): name one of them",
        folder.display(), first.display(), second.display()
    )]
    SeveralGgufs {
        /// The folder.
        folder: PathBuf,
        /// The first file.
        first: PathBuf,
        /// The second file.
        second: PathBuf,
    },
    /// The folder has a config but no tensors.
    #[error("`{}` holds adapter_config.json but no adapter_model.safetensors", folder.display())]
    NoWeights {
        /// The folder.
        folder: PathBuf,
    },
    /// The tensors are pickled. Reading a pickle can run code.
    #[error(
        "`{}` is a pickled file, which is never read because reading it can run code: load the adapter with PEFT and save it \
         again with `save_pretrained(…, safe_serialization=True)`",
        path.display()
    )]
    Pickled {
        /// The file.
        path: PathBuf,
    },
    /// The folder's chat template cannot be used.
    #[error("`{}`: {reason}", path.display())]
    Template {
        /// The file that holds the template.
        path: PathBuf,
        /// Why not.
        reason: TextError,
    },
    /// A file is larger than its limit.
    #[error("`{}` has {size} bytes, the limit is {limit}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// `adapter_model.safetensors` or a `.gguf` file is damaged or has another format.
    #[error(transparent)]
    Weights(Box<WeightsError>),
    /// The adapter cannot be applied to this base.
    #[error("`{}`: {reason}", path.display())]
    Refused {
        /// The file with the cause.
        path: PathBuf,
        /// The cause.
        reason: Refusal,
    },
}

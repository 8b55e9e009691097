//! What can go wrong with adapters, by file and by name.

use std::path::PathBuf;

use multigraft_model::ModelError;
use multigraft_text::TextError;
use multigraft_weights::WeightsError;

use crate::refusal::{Quoted, Refusal};
use crate::source::{BadReference, FetchError};

/// Why an adapter could not be read, or not be put under a name.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// The operating system refused.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
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
    /// The base could not take it.
    #[error("`{}`: {source}", folder.display())]
    Pack {
        /// The adapter's folder.
        folder: PathBuf,
        /// Why.
        source: Box<ModelError>,
    },
    /// It does not do what it should.
    #[error("`{}`: {reason}", folder.display())]
    SelfTest {
        /// The adapter's folder.
        folder: PathBuf,
        /// What the test found.
        reason: String,
    },
    /// A name that cannot be served.
    #[error("{} cannot be the name of an adapter: {reason}", Quoted(name))]
    BadName {
        /// The name.
        name: String,
        /// Why not.
        reason: &'static str,
    },
    /// Files that are no longer those that were registered.
    #[error(
        "the files in `{}` have changed since it was added (they were {known}, and are {found} now): add it again to serve \
         them as they are",
        folder.display()
    )]
    Changed {
        /// The adapter's folder.
        folder: PathBuf,
        /// The hash that was registered.
        known: String,
        /// That of what is there.
        found: String,
    },
    /// A name for which another adapter is just being loaded.
    #[error(
        "{} is just being loaded from `{at}`: wait until that has ended",
        Quoted(name)
    )]
    BeingLoaded {
        /// The name.
        name: String,
        /// From where.
        at: String,
    },
    /// As many adapters arrive as may at once.
    #[error("{most} adapters are being uploaded, and no more may be at once: come back when one has arrived")]
    TooManyUploads {
        /// How many may.
        most: usize,
    },
    /// A source that means nothing.
    #[error(transparent)]
    BadReference(#[from] BadReference),
    /// Files that could not be brought to this machine.
    #[error("`{at}` cannot be fetched: {reason}")]
    Fetch {
        /// From where.
        at: String,
        /// Why not.
        reason: FetchError,
    },
    /// A source that adapters may not come from.
    #[error(
        "adapters may not be added from {}: {}",
        Quoted(reference),
        match allowed.as_slice() {
            [] => "this server allows no source; name some with --allow-source".to_owned(),
            [one] => format!("this server allows `{one}` and what is in it (--allow-source)"),
            [first, others @ ..] => format!(
                "this server allows `{first}` and {} other sources (--allow-source)", others.len()
            ),
        }
    )]
    NotAllowed {
        /// What was asked for.
        reference: String,
        /// The sources that are allowed.
        allowed: Vec<String>,
    },
    /// An upload that could not be kept.
    #[error("adapter {} cannot be uploaded: {reason}", Quoted(name))]
    NoUpload {
        /// Its name.
        name: String,
        /// Why not, and what to do.
        reason: &'static str,
    },
    /// One name for two sources.
    #[error("two adapters are called {}: `{first}` and `{second}`", Quoted(name))]
    DuplicateName {
        /// The name.
        name: String,
        /// The source that has it.
        first: String,
        /// The source that wants it too.
        second: String,
    },
}

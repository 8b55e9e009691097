//! What can go wrong with sources, and with bringing their files to this machine.

use std::io;
use std::path::{Path, PathBuf};

use crate::reference::BadReference;

/// What can go wrong with a source.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Text that names no source.
    #[error(transparent)]
    BadReference(#[from] BadReference),
    /// A source that may not be used.
    #[error("`{}` is none of the sources that are allowed", reference.escape_debug())]
    NotAllowed {
        /// What was asked for.
        reference: String,
        /// The sources that are allowed.
        allowed: Vec<String>,
    },
    /// A folder of this machine that cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Files that could not be brought to this machine.
    #[error("`{at}` cannot be fetched: {reason}")]
    Fetch {
        /// From where.
        at: String,
        /// Why not.
        reason: FetchError,
    },
}

/// Why files could not be brought to this machine.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It is not there, or not for us.
    #[error("there is no such repository or revision, or it is private and HF_TOKEN does not open it")]
    NoRepository,
    /// A file of it.
    #[error("it holds no {name}")]
    Missing {
        /// The file.
        name: String,
    },
    /// Not for us.
    #[error("access is denied: {reason}")]
    Denied {
        /// What the server said.
        reason: String,
    },
    /// Not in the Hub's cache, and the Hub may not be asked.
    #[error("it is not in the Hub's cache, and HF_HUB_OFFLINE forbids to ask the Hub")]
    Offline,
    /// A file beyond the size that is read.
    #[error("{name} has {size} bytes, the limit is {limit}")]
    TooLarge {
        /// The file.
        name: String,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// An address of a local network.
    #[error(
        "`{host}` is no public address, and this server fetches from no other unless --allow-source names the host"
    )]
    Private {
        /// The host.
        host: String,
    },
    /// Less than was announced, again and again.
    #[error("only {arrived} of {size} bytes arrived")]
    Short {
        /// Bytes that did.
        arrived: u64,
        /// Bytes that should have.
        size: u64,
    },
    /// More than was announced.
    #[error("more than the announced {size} bytes arrived")]
    Long {
        /// Bytes that should have.
        size: u64,
    },
    /// Other bytes than were announced.
    #[error("it arrived damaged: its SHA-256 is {found} instead of {wanted}")]
    Damaged {
        /// What was announced.
        wanted: String,
        /// What arrived.
        found: String,
    },
    /// Replaced while it was fetched.
    #[error("it was replaced while it was being fetched: try again")]
    ChangedMeanwhile,
    /// Nothing arrives any more.
    #[error("nothing arrived for a minute")]
    Stalled,
    /// The network, or what the server answered.
    #[error("{0}")]
    Transport(String),
    /// Our own disk.
    #[error("`{}`: {source}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl FetchError {
    pub(crate) fn file(path: &Path, source: io::Error) -> Self {
        Self::File {
            path: path.to_owned(),
            source,
        }
    }

    /// Whether it may go well a moment later.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, Self::Short { .. } | Self::Stalled | Self::Transport(_))
    }
}

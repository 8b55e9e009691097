//! Errors of sources and of downloads.

use std::io;
use std::path::{Path, PathBuf};

use crate::reference::BadReference;

/// Why a source cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The text is not a reference.
    #[error(transparent)]
    BadReference(#[from] BadReference),
    /// The source is not allowed.
    #[error("`{}` is not an allowed source", reference.escape_debug())]
    NotAllowed {
        /// The reference as it was written.
        reference: String,
        /// The sources that are allowed.
        allowed: Vec<String>,
    },
    /// A folder on this machine cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The files could not be downloaded.
    #[error("`{at}` cannot be fetched: {reason}")]
    Fetch {
        /// The source.
        at: String,
        /// Why the download failed.
        reason: FetchError,
    },
}

/// Why files could not be downloaded.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The Hub does not have the repository or revision, or does not grant access to it.
    #[error("there is no such repository or revision, or it is private and HF_TOKEN does not grant access")]
    NoRepository,
    /// The source lacks a required file.
    #[error("it holds no {name}")]
    Missing {
        /// The file.
        name: String,
    },
    /// The server denied access.
    #[error("access is denied: {reason}")]
    Denied {
        /// The server's answer.
        reason: String,
    },
    /// The files are not in the Hub's cache, and the Hub may not be contacted.
    #[error("it is not in the Hub's cache, and HF_HUB_OFFLINE forbids contacting the Hub")]
    Offline,
    /// A file is larger than its limit.
    #[error("{name} has {size} bytes, the limit is {limit}")]
    TooLarge {
        /// The file.
        name: String,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The host has an address in a local network.
    #[error(
        "`{host}` is not a public address; this server fetches from other addresses only if --allow-source names the host"
    )]
    Private {
        /// The host.
        host: String,
    },
    /// Fewer bytes arrived than announced, in several attempts.
    #[error("only {arrived} of {size} bytes arrived")]
    Short {
        /// Bytes that arrived.
        arrived: u64,
        /// Bytes that were announced.
        size: u64,
    },
    /// More bytes arrived than announced.
    #[error("more than the announced {size} bytes arrived")]
    Long {
        /// Bytes that were announced.
        size: u64,
    },
    /// The content does not match its hash.
    #[error("it arrived damaged: its SHA-256 is {found} instead of {wanted}")]
    Damaged {
        /// The announced SHA-256.
        wanted: String,
        /// The SHA-256 of the received bytes.
        found: String,
    },
    /// The file was replaced during the download.
    #[error("it was replaced while it was being fetched: try again")]
    ChangedMeanwhile,
    /// No data arrived for a minute.
    #[error("nothing arrived for a minute")]
    Stalled,
    /// A network error, or an unexpected answer of the server.
    #[error("{0}")]
    Transport(String),
    /// A file on this machine cannot be written.
    #[error("`{}`: {source}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's error.
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

    /// Whether a retry a moment later may succeed.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self, Self::Short { .. } | Self::Stalled | Self::Transport(_))
    }
}

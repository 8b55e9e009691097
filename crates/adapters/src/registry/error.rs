//! What can go wrong with a registry.

use std::sync::Arc;
use std::time::Duration;

use multigraft_peft::MergeError;

use super::catalogue::StoreError;
use crate::error::AdapterError;

/// Why an adapter is not there.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LoadError {
    /// It could not be loaded.
    #[error("{0}")]
    Failed(Arc<AdapterError>),
    /// It could not be loaded a while ago, and is not tried again yet.
    #[error("{error} (tried {attempts} times, next in {} s)", retry_after.as_secs().max(1))]
    BackedOff {
        /// What the last load said.
        error: Box<Self>,
        /// How often it was tried.
        attempts: u32,
        /// How long it is until the next.
        retry_after: Duration,
    },
    /// Adapters that cannot be merged.
    #[error("{0}")]
    Merge(Arc<MergeError>),
    /// Running and pinned adapters leave no memory for it.
    #[error(
        "it needs {needed} bytes, but running and pinned adapters hold {held} of the {memory} bytes that adapters may take"
    )]
    NoRoom {
        /// What it needs.
        needed: usize,
        /// What cannot be dropped.
        held: usize,
        /// What all adapters may take.
        memory: usize,
    },
    /// Running requests and pinned adapters leave no memory for it.
    #[error(
        "it needs {needed} bytes, of which {lacking} lack: running requests' keys and values and pinned adapters hold the rest of \
         the {memory} bytes that all may take"
    )]
    NoBudget {
        /// What it needs.
        needed: usize,
        /// What is not there.
        lacking: usize,
        /// The budget.
        memory: usize,
    },
    /// Too many requests wait for adapters already.
    #[error("{waiting} requests are waiting for adapters already, the most that may")]
    TooManyWait {
        /// How many.
        waiting: usize,
    },
    /// It cannot be stored, so it was not added.
    #[error("it cannot be stored: {0}")]
    Store(Arc<StoreError>),
    /// A fault of ours; the log says more.
    #[error("an internal error; the server's log says more")]
    Panicked,
    /// The name was removed meanwhile.
    #[error("it was removed while it was being loaded")]
    Removed,
    /// The registry is gone: the server is shutting down.
    #[error("the server is shutting down")]
    Stopped,
}

/// Why a registry cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its data.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system has no threads to give.
    #[error("cannot start the threads that load adapters: {0}")]
    Threads(#[from] std::io::Error),
}

/// Why a name cannot be changed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ChangeError {
    /// There is no such name.
    #[error("there is no adapter called `{0}`")]
    Unknown(String),
    /// It cannot be stored.
    #[error("the change cannot be stored, so it was not made: {0}")]
    Store(Arc<StoreError>),
}

impl From<StoreError> for ChangeError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

/// Why a version cannot be made the active one.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ActivateError {
    /// The name cannot be changed.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// Its files are not there any more.
    #[error(transparent)]
    Files(Arc<AdapterError>),
    /// The active version is the oldest that is known.
    #[error("`{0}` has no version before the active one")]
    NoEarlier(String),
    /// No version has this hash.
    #[error("`{name}` has no version {hash}")]
    NoVersion {
        /// The name.
        name: String,
        /// The hash.
        hash: String,
    },
}

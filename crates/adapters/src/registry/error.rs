//! Errors of the registry.

use std::sync::Arc;
use std::time::Duration;

use multigraft_peft::MergeError;

use super::catalogue::StoreError;
use crate::error::AdapterError;

/// Why an adapter is not available.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LoadError {
    /// The load failed.
    #[error("{0}")]
    Failed(Arc<AdapterError>),
    /// An earlier load failed, and the next attempt is delayed.
    #[error("{error} (tried {attempts} times, next in {} s)", retry_after.as_secs().max(1))]
    BackedOff {
        /// The error of the last attempt.
        error: Box<Self>,
        /// Number of failed attempts.
        attempts: u32,
        /// Time until the next attempt.
        retry_after: Duration,
    },
    /// The adapters cannot be merged.
    #[error("{0}")]
    Merge(Arc<MergeError>),
    /// Adapters in use and pinned adapters leave too little of the adapters' memory.
    #[error(
        "it needs {needed} bytes, but running and pinned adapters hold {held} of the {memory} bytes that adapters may take"
    )]
    NoRoom {
        /// Bytes that the adapter needs.
        needed: usize,
        /// Bytes of adapters that cannot be evicted.
        held: usize,
        /// Limit of all adapters' memory in bytes.
        memory: usize,
    },
    /// The KV cache of running requests and pinned adapters leave too little of the shared memory
    /// budget.
    #[error(
        "it needs {needed} bytes, of which {lacking} are missing: the KV cache of running requests and pinned adapters hold the \
         rest of the {memory} bytes that all may take"
    )]
    NoBudget {
        /// Bytes that the adapter needs.
        needed: usize,
        /// Bytes that are missing.
        lacking: usize,
        /// The memory budget in bytes.
        memory: usize,
    },
    /// Too many requests are waiting for adapters.
    #[error("{waiting} requests are waiting for adapters already, which is the limit")]
    TooManyWait {
        /// Number of waiting requests.
        waiting: usize,
    },
    /// The adapter cannot be stored, so it was not added.
    #[error("it cannot be stored: {0}")]
    Store(Arc<StoreError>),
    /// A bug: the loader panicked. The log has details.
    #[error("an internal error; the server's log says more")]
    Panicked,
    /// The name was removed during the load.
    #[error("it was removed while it was being loaded")]
    Removed,
    /// The registry was dropped because the server is shutting down.
    #[error("the server is shutting down")]
    Stopped,
}

/// Why a registry cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The stored data cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The operating system cannot start a thread.
    #[error("cannot start the threads that load adapters: {0}")]
    Threads(#[from] std::io::Error),
}

/// Why a name cannot be changed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ChangeError {
    /// The name does not exist.
    #[error("there is no adapter called `{0}`")]
    Unknown(String),
    /// The change cannot be stored.
    #[error("the change cannot be stored, so it was not made: {0}")]
    Store(Arc<StoreError>),
}

impl From<StoreError> for ChangeError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

/// Why a version cannot become the active one.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ActivateError {
    /// The name cannot be changed.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The version's files are missing or have changed.
    #[error(transparent)]
    Files(Arc<AdapterError>),
    /// There is no earlier version.
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

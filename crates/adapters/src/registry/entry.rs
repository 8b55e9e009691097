//! The registry's results and arguments.

use std::sync::Arc;

use multigraft_model::{AdapterHash, ReadyAdapter};
use multigraft_peft::AdapterInfo;
use multigraft_sources::Reference;
use multigraft_text::ChatTemplate;
use tokio::sync::oneshot;

use super::{AddedBy, LoadError, Settings};

/// An adapter under a name, ready to be used. The adapter stays in memory as long as an `Entry`
/// exists.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The name.
    pub name: String,
    /// The hash of the version that was active at the lookup.
    pub hash: AdapterHash,
    /// Its source.
    pub at: Reference,
    /// The adapter, shared with all other names for the same files.
    pub packed: Arc<ReadyAdapter>,
    /// Facts about the adapter.
    pub info: Arc<AdapterInfo>,
    /// The chat template of its folder. A merged adapter has none.
    pub template: Option<Arc<ChatTemplate>>,
}

/// The result of a load.
pub type Outcome = Result<Entry, LoadError>;

/// A load in progress.
#[derive(Debug)]
pub struct Waiting(pub(super) oneshot::Receiver<Outcome>);

impl Waiting {
    /// Waits for the result.
    ///
    /// # Errors
    /// If the load fails.
    pub async fn outcome(self) -> Outcome {
        self.0.await.unwrap_or(Err(LoadError::Stopped))
    }

    /// The result, if there is one. Must not be called again after it has returned a result.
    pub fn poll(&mut self) -> Option<Outcome> {
        match self.0.try_recv() {
            Ok(outcome) => Some(outcome),
            Err(oneshot::error::TryRecvError::Empty) => None,
            Err(oneshot::error::TryRecvError::Closed) => Some(Err(LoadError::Stopped)),
        }
    }

    /// Waits for the result on this thread, which must not belong to an asynchronous runtime.
    ///
    /// # Errors
    /// If the load fails.
    pub fn block(self) -> Outcome {
        self.0.blocking_recv().unwrap_or(Err(LoadError::Stopped))
    }
}

/// The result of looking up a name.
#[derive(Debug)]
pub enum Lookup {
    /// The adapter is in memory.
    Ready(Entry),
    /// The adapter is being loaded.
    Loading(Waiting),
    /// The adapter cannot be loaded now.
    Unavailable(LoadError),
    /// The name does not exist.
    Unknown,
}

/// How to add an adapter.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Adding {
    /// Whether the adapter may replace one of the same name.
    pub replace: bool,
    /// Whether to pin the adapter. `None` keeps the current state; a new name is not pinned.
    pub pinned: Option<bool>,
    /// Who adds it.
    pub by: AddedBy,
    /// Settings that take effect together with the adapter.
    pub settings: Settings,
}

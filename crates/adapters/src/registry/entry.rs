//! What the registry hands out, and what it is asked for.

use std::sync::Arc;

use multigraft_model::{AdapterHash, ReadyAdapter};
use multigraft_peft::AdapterInfo;
use multigraft_sources::Reference;
use multigraft_text::ChatTemplate;
use tokio::sync::oneshot;

use super::{AddedBy, LoadError, Settings};

/// An adapter under a name, ready to be used. It stays in memory as long as this does.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The name.
    pub name: String,
    /// What the name stood for when it was asked: the hash of files.
    pub hash: AdapterHash,
    /// Where it came from.
    pub at: Reference,
    /// The adapter, shared with every other name for the same files.
    pub packed: Arc<ReadyAdapter>,
    /// What there is to know about it.
    pub info: Arc<AdapterInfo>,
    /// The chat template of its folder; several that are merged have none.
    pub template: Option<Arc<ChatTemplate>>,
}

/// What became of a load.
pub type Outcome = Result<Entry, LoadError>;

/// An adapter that is being loaded.
#[derive(Debug)]
pub struct Waiting(pub(super) oneshot::Receiver<Outcome>);

impl Waiting {
    /// Waits for it.
    ///
    /// # Errors
    /// If it does not come.
    pub async fn outcome(self) -> Outcome {
        self.0.await.unwrap_or(Err(LoadError::Stopped))
    }

    /// What became of it, if that is known; asked no more afterwards.
    pub fn poll(&mut self) -> Option<Outcome> {
        match self.0.try_recv() {
            Ok(outcome) => Some(outcome),
            Err(oneshot::error::TryRecvError::Empty) => None,
            Err(oneshot::error::TryRecvError::Closed) => Some(Err(LoadError::Stopped)),
        }
    }

    /// Waits for it on this thread, which must not be one of an asynchronous runtime.
    ///
    /// # Errors
    /// If it does not come.
    pub fn block(self) -> Outcome {
        self.0.blocking_recv().unwrap_or(Err(LoadError::Stopped))
    }
}

/// What a name stands for now.
#[derive(Debug)]
pub enum Lookup {
    /// An adapter that is in memory.
    Ready(Entry),
    /// One that is being loaded.
    Loading(Waiting),
    /// One that cannot be had.
    Unavailable(LoadError),
    /// Nothing.
    Unknown,
}

/// How an adapter is added.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Adding {
    /// Whether it may take the place of one that has the name.
    pub replace: bool,
    /// Whether it stays in memory; `None` leaves it as it was, at first not.
    pub pinned: Option<bool>,
    /// Who adds it.
    pub by: AddedBy,
    /// What holds for the name from the moment that requests get it.
    pub settings: Settings,
}

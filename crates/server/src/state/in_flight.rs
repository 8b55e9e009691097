//! The requests in flight and the adapters that they named, so that an adapter can be removed
//! together with its requests.
//!
//! A request registers before it looks its names up. A removal therefore finds every request that
//! found the name, whether the request waits for a load or a merge, is being submitted, or runs in
//! the engine.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use multigraft_engine::{RequestId, SubmitError};
use tokio::sync::Notify;

/// All requests in flight that named an adapter. Clones share the table.
#[derive(Clone, Debug, Default)]
pub(crate) struct InFlight(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    requests: HashMap<u64, Request>,
    next: u64,
}

/// A request in flight.
#[derive(Debug)]
struct Request {
    /// The adapters that the request named.
    names: Vec<String>,
    /// The ids of its choices, once they are submitted to the engine.
    choices: Vec<RequestId>,
    /// The removed adapter among `names`.
    removed: Option<String>,
    removal: Arc<Notify>,
}

/// A request's entry in the table. Dropping it removes the entry.
#[derive(Debug)]
pub(crate) struct Registration {
    in_flight: InFlight,
    number: u64,
    removal: Arc<Notify>,
}

impl InFlight {
    /// Registers a request that has named no adapter yet.
    pub(crate) fn register(&self) -> Registration {
        let removal = Arc::new(Notify::new());
        let mut table = self.lock();
        let number = table.next;
        table.next += 1;
        let entry = Request {
            names: Vec::new(),
            choices: Vec::new(),
            removed: None,
            removal: Arc::clone(&removal),
        };
        table.requests.insert(number, entry);
        Registration {
            in_flight: self.clone(),
            number,
            removal,
        }
    }

    /// Notifies the requests that named `name` of its removal. Returns their ids in the engine,
    /// which the caller cancels.
    pub(crate) fn remove(&self, name: &str) -> HashSet<RequestId> {
        let mut table = self.lock();
        let named = |entry: &&mut Request| entry.names.iter().any(|named| named == name);
        let mut choices = HashSet::new();
        for entry in table.requests.values_mut().filter(named) {
            entry.removed = Some(name.to_owned());
            entry.removal.notify_one();
            choices.extend(&entry.choices);
        }
        choices
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // A poisoned lock is fine: nothing panics between two changes that belong together.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registration {
    /// Records that the request is about to look `name` up.
    pub(crate) fn names(&self, name: &str) {
        if let Some(entry) = self.in_flight.lock().requests.get_mut(&self.number) {
            entry.names.push(name.to_owned());
        }
    }

    /// Waits until an adapter that the request named is removed, and returns its name.
    pub(crate) async fn removed(&self) -> String {
        loop {
            self.removal.notified().await;
            if let Some(name) = self.is_removed() {
                return name;
            }
        }
    }

    fn is_removed(&self) -> Option<String> {
        let table = self.in_flight.lock();
        table.requests.get(&self.number)?.removed.clone()
    }

    /// Submits choices to the engine with `submit`. If an adapter that the request named was
    /// removed, its name is the outer error.
    pub(crate) fn submit(
        &self,
        submit: impl FnOnce(&mut Vec<RequestId>) -> Result<(), SubmitError>,
    ) -> Result<Result<(), SubmitError>, String> {
        let mut table = self.in_flight.lock();
        match table.requests.get_mut(&self.number) {
            Some(Request {
                removed: Some(name), ..
            }) => Err(name.clone()),
            // The lock is held during `submit`, so that a removal either finds all choices or is
            // noticed here.
            Some(entry) => Ok(submit(&mut entry.choices)),
            None => Ok(submit(&mut Vec::new())),
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.in_flight.lock().requests.remove(&self.number);
    }
}

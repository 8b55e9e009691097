//! The requests under way and the adapters that they named, so that an adapter can be removed with
//! its requests.
//!
//! A request has its [`Registration`] before it looks up what its names stand for, so one that found a
//! name is found by whoever removes that name, wherever it is by then: waiting for a load or a
//! merge, on its way to the engine, or in it.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use multigraft_engine::{RequestId, SubmitError};
use tokio::sync::Notify;

/// All requests under way that named an adapter. Clones are handles to the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct InFlight(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    requests: HashMap<u64, Request>,
    next: u64,
}

/// A request.
#[derive(Debug)]
struct Request {
    /// What it named.
    names: Vec<String>,
    /// Its choices, once the engine has them.
    choices: Vec<RequestId>,
    /// The name that was removed.
    removed: Option<String>,
    removal: Arc<Notify>,
}

/// A request's entry, which goes with it.
#[derive(Debug)]
pub(crate) struct Registration {
    in_flight: InFlight,
    number: u64,
    removal: Arc<Notify>,
}

impl InFlight {
    /// A request that names nothing yet.
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

    /// Tells the requests that named `name` that it was removed. Returns what the engine has of
    /// them.
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
        // Nothing panics between two changes that belong together.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registration {
    /// The request is about to look `name` up.
    pub(crate) fn names(&self, name: &str) {
        if let Some(entry) = self.in_flight.lock().requests.get_mut(&self.number) {
            entry.names.push(name.to_owned());
        }
    }

    /// Resolves when an adapter that the request named is removed, to its name.
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

    /// Hands choices to the engine by `submit`, unless an adapter that the request named was
    /// removed: then that name is the outer error.
    pub(crate) fn submit(
        &self,
        submit: impl FnOnce(&mut Vec<RequestId>) -> Result<(), SubmitError>,
    ) -> Result<Result<(), SubmitError>, String> {
        let mut table = self.in_flight.lock();
        match table.requests.get_mut(&self.number) {
            Some(Request {
                removed: Some(name), ..
            }) => Err(name.clone()),
            // Locked all the while, so that a removal finds all of them or is found.
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

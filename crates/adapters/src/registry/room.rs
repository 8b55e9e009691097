//! Room for adapters in memory, and for keys and values where both have one budget.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use multigraft_model::{MemoryBudget, Want};

use super::memory::{Dropping, Full};
use super::{Inner, LoadError};

/// How often a load that waits for memory looks whether there is some.
const LOOK: Duration = Duration::from_millis(5);

/// Starts the thread that drops idle adapters when sequences lack memory. It ends with the budget.
pub(super) fn start(registry: &Arc<Inner>) -> std::io::Result<()> {
    let (wanted, inbox) = mpsc::channel();
    let budget = &registry.options.budget;
    if budget.total() == usize::MAX {
        return Ok(());
    }
    budget.on_adapters_wanted(move || wanted.send(()).is_ok());
    let registry = Arc::downgrade(registry);
    let builder = thread::Builder::new().name("room".to_owned());
    builder.spawn(move || {
        while inbox.recv().is_ok() {
            // Sequences ask in every step until they have what they lack.
            while inbox.try_recv().is_ok() {}
            let Some(registry) = registry.upgrade() else {
                return;
            };
            let mut state = registry.lock();
            let pinned = state.pinned();
            let dropped = state.memory.make_room(&pinned);
            drop(state);
            if !dropped.is_empty() {
                tracing::debug!(adapters = dropped.len(), "dropped for running requests");
                registry.changed();
            }
        }
    })?;
    Ok(())
}

impl Inner {
    /// Waits until there is memory, and has whoever was idle for longest make room: adapters, or
    /// what keys and values are kept for requests that may begin alike.
    pub(super) fn make_room(&self, needed: usize) -> Result<Room<'_>, LoadError> {
        let deadline = Instant::now() + self.options.room_timeout;
        let most = self.most();
        let mut dropping = Dropping::Nothing;
        // Sequences take nothing of the budget while something is wanted of it.
        let _wanted = Wanted(&self.options.budget);
        loop {
            let mut dropped = Vec::new();
            let full = {
                let mut state = self.lock();
                let pinned = state.pinned();
                let memory = &mut state.memory;
                match memory.reserve(needed, most, &pinned, dropping, &mut dropped) {
                    Ok(()) => {
                        return Ok(Room {
                            registry: self,
                            promised: needed,
                        });
                    }
                    Err(full) => full,
                }
            };
            drop(dropped);
            if needed > most || Instant::now() >= deadline {
                return Err(match full {
                    Full::Adapters { held } => LoadError::NoRoom {
                        needed,
                        held,
                        memory: most,
                    },
                    Full::KeysAndValues { lacking, .. } => LoadError::NoBudget {
                        needed,
                        lacking,
                        memory: self.options.budget.total(),
                    },
                });
            }
            match full {
                Full::Adapters { .. } => thread::sleep(LOOK),
                Full::KeysAndValues { lacking, idle_since } => {
                    // Those that are older than the adapter that would go; if none would, or they
                    // were asked already, any.
                    let unused_since = idle_since.filter(|_| dropping == Dropping::Nothing);
                    let want = Want {
                        bytes: lacking,
                        unused_since,
                    };
                    self.options.budget.ask_kv(want, deadline);
                    if dropping == Dropping::Idle {
                        thread::sleep(LOOK);
                    }
                    dropping = Dropping::Idle;
                }
            }
        }
    }
}

/// Ends what is wanted of the budget.
struct Wanted<'a>(&'a MemoryBudget);

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        self.0.want_no_more();
    }
}

/// Memory that a load was promised, given back if the load fails.
pub(super) struct Room<'a> {
    registry: &'a Inner,
    promised: usize,
}

impl Room<'_> {
    /// Leaves it to the caller to give it back.
    pub(super) fn keep(mut self) -> usize {
        std::mem::take(&mut self.promised)
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        if self.promised > 0 {
            self.registry.lock().memory.unreserve(self.promised);
        }
    }
}

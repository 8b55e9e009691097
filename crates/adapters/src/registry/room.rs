//! Reserves memory for adapters, and frees adapters' memory for the KV cache if both share a
//! budget.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use multigraft_model::{MemoryBudget, Want};

use super::memory::{Dropping, Full};
use super::{Inner, LoadError};

/// Polling interval of a load that waits for memory.
const LOOK: Duration = Duration::from_millis(5);

/// Starts the thread that evicts idle adapters when sequences need memory. The thread ends with the
/// budget.
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
            // Sequences ask again in every step until they have the memory.
            while inbox.try_recv().is_ok() {}
            let Some(registry) = registry.upgrade() else {
                return;
            };
            let mut state = registry.lock();
            let pinned = state.pinned();
            let dropped = state.memory.make_room(&pinned);
            drop(state);
            if !dropped.is_empty() {
                tracing::debug!(
                    adapters = dropped.len(),
                    "evicted idle adapters to free memory for the KV cache"
                );
                registry.changed();
            }
        }
    })?;
    Ok(())
}

impl Inner {
    /// Reserves memory. Waits until enough is free, and evicts what has been idle for longest:
    /// adapters, or blocks of the prefix cache.
    pub(super) fn make_room(&self, needed: usize) -> Result<Room<'_>, LoadError> {
        let deadline = Instant::now() + self.options.room_timeout;
        let most = self.most();
        let mut dropping = Dropping::Nothing;
        // While a request for memory is open, sequences take nothing from the budget.
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
                    // First the blocks that have been idle for longer than the next adapter to
                    // evict; if there is no such adapter, or this was tried before, any idle
                    // blocks.
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

/// Closes a request for memory when dropped.
struct Wanted<'a>(&'a MemoryBudget);

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        self.0.want_no_more();
    }
}

/// Memory reserved for a load. Released when dropped.
pub(super) struct Room<'a> {
    registry: &'a Inner,
    promised: usize,
}

impl Room<'_> {
    /// Passes the reservation on to the caller, who must release it.
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

//! The adapters in memory, and the eviction of the least recently used ones.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Instant;

use multigraft_model::{AdapterHash, MemoryBudget, ReadyAdapter};
use multigraft_peft::AdapterInfo;
use multigraft_sources::Reference;
use multigraft_text::ChatTemplate;

use super::Entry;

/// Resident adapters by the hash of their files.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// The budget that adapters share with the KV cache.
    budget: Arc<MemoryBudget>,
    adapters: HashMap<AdapterHash, Resident>,
    /// Bytes of all adapters in `adapters`.
    bytes: usize,
    /// Bytes that are reserved for loads in progress.
    reserved: usize,
    /// Evictions since the start of the server.
    evictions: u64,
    /// Adapters that were removed while in use, with their bytes.
    removed_in_use: Vec<(Weak<ReadyAdapter>, usize)>,
}

/// The parts of a resident adapter, shared with its users.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) packed: Arc<ReadyAdapter>,
    pub(super) info: Arc<AdapterInfo>,
    pub(super) template: Option<Arc<ChatTemplate>>,
}

impl Held {
    /// Size in memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.packed.bytes() + self.template.as_ref().map_or(0, |template| template.bytes())
    }

    /// An entry for this adapter under a name.
    pub(super) fn entry(self, name: String, hash: AdapterHash, at: Reference) -> Entry {
        let Self {
            packed,
            info,
            template,
        } = self;
        Entry {
            name,
            hash,
            at,
            packed,
            info,
            template,
        }
    }
}

/// A resident adapter.
#[derive(Debug)]
pub(super) struct Resident {
    pub(super) held: Held,
    bytes: usize,
    /// The parts of a merged adapter; empty for an adapter that was read from files.
    parts: Vec<AdapterHash>,
    /// Time of its last use.
    used: Instant,
}

/// Evicted adapters. Freeing them takes long, so the caller drops them after it has released the
/// lock.
pub(super) type Dropped = Vec<Arc<ReadyAdapter>>;

/// Why memory cannot be reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// Adapters that cannot be evicted take too much of the adapters' memory.
    Adapters {
        /// Their size in bytes.
        held: usize,
    },
    /// The KV cache has the memory.
    KeysAndValues {
        /// Missing bytes.
        lacking: usize,
        /// Last use of the idle adapter that would be evicted next.
        idle_since: Option<Instant>,
    },
}

/// What may be evicted to make room in the shared budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dropping {
    /// Nothing: blocks of the KV cache may have been idle for longer.
    Nothing,
    /// Idle adapters.
    Idle,
}

impl Memory {
    /// No adapters yet, within `budget`.
    pub(super) fn with_budget(budget: Arc<MemoryBudget>) -> Self {
        Self {
            budget,
            ..Self::default()
        }
    }

    /// A resident adapter, with its time of use updated.
    pub(super) fn touch(&mut self, hash: AdapterHash) -> Option<&Resident> {
        let resident = self.adapters.get_mut(&hash)?;
        resident.used = Instant::now();
        Some(resident)
    }

    /// A resident adapter, without updating its time of use.
    pub(super) fn get(&self, hash: AdapterHash) -> Option<&Resident> {
        self.adapters.get(&hash)
    }

    /// Inserts an adapter, or keeps the one with the same hash. Returns the resident one.
    pub(super) fn insert(&mut self, hash: AdapterHash, held: Held, parts: Vec<AdapterHash>) -> Held {
        // The same adapter may have been removed a moment ago while its user was about to insert it
        // again.
        let same = Arc::as_ptr(&held.packed);
        self.removed_in_use
            .retain(|(removed, _)| removed.as_ptr() != same);
        let bytes = held.bytes();
        let used = Instant::now();
        let total = &mut self.bytes;
        let resident = self.adapters.entry(hash).or_insert_with(|| {
            *total += bytes;
            Resident {
                held,
                bytes,
                parts,
                used,
            }
        });
        let inserted = resident.held.clone();
        self.report();
        inserted
    }

    /// Reports the adapters' memory to the budget.
    pub(super) fn report(&self) {
        self.budget.set_adapters(self.taken());
    }

    /// Bytes of all adapters and of loads in progress.
    fn taken(&self) -> usize {
        self.bytes() + self.reserved
    }

    /// Idle adapters with their last use, least recently used first.
    fn idle(&self, pinned: &[AdapterHash]) -> Vec<(Instant, AdapterHash)> {
        let idle = self.adapters.iter().filter(|(hash, resident)| {
            Arc::strong_count(&resident.held.packed) == 1 && !pinned.contains(hash)
        });
        let mut idle: Vec<_> = idle.map(|(hash, resident)| (resident.used, *hash)).collect();
        idle.sort_unstable();
        idle
    }

    fn drop(&mut self, hash: AdapterHash) -> Option<Arc<ReadyAdapter>> {
        let resident = self.adapters.remove(&hash)?;
        self.bytes -= resident.bytes;
        Some(resident.held.packed)
    }

    /// Evicts idle merged adapters, least recently used first, until at most `most` merged ones
    /// remain. Requests create merged adapters, so there may be many even without a memory limit.
    #[must_use]
    pub(super) fn bound_merged(&mut self, most: usize) -> Dropped {
        let merged = self
            .adapters
            .iter()
            .filter(|(_, resident)| !resident.parts.is_empty());
        let excess = merged.clone().count().saturating_sub(most);
        let idle = merged.filter(|(_, resident)| Arc::strong_count(&resident.held.packed) == 1);
        let mut idle: Vec<_> = idle.map(|(hash, resident)| (resident.used, *hash)).collect();
        idle.sort_unstable();
        let dropped = idle.into_iter().take(excess);
        let dropped: Dropped = dropped.filter_map(|(_, hash)| self.drop(hash)).collect();
        self.evictions += dropped.len() as u64;
        self.report();
        dropped
    }

    /// Number of evictions.
    pub(super) fn evictions(&self) -> u64 {
        self.evictions
    }

    /// Removes all adapters that `keep` rejects. A merged adapter is kept if all its parts are.
    #[must_use]
    pub(super) fn retain(&mut self, keep: impl Fn(&AdapterHash) -> bool) -> Dropped {
        self.removed_in_use
            .retain(|(adapter, _)| adapter.strong_count() > 0);
        let gone = self
            .adapters
            .iter()
            .filter(|(hash, resident)| match resident.parts.is_empty() {
                true => !keep(hash),
                false => !resident.parts.iter().all(&keep),
            });
        let gone: Vec<AdapterHash> = gone.map(|(hash, _)| *hash).collect();
        let dropped: Dropped = gone.into_iter().filter_map(|hash| self.drop(hash)).collect();
        let used = dropped.iter().filter(|adapter| Arc::strong_count(adapter) > 1);
        self.removed_in_use
            .extend(used.map(|adapter| (Arc::downgrade(adapter), adapter.bytes())));
        self.report();
        dropped
    }

    /// Bytes of all adapters, including removed ones that are still in use.
    pub(super) fn bytes(&self) -> usize {
        let removed = self
            .removed_in_use
            .iter()
            .filter(|(adapter, _)| adapter.strong_count() > 0);
        self.bytes + removed.map(|(_, bytes)| bytes).sum::<usize>()
    }

    /// Reserves `needed` bytes, within the limit of `all` bytes and within the shared budget.
    /// Evicts idle adapters that are not `pinned` into `dropped`, least recently used first; an
    /// adapter with another holder is not idle. `dropping` says what may be evicted if the shared
    /// budget is exhausted.
    pub(super) fn reserve(
        &mut self,
        needed: usize,
        all: usize,
        pinned: &[AdapterHash],
        dropping: Dropping,
        dropped: &mut Dropped,
    ) -> Result<(), Full> {
        let idle = self.idle(pinned);
        let idle_bytes: usize = idle.iter().map(|(_, hash)| self.adapters[hash].bytes).sum();
        let held = self.taken() - idle_bytes;
        if held.saturating_add(needed) > all {
            return Err(Full::Adapters { held });
        }
        let mut idle = idle.into_iter().peekable();
        loop {
            let taken = self.taken();
            let beyond = taken.saturating_add(needed) > all;
            let full = match beyond {
                true => None,
                false => match self.budget.take_for_adapters(taken, needed) {
                    Ok(()) => break,
                    Err(lacking) => Some(Full::KeysAndValues {
                        lacking,
                        idle_since: idle.peek().map(|&(used, _)| used),
                    }),
                },
            };
            match (full, idle.peek()) {
                (Some(full), None) => return Err(full),
                (Some(full), Some(_)) if dropping == Dropping::Nothing => return Err(full),
                (None, None) => return Err(Full::Adapters { held }),
                (_, Some(&(_, hash))) => {
                    self.evictions += 1;
                    dropped.extend(self.drop(hash));
                    idle.next();
                }
            }
        }
        self.reserved += needed;
        Ok(())
    }

    /// Evicts idle adapters that are not pinned until sequences have the memory that they need.
    #[must_use]
    pub(super) fn make_room(&mut self, pinned: &[AdapterHash]) -> Dropped {
        let mut dropped = Vec::new();
        self.report();
        for (_, hash) in self.idle(pinned) {
            if self.budget.wanted_of_adapters() == 0 {
                break;
            }
            self.evictions += 1;
            dropped.extend(self.drop(hash));
            self.report();
        }
        dropped
    }

    /// Releases a reservation after its load has ended.
    pub(super) fn unreserve(&mut self, promised: usize) {
        self.reserved -= promised;
        self.report();
    }
}

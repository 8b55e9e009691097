//! The adapters in memory, and which of them make room for others.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Instant;

use multigraft_model::{AdapterHash, MemoryBudget, ReadyAdapter};
use multigraft_peft::AdapterInfo;
use multigraft_sources::Reference;
use multigraft_text::ChatTemplate;

use super::Entry;

/// Adapters by the hash of their files.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Where keys and values take from too.
    budget: Arc<MemoryBudget>,
    adapters: HashMap<AdapterHash, Resident>,
    /// Of all adapters together.
    bytes: usize,
    /// What loads under way were promised.
    reserved: usize,
    /// How many were dropped for room since the start.
    evictions: u64,
    /// Adapters that were let go while somebody used them, and their bytes.
    leaving: Vec<(Weak<ReadyAdapter>, usize)>,
}

/// What is in memory of an adapter, shared with whoever uses it.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) packed: Arc<ReadyAdapter>,
    pub(super) info: Arc<AdapterInfo>,
    pub(super) template: Option<Arc<ChatTemplate>>,
}

impl Held {
    /// What it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        self.packed.bytes() + self.template.as_ref().map_or(0, |template| template.bytes())
    }

    /// The same under a name.
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

/// An adapter in memory.
#[derive(Debug)]
pub(super) struct Resident {
    pub(super) held: Held,
    bytes: usize,
    /// What it was merged from; nothing if it is of files.
    parts: Vec<AdapterHash>,
    /// When it was used last.
    used: Instant,
}

/// Adapters that were dropped for room. They take long to free, which is for whoever has locked
/// nothing.
pub(super) type Dropped = Vec<Arc<ReadyAdapter>>;

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// Adapters that cannot be dropped take too much of what adapters may take.
    Adapters {
        /// In bytes.
        held: usize,
    },
    /// Keys and values have it.
    KeysAndValues {
        /// What lacks, in bytes.
        lacking: usize,
        /// When the idle adapter was used that would be dropped next.
        idle_since: Option<Instant>,
    },
}

/// What may be dropped to make room in the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dropping {
    /// Nothing, for keys and values may be idle for longer.
    Nothing,
    /// Idle adapters.
    Idle,
}

impl Memory {
    /// Nothing yet, in a budget.
    pub(super) fn within(budget: Arc<MemoryBudget>) -> Self {
        Self {
            budget,
            ..Self::default()
        }
    }

    /// An adapter, which counts as used.
    pub(super) fn using(&mut self, hash: AdapterHash) -> Option<&Resident> {
        let resident = self.adapters.get_mut(&hash)?;
        resident.used = Instant::now();
        Some(resident)
    }

    /// An adapter, just looked at.
    pub(super) fn get(&self, hash: AdapterHash) -> Option<&Resident> {
        self.adapters.get(&hash)
    }

    /// Takes an adapter in; if it is there already, that one stays. Returns what is there.
    pub(super) fn insert(&mut self, hash: AdapterHash, held: Held, parts: Vec<AdapterHash>) -> Held {
        // It may have been let go a moment ago, and used by whoever brings it again.
        let same = Arc::as_ptr(&held.packed);
        self.leaving.retain(|(leaving, _)| leaving.as_ptr() != same);
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
        self.tell();
        inserted
    }

    /// Tells the budget what adapters take.
    pub(super) fn tell(&self) {
        self.budget.set_adapters(self.taken());
    }

    /// Of all adapters together, and of loads under way.
    fn taken(&self) -> usize {
        self.bytes() + self.reserved
    }

    /// Adapters that nobody uses, those first that were not used for longest, and when that was.
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

    /// Drops idle merged adapters, those first that were not used for longest, until there are
    /// `most`. Requests make them, so there may be many even where nothing else bounds the memory.
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
        self.tell();
        dropped
    }

    /// How many adapters were dropped for room.
    pub(super) fn evictions(&self) -> u64 {
        self.evictions
    }

    /// Lets all others go. A merged adapter is kept if its parts are.
    #[must_use]
    pub(super) fn retain(&mut self, keep: impl Fn(&AdapterHash) -> bool) -> Dropped {
        self.leaving.retain(|(adapter, _)| adapter.strong_count() > 0);
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
        self.leaving
            .extend(used.map(|adapter| (Arc::downgrade(adapter), adapter.bytes())));
        self.tell();
        dropped
    }

    /// Of all adapters together, those included that were let go and are still used.
    pub(super) fn bytes(&self) -> usize {
        let leaving = self
            .leaving
            .iter()
            .filter(|(adapter, _)| adapter.strong_count() > 0);
        self.bytes + leaving.map(|(_, bytes)| bytes).sum::<usize>()
    }

    /// Promises `needed` of the `all` bytes that adapters may take and the budget has. Idle
    /// adapters that are not `pinned` are dropped for it into `dropped`, those first that were not
    /// used for longest; one that anybody else holds is not idle. What the budget lacks is made
    /// room for as `dropping` says.
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

    /// Drops idle adapters that are not pinned until sequences have the memory that they lack.
    #[must_use]
    pub(super) fn make_room(&mut self, pinned: &[AdapterHash]) -> Dropped {
        let mut dropped = Vec::new();
        self.tell();
        for (_, hash) in self.idle(pinned) {
            if self.budget.wanted_of_adapters() == 0 {
                break;
            }
            self.evictions += 1;
            dropped.extend(self.drop(hash));
            self.tell();
        }
        dropped
    }

    /// Takes back a promise: the load has ended.
    pub(super) fn unreserve(&mut self, promised: usize) {
        self.reserved -= promised;
        self.tell();
    }
}

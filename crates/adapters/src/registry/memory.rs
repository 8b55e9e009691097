//! The adapters in memory, and which of them make room for others.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use multigraft_model::{AdapterHash, PackedAdapter};

use crate::info::AdapterInfo;

/// Adapters by the hash of their files.
#[derive(Debug, Default)]
pub(super) struct Memory {
    adapters: HashMap<AdapterHash, Resident>,
    /// Of all adapters together.
    bytes: usize,
    /// What loads under way were promised.
    reserved: usize,
    /// Counts uses.
    clock: u64,
    /// Adapters that were let go while somebody used them, and their bytes.
    leaving: Vec<(Weak<PackedAdapter>, usize)>,
}

/// An adapter in memory.
#[derive(Debug)]
pub(super) struct Resident {
    pub(super) packed: Arc<PackedAdapter>,
    pub(super) info: Arc<AdapterInfo>,
    bytes: usize,
    /// What it was merged from; nothing if it is of files.
    parts: Vec<AdapterHash>,
    /// When it was used last, by the clock.
    used: u64,
}

/// There is not enough room, and no idle adapter left that could make it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full {
    /// What cannot be dropped, in bytes.
    pub(super) held: usize,
}

impl Memory {
    /// An adapter, which counts as used.
    pub(super) fn using(&mut self, hash: AdapterHash) -> Option<&Resident> {
        let resident = self.adapters.get_mut(&hash)?;
        self.clock += 1;
        resident.used = self.clock;
        Some(resident)
    }

    /// An adapter, just looked at.
    pub(super) fn get(&self, hash: AdapterHash) -> Option<&Resident> {
        self.adapters.get(&hash)
    }

    /// Takes an adapter in; if it is there already, that one stays. Returns what is there.
    pub(super) fn insert(
        &mut self,
        hash: AdapterHash,
        packed: Arc<PackedAdapter>,
        info: Arc<AdapterInfo>,
        parts: Vec<AdapterHash>,
    ) -> (Arc<PackedAdapter>, Arc<AdapterInfo>) {
        let bytes = packed.bytes();
        self.clock += 1;
        let used = self.clock;
        let total = &mut self.bytes;
        let resident = self.adapters.entry(hash).or_insert_with(|| {
            *total += bytes;
            Resident {
                packed,
                info,
                bytes,
                parts,
                used,
            }
        });
        (Arc::clone(&resident.packed), Arc::clone(&resident.info))
    }

    /// Drops idle merged adapters, those first that were not used for longest, until there are `most`. Requests make them, so
    /// there may be many even where nothing else bounds the memory.
    pub(super) fn bound_merged(&mut self, most: usize) {
        let merged = self
            .adapters
            .iter()
            .filter(|(_, resident)| !resident.parts.is_empty());
        let excess = merged.clone().count().saturating_sub(most);
        let idle = merged.filter(|(_, resident)| Arc::strong_count(&resident.packed) == 1);
        let mut idle: Vec<(u64, AdapterHash)> = idle.map(|(hash, resident)| (resident.used, *hash)).collect();
        idle.sort_unstable();
        for (_, hash) in idle.into_iter().take(excess) {
            if let Some(resident) = self.adapters.remove(&hash) {
                self.bytes -= resident.bytes;
            }
        }
    }

    /// Lets all others go. A merged adapter is kept if its parts are.
    pub(super) fn retain(&mut self, keep: impl Fn(&AdapterHash) -> bool) {
        let (bytes, leaving) = (&mut self.bytes, &mut self.leaving);
        leaving.retain(|(adapter, _)| adapter.strong_count() > 0);
        self.adapters.retain(|hash, resident| {
            let keep = match resident.parts.is_empty() {
                true => keep(hash),
                false => resident.parts.iter().all(&keep),
            };
            if !keep {
                *bytes -= resident.bytes;
                if Arc::strong_count(&resident.packed) > 1 {
                    leaving.push((Arc::downgrade(&resident.packed), resident.bytes));
                }
            }
            keep
        });
    }

    /// Of all adapters together, those included that were let go and are still used.
    pub(super) fn bytes(&self) -> usize {
        let leaving = self
            .leaving
            .iter()
            .filter(|(adapter, _)| adapter.strong_count() > 0);
        self.bytes + leaving.map(|(_, bytes)| bytes).sum::<usize>()
    }

    /// Promises `needed` of the `all` bytes that adapters may take. Idle adapters that are not `pinned` are dropped for it,
    /// those first that were not used for longest; one that anybody else holds is not idle.
    pub(super) fn reserve(&mut self, needed: usize, all: usize, pinned: &[AdapterHash]) -> Result<(), Full> {
        let mut idle: Vec<(u64, AdapterHash, usize)> = self
            .adapters
            .iter()
            .filter(|(hash, resident)| Arc::strong_count(&resident.packed) == 1 && !pinned.contains(hash))
            .map(|(hash, resident)| (resident.used, *hash, resident.bytes))
            .collect();
        let idle_bytes: usize = idle.iter().map(|(_, _, bytes)| bytes).sum();
        let taken = self.bytes() + self.reserved;
        let held = taken - idle_bytes;
        if held.saturating_add(needed) > all {
            return Err(Full { held });
        }
        idle.sort_unstable();
        let mut freed = 0;
        for (_, hash, bytes) in idle {
            if taken - freed + needed <= all {
                break;
            }
            self.adapters.remove(&hash);
            freed += bytes;
        }
        self.bytes -= freed;
        self.reserved += needed;
        Ok(())
    }

    /// Takes back a promise: the load has ended.
    pub(super) fn unreserve(&mut self, promised: usize) {
        self.reserved -= promised;
    }
}

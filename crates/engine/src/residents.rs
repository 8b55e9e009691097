//! The resident adapters and their slots in the backend.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use multigraft_model::{AdapterHash, Backend, BackendError, ReadyAdapter, Slot};

/// The resident adapters. An adapter is admitted when a sequence first needs it, and released when
/// no sequence does.
#[derive(Debug, Default)]
pub(crate) struct Residents {
    slots: BTreeMap<AdapterHash, Slot>,
}

impl Residents {
    /// The slot of an adapter, which is made resident first if it is not yet.
    pub(crate) fn slot(
        &mut self,
        backend: &mut dyn Backend,
        adapter: &Arc<ReadyAdapter>,
    ) -> Result<Slot, BackendError> {
        if let Some(&slot) = self.slots.get(&adapter.hash()) {
            return Ok(slot);
        }
        let slot = backend.admit(adapter)?;
        self.slots.insert(adapter.hash(), slot);
        Ok(slot)
    }

    /// Releases every adapter that is not in `needed`.
    pub(crate) fn keep(&mut self, backend: &mut dyn Backend, needed: &BTreeSet<AdapterHash>) {
        self.slots.retain(|hash, slot| {
            let keep = needed.contains(hash);
            if !keep {
                backend.release(*slot);
            }
            keep
        });
    }

    /// Hashes of the resident adapters, in ascending order.
    pub(crate) fn hashes(&self) -> impl Iterator<Item = AdapterHash> {
        self.slots.keys().copied()
    }
}

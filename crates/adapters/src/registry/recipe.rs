//! The parts and the method of a merge.

use multigraft_model::AdapterHash;
use multigraft_peft::MergeMethod;

use super::entry::Entry;
use super::state::Version;

/// A merged adapter to be made.
#[derive(Debug)]
pub(super) struct Recipe {
    pub(super) hash: AdapterHash,
    pub(super) name: String,
    pub(super) method: MergeMethod,
    pub(super) parts: Vec<Part>,
}

#[derive(Debug)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) hash: AdapterHash,
    pub(super) version: Version,
    pub(super) weight: f64,
}

impl Recipe {
    pub(super) fn hashes(&self) -> Vec<AdapterHash> {
        self.parts.iter().map(|part| part.hash).collect()
    }
}

/// A part of a merge. It need not stay in memory, because its files are read again.
#[derive(Clone, Debug)]
pub struct MergePart {
    pub(super) name: String,
    pub(super) hash: AdapterHash,
    /// A change that cannot be merged, if the adapter has one.
    pub(super) beside: Option<&'static str>,
}

impl From<&Entry> for MergePart {
    fn from(entry: &Entry) -> Self {
        let invoked = !entry.packed.invocation().is_empty();
        let beside = entry.packed.unscalable();
        Self {
            name: entry.name.clone(),
            hash: entry.hash,
            beside: beside.or(invoked.then_some("invocation tokens (aLoRA)")),
        }
    }
}

//! What a merged adapter is made of.

use multigraft_model::AdapterHash;
use multigraft_peft::MergeMethod;

use super::entry::Entry;
use super::state::Version;

/// What a merged adapter is made of.
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

/// An adapter that is to be merged with others. It need not stay in memory for that: its files are
/// read again.
#[derive(Clone, Debug)]
pub struct MergePart {
    pub(super) name: String,
    pub(super) hash: AdapterHash,
    /// What it is beside updates, which cannot be merged.
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

//! From chunks to the step that the backend computes.

use multigraft_model::{Run, Slot, Wanted};

use crate::scheduler::Chunk;
use crate::sequence::Sequence;

/// A chunk with all that its run needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Planned {
    /// Its sequence's place among those that run.
    pub(crate) index: usize,
    pub(crate) rows: usize,
    /// The adapter's slot; `None` is the base.
    pub(crate) slot: Option<Slot>,
    /// What the adapter's updates are multiplied by.
    pub(crate) scale: f32,
    pub(crate) wanted: Wanted,
}

impl Planned {
    pub(crate) fn new(chunk: Chunk, sequence: &Sequence, slot: Option<Slot>) -> Self {
        Self {
            index: chunk.index,
            rows: chunk.rows,
            slot,
            scale: sequence.applied().map_or(1.0, |used| used.scale),
            wanted: sequence.wanted(chunk.rows),
        }
    }

    fn run<'a>(&self, sequence: &'a Sequence) -> Run<'a> {
        let start = sequence.computed();
        Run {
            tokens: &sequence.tokens()[start..start + self.rows],
            start,
            blocks: sequence.blocks(),
            adapter: self.slot,
            scale: self.scale,
            wanted: self.wanted,
        }
    }
}

/// Makes the chunks of each adapter and scale neighbours: one segment each, the base first.
pub(crate) fn order(planned: &mut [Planned]) {
    planned.sort_by_key(|planned| (planned.slot, planned.scale.to_bits()));
}

/// The runs of the step, in the order of `planned`.
pub(crate) fn runs<'a>(planned: &[Planned], running: &'a [Sequence]) -> Vec<Run<'a>> {
    planned
        .iter()
        .map(|planned| planned.run(&running[planned.index]))
        .collect()
}

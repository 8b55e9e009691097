//! Extents: neighbouring blocks that take memory from the budget together, and give it back
//! together.

use std::sync::Arc;
use std::time::Instant;

use multigraft_model::{BlockId, Limits, MemoryBudget};

use crate::clock::Clock;

/// What the prefix cache leaves of the budget where it could take it all: one of so many parts.
const SPARE: usize = 16;

/// Which blocks have memory.
#[derive(Debug)]
pub(super) struct Extents {
    /// Blocks of one; the last may have fewer.
    size: usize,
    /// Memory of one.
    bytes: usize,
    /// All blocks there could be.
    blocks: usize,
    extents: Vec<Extent>,
    budget: Arc<MemoryBudget>,
    clock: Clock,
}

#[derive(Clone, Debug)]
struct Extent {
    has_memory: bool,
    /// Blocks of it that tables hold.
    held: usize,
    /// When the last of them was let go.
    used: Option<Instant>,
}

impl Extents {
    /// Those of a backend, of which the budget's floor has memory from the beginning; all of them
    /// if the budget has no bounds.
    pub(super) fn new(limits: &Limits, budget: Arc<MemoryBudget>, clock: Clock) -> Self {
        let size = limits.extent.max(1);
        let bytes = size * limits.block_bytes;
        let count = limits.blocks.div_ceil(size);
        let of_floor = budget.floor().checked_div(bytes).unwrap_or(count);
        let theirs = match budget.total() {
            usize::MAX => count,
            _ => of_floor,
        };
        let extent = |index| Extent {
            has_memory: index < theirs,
            held: 0,
            used: None,
        };
        Self {
            size,
            bytes,
            blocks: limits.blocks,
            extents: (0..count).map(extent).collect(),
            budget,
            clock,
        }
    }

    fn of(&mut self, block: BlockId) -> &mut Extent {
        &mut self.extents[block.0 as usize / self.size]
    }

    /// A table holds a block that none held.
    pub(super) fn hold(&mut self, block: BlockId) {
        self.of(block).held += 1;
    }

    /// No table holds a block any more.
    pub(super) fn let_go(&mut self, block: BlockId) {
        let now = self.clock.now();
        let extent = self.of(block);
        extent.held -= 1;
        extent.used = Some(now);
    }

    /// The blocks of an extent.
    pub(super) fn members(&self, index: usize) -> impl Iterator<Item = BlockId> + use<> {
        let first = index * self.size;
        // Ids are 32 bits wide, as the pool saw to.
        (first..(first + self.size).min(self.blocks)).map(|id| BlockId(id as u32))
    }

    /// All blocks that have memory.
    pub(super) fn with_memory(&self) -> impl Iterator<Item = BlockId> {
        let extents = self.extents.iter().enumerate();
        let theirs = extents.filter(|(_, extent)| extent.has_memory);
        theirs.flat_map(|(index, _)| self.members(index))
    }

    /// Takes memory for some more blocks, if the budget has any and there are such.
    pub(super) fn take(&mut self) -> Option<impl Iterator<Item = BlockId> + use<>> {
        let index = self.extents.iter().position(|extent| !extent.has_memory)?;
        if !self.budget.take_for_kv(self.bytes) {
            return None;
        }
        self.extents[index].has_memory = true;
        Some(self.members(index))
    }

    /// The same, as long as enough is left for a load not to have to ask for it.
    pub(super) fn take_spare(&mut self) -> Option<impl Iterator<Item = BlockId> + use<>> {
        let left = self.budget.total() / SPARE;
        let is_spare = self.budget.free_for_kv() >= self.bytes.saturating_add(left);
        if is_spare { self.take() } else { None }
    }

    /// Asks for memory for `blocks` more, which adapters have.
    pub(super) fn ask(&self, blocks: usize) {
        let without = self.extents.iter().filter(|extent| !extent.has_memory).count();
        let lacking = blocks.div_ceil(self.size).min(without);
        if lacking > 0 {
            self.budget.ask_adapters(lacking * self.bytes);
        }
    }

    /// Extents that nobody holds anything of and nobody did since `unused_since`, those first that
    /// were not used for longest: as many as make `bytes`, but for the floor.
    pub(super) fn unused(&self, bytes: usize, unused_since: Option<Instant>) -> Vec<usize> {
        let with_memory = self.extents.iter().filter(|extent| extent.has_memory).count();
        let floor = self.budget.floor().div_ceil(self.bytes.max(1));
        let most = with_memory.saturating_sub(floor);
        let extents = self.extents.iter().enumerate();
        let unused = extents.filter(|(_, extent)| {
            let older = |since| extent.used.is_none_or(|used| used < since);
            extent.has_memory && extent.held == 0 && unused_since.is_none_or(older)
        });
        let mut unused: Vec<(Option<Instant>, usize)> =
            unused.map(|(index, extent)| (extent.used, index)).collect();
        // Of those that were never used, those that are used last.
        unused.sort_unstable_by_key(|&(used, index)| (used, std::cmp::Reverse(index)));
        let wanted = bytes.div_ceil(self.bytes.max(1)).min(most);
        unused.into_iter().take(wanted).map(|(_, index)| index).collect()
    }

    /// Gives the memory of an extent back, whose blocks are all free; says which they are.
    pub(super) fn give_back(&mut self, index: usize) -> (BlockId, usize) {
        let extent = &mut self.extents[index];
        debug_assert!(extent.has_memory && extent.held == 0, "extent {index} is in use");
        extent.has_memory = false;
        extent.used = None;
        self.budget.return_from_kv(self.bytes);
        let first = index * self.size;
        (BlockId(first as u32), self.size.min(self.blocks - first))
    }

    pub(super) fn budget(&self) -> &MemoryBudget {
        &self.budget
    }
}

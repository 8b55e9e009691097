//! Extents: neighbouring blocks whose memory is taken from the budget, and returned to it,
//! together.

use std::sync::Arc;
use std::time::Instant;

use multigraft_model::{BlockId, Limits, MemoryBudget};

use crate::clock::Clock;

/// The prefix cache leaves `1 / SPARE` of the budget free.
const SPARE: usize = 16;

/// Which blocks have memory.
#[derive(Debug)]
pub(super) struct Extents {
    /// Blocks of an extent; the last extent may have fewer.
    size: usize,
    /// Memory of an extent, in bytes.
    bytes: usize,
    /// Number of blocks of all extents.
    blocks: usize,
    extents: Vec<Extent>,
    budget: Arc<MemoryBudget>,
    clock: Clock,
}

#[derive(Clone, Debug)]
struct Extent {
    has_memory: bool,
    /// Number of its blocks that a block table holds.
    held: usize,
    /// When a block of it was last released.
    used: Option<Instant>,
}

impl Extents {
    /// The extents of a backend. The budget's floor has memory from the beginning, or all extents
    /// if the budget has no bound.
    pub(super) fn new(limits: &Limits, budget: Arc<MemoryBudget>, clock: Clock) -> Self {
        let size = limits.extent.max(1);
        let bytes = size * limits.block_bytes;
        let count = limits.blocks.div_ceil(size);
        let floor = budget.floor().checked_div(bytes).unwrap_or(count);
        let with_memory = match budget.total() {
            usize::MAX => count,
            _ => floor,
        };
        let extent = |index| Extent {
            has_memory: index < with_memory,
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

    fn extent(&mut self, block: BlockId) -> &mut Extent {
        &mut self.extents[block.0 as usize / self.size]
    }

    /// Counts a block that no table held and one holds now.
    pub(super) fn hold(&mut self, block: BlockId) {
        self.extent(block).held += 1;
    }

    /// Counts a block that no table holds any more.
    pub(super) fn release(&mut self, block: BlockId) {
        let now = self.clock.now();
        let extent = self.extent(block);
        extent.held -= 1;
        extent.used = Some(now);
    }

    /// The blocks of an extent.
    pub(super) fn members(&self, index: usize) -> impl Iterator<Item = BlockId> + use<> {
        let first = index * self.size;
        // The pool has at most as many blocks as ids of 32 bits.
        (first..(first + self.size).min(self.blocks)).map(|id| BlockId(id as u32))
    }

    /// All blocks that have memory.
    pub(super) fn with_memory(&self) -> impl Iterator<Item = BlockId> {
        let extents = self.extents.iter().enumerate();
        let with_memory = extents.filter(|(_, extent)| extent.has_memory);
        with_memory.flat_map(|(index, _)| self.members(index))
    }

    /// Takes memory for another extent, if there is one without memory and the budget has enough.
    /// Returns its blocks.
    pub(super) fn take(&mut self) -> Option<impl Iterator<Item = BlockId> + use<>> {
        let index = self.extents.iter().position(|extent| !extent.has_memory)?;
        if !self.budget.take_for_kv(self.bytes) {
            return None;
        }
        self.extents[index].has_memory = true;
        Some(self.members(index))
    }

    /// The same, but only while the budget keeps enough free memory that a load need not ask for
    /// it.
    pub(super) fn take_spare(&mut self) -> Option<impl Iterator<Item = BlockId> + use<>> {
        let left = self.budget.total() / SPARE;
        let is_spare = self.budget.free_for_kv() >= self.bytes.saturating_add(left);
        if is_spare { self.take() } else { None }
    }

    /// Asks adapters for the memory of `blocks` more blocks.
    pub(super) fn request(&self, blocks: usize) {
        let without = self.extents.iter().filter(|extent| !extent.has_memory).count();
        let lacking = blocks.div_ceil(self.size).min(without);
        if lacking > 0 {
            self.budget.ask_adapters(lacking * self.bytes);
        }
    }

    /// Extents whose blocks are all unheld (since `unused_since`, if given), least recently used
    /// first: at most enough for `bytes`, and never below the floor.
    pub(super) fn idle(&self, bytes: usize, unused_since: Option<Instant>) -> Vec<usize> {
        let with_memory = self.extents.iter().filter(|extent| extent.has_memory).count();
        let floor = self.budget.floor().div_ceil(self.bytes.max(1));
        let most = with_memory.saturating_sub(floor);
        let extents = self.extents.iter().enumerate();
        let idle = extents.filter(|(_, extent)| {
            let older = |since| extent.used.is_none_or(|used| used < since);
            extent.has_memory && extent.held == 0 && unused_since.is_none_or(older)
        });
        let mut idle: Vec<(Option<Instant>, usize)> =
            idle.map(|(index, extent)| (extent.used, index)).collect();
        // Of extents that were never used, the highest first: the pool takes the lowest blocks
        // first.
        idle.sort_unstable_by_key(|&(used, index)| (used, std::cmp::Reverse(index)));
        let wanted = bytes.div_ceil(self.bytes.max(1)).min(most);
        idle.into_iter().take(wanted).map(|(_, index)| index).collect()
    }

    /// Returns the memory of an extent, whose blocks are all free, to the budget. Returns its first
    /// block and how many blocks it has.
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

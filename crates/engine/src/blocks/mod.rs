//! KV blocks and the sequences that hold them. A [`BlockTable`] is an allocation; dropping it frees
//! its blocks.
//!
//! Several sequences with a common prefix may hold the same full block. A block that no sequence
//! holds any more stays in the prefix cache, and counts as free: it is evicted when a block is
//! needed and no other is left.
//!
//! Blocks get memory by [`extents`], from a budget that adapters take from too.

mod extents;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use multigraft_model::{BlockId, Limits, MemoryBudget};

use crate::clock::Clock;
use crate::prefix::{Lineage, PrefixCache};
use extents::Extents;

/// The backend's KV blocks. Clones are handles to the same pool, which lives on the engine's
/// thread.
#[derive(Clone, Debug)]
pub(crate) struct BlockPool {
    shared: Rc<RefCell<Blocks>>,
    total: usize,
    /// Positions that a block holds.
    block_tokens: usize,
    /// Whether sequences share prefixes.
    sharing: bool,
}

/// The state of all blocks: each has no memory, or is free, idle in the prefix cache, or held.
#[derive(Debug)]
struct Blocks {
    /// Blocks with memory and without contents. The lowest are taken first, so that the highest
    /// extents stay free as a whole.
    free: BTreeSet<BlockId>,
    /// How many tables hold each block.
    holders: Vec<u32>,
    cache: PrefixCache,
    extents: Extents,
    /// Number of blocks that tables hold.
    held: usize,
}

impl Blocks {
    /// Ensures that `count` blocks are available, including those that can be evicted from the
    /// cache; takes memory for them if needed. Returns whether it succeeded.
    #[must_use]
    fn secure(&mut self, count: usize) -> bool {
        while self.available() < count {
            let Some(more) = self.extents.take() else {
                self.extents.request(count - self.available());
                return false;
            };
            self.free.extend(more);
        }
        true
    }

    /// Number of blocks that can be taken without more memory.
    fn available(&self) -> usize {
        self.free.len() + self.cache.idle()
    }

    /// Takes a block that no table holds; `None` if all are held. Cached blocks are evicted last.
    fn fresh(&mut self) -> Option<BlockId> {
        if self.free.is_empty()
            && let Some(more) = self.extents.take_spare()
        {
            self.free.extend(more);
        }
        let block = self.free.pop_first().or_else(|| self.cache.evict())?;
        self.holders[block.0 as usize] = 1;
        self.held += 1;
        self.extents.hold(block);
        Some(block)
    }

    fn hold(&mut self, block: BlockId) {
        let holders = &mut self.holders[block.0 as usize];
        *holders += 1;
        if *holders == 1 {
            self.held += 1;
            self.extents.hold(block);
        }
        self.cache.hold(block);
    }

    fn release(&mut self, block: BlockId) {
        let holders = &mut self.holders[block.0 as usize];
        *holders -= 1;
        if *holders > 0 {
            return;
        }
        self.held -= 1;
        self.extents.release(block);
        if !self.cache.release(block) {
            self.free.insert(block);
        }
    }
}

impl BlockPool {
    /// A pool of a backend's blocks, all of them free, with or without a prefix cache. Blocks take
    /// memory from `budget`.
    pub(crate) fn new(limits: &Limits, sharing: bool, budget: Arc<MemoryBudget>, clock: Clock) -> Self {
        // Ids have 32 bits; backends have far fewer blocks.
        let total = limits.blocks.min(u32::MAX as usize);
        let limits = Limits {
            blocks: total,
            ..*limits
        };
        let extents = Extents::new(&limits, budget, clock);
        let blocks = Blocks {
            free: extents.with_memory().collect(),
            holders: vec![0; total],
            cache: PrefixCache::new(limits.block_tokens),
            extents,
            held: 0,
        };
        Self {
            shared: Rc::new(RefCell::new(blocks)),
            total,
            block_tokens: limits.block_tokens,
            sharing,
        }
    }

    pub(crate) fn total(&self) -> usize {
        self.total
    }

    /// Number of blocks that `tokens` positions need.
    pub(crate) fn needed(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.block_tokens)
    }

    /// Number of blocks that tables hold.
    pub(crate) fn used(&self) -> usize {
        self.shared.borrow().held
    }

    /// Number of blocks in the prefix cache that no table holds.
    pub(crate) fn cached(&self) -> usize {
        self.shared.borrow().cache.idle()
    }

    /// Returns memory that an adapter wants to the budget, from extents that no table holds a block
    /// of; their cached blocks are evicted. Calls `forget` with the first block and the number of
    /// blocks of each such extent.
    pub(crate) fn make_room(&self, mut forget: impl FnMut(BlockId, usize)) {
        let blocks = &mut *self.shared.borrow_mut();
        let Some(want) = blocks.extents.budget().wanted_of_kv() else {
            return;
        };
        for index in blocks.extents.idle(want.bytes, want.unused_since) {
            for block in blocks.extents.members(index) {
                if blocks.cache.is_idle(block) {
                    // The blocks that follow a block in the cache may lie in any extent.
                    blocks.free.extend(blocks.cache.evict_path(block));
                }
            }
            for block in blocks.extents.members(index) {
                blocks.free.remove(&block);
            }
            let (first, count) = blocks.extents.give_back(index);
            forget(first, count);
        }
        blocks.extents.budget().answer();
    }

    /// An empty table for a sequence of `lineage`.
    pub(crate) fn table(&self, lineage: impl Into<Lineage>) -> BlockTable {
        BlockTable {
            blocks: Vec::new(),
            cached: 0,
            lineage: lineage.into(),
            pool: self.clone(),
        }
    }
}

/// The blocks of one sequence: position p lives in the block at `p / block_tokens`.
#[derive(Debug)]
pub(crate) struct BlockTable {
    blocks: Vec<BlockId>,
    /// How many of the blocks, from the first on, are in the prefix cache. They are never written
    /// to again, because other tables may hold them too.
    cached: usize,
    lineage: Lineage,
    pool: BlockPool,
}

/// The cached prefix that [`BlockTable::fill`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Prefix {
    /// Number of positions whose keys and values the table's blocks hold already.
    pub(crate) positions: usize,
    /// A copy that would add some more positions.
    pub(crate) copy: Option<BlockCopy>,
}

/// A copy of a block's first positions to another block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockCopy {
    pub(crate) from: BlockId,
    pub(crate) to: BlockId,
    pub(crate) positions: usize,
}

impl BlockTable {
    /// Gives an empty table blocks for all `tokens`. Those of a cached prefix of the first
    /// `reusable` tokens (fewer than all) are shared. Returns `None`, and takes no blocks, if fewer
    /// than `reserve` blocks would remain available.
    ///
    /// A copy in the result has to be made before the next step.
    pub(crate) fn fill(&mut self, tokens: &[u32], reusable: usize, reserve: usize) -> Option<Prefix> {
        let mut blocks = self.pool.shared.borrow_mut();
        let found = if self.pool.sharing {
            blocks.cache.find(self.lineage, &tokens[..reusable])
        } else {
            Default::default()
        };
        // Blocks that some table holds are free of charge; idle ones count as available.
        let held = found.blocks.iter().filter(|&&block| !blocks.cache.is_idle(block));
        let taken = self.pool.needed(tokens.len()) - held.count();
        if !blocks.secure(taken + reserve) {
            return None;
        }
        for &block in &found.blocks {
            blocks.hold(block);
            self.blocks.push(block);
        }
        drop(blocks);
        self.cached = self.blocks.len();
        let grown = self.grow(tokens.len());
        debug_assert!(grown, "there are as many blocks as were counted");
        Some(Prefix {
            positions: self.cached * self.pool.block_tokens,
            copy: found.partial.map(|(from, positions)| BlockCopy {
                from,
                to: self.blocks[self.cached],
                positions,
            }),
        })
    }

    /// Extends the table to hold `tokens` positions in all. Returns `false`, and takes no blocks,
    /// if the pool has too few.
    #[must_use]
    pub(crate) fn grow(&mut self, tokens: usize) -> bool {
        let more = self.pool.needed(tokens).saturating_sub(self.blocks.len());
        let mut blocks = self.pool.shared.borrow_mut();
        if more > 0 && !blocks.secure(more) {
            return false;
        }
        self.blocks.extend((0..more).map_while(|_| blocks.fresh()));
        true
    }

    /// Adds the full blocks of `computed`, the tokens whose keys and values the table holds, to the
    /// prefix cache. A block that the cache already has from another table replaces the table's
    /// own, because their contents are the same to the bit.
    pub(crate) fn share(&mut self, computed: &[u32]) {
        if !self.pool.sharing {
            return;
        }
        let size = self.pool.block_tokens;
        let mut blocks = self.pool.shared.borrow_mut();
        for tokens in computed.chunks_exact(size).skip(self.cached) {
            let before = self.cached.checked_sub(1).map(|before| self.blocks[before]);
            let parent = self.lineage.parent(self.cached, before, size);
            let block = &mut self.blocks[self.cached];
            if let Some(twin) = blocks.cache.insert(parent, tokens, *block) {
                blocks.hold(twin);
                blocks.release(*block);
                *block = twin;
            }
            self.cached += 1;
        }
    }

    /// Releases all blocks.
    pub(crate) fn clear(&mut self) {
        let mut blocks = self.pool.shared.borrow_mut();
        // The last first, so that the cache evicts a block before those that it builds on.
        while let Some(block) = self.blocks.pop() {
            blocks.release(block);
        }
        self.cached = 0;
    }

    pub(crate) fn blocks(&self) -> &[BlockId] {
        &self.blocks
    }
}

impl Drop for BlockTable {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests;

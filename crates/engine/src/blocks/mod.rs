//! KV blocks: who holds which. An allocation is a value; dropping it gives the blocks back.
//!
//! A full block may be held by several sequences that begin alike. What nobody holds any more but
//! the prefix cache knows counts as free: it stays until a block is needed and no other is left.
//!
//! Blocks have memory by [`extents`], which is taken from a budget that adapters take from too.

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
    /// Whether sequences share prefixes at all.
    sharing: bool,
}

/// Every block is without memory, free, idle in the cache, or held.
#[derive(Debug)]
struct Blocks {
    /// Those that hold nothing of use. The first are taken first, so that the last extents are free
    /// as a whole.
    free: BTreeSet<BlockId>,
    /// How many tables hold each.
    holders: Vec<u32>,
    cache: PrefixCache,
    extents: Extents,
    /// Blocks that tables hold.
    held: usize,
}

impl Blocks {
    /// Sees to it that `count` blocks can be had, those that only the cache knows included; takes
    /// memory for them if need be.
    #[must_use]
    fn secure(&mut self, count: usize) -> bool {
        while self.available() < count {
            let Some(more) = self.extents.take() else {
                self.extents.ask(count - self.available());
                return false;
            };
            self.free.extend(more);
        }
        true
    }

    /// Blocks that can be had without more memory.
    fn available(&self) -> usize {
        self.free.len() + self.cache.idle()
    }

    /// A block that nobody else holds; none if all are held. What the cache knows is given up last.
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
        self.cache.wake(block);
    }

    fn release(&mut self, block: BlockId) {
        let holders = &mut self.holders[block.0 as usize];
        *holders -= 1;
        if *holders > 0 {
            return;
        }
        self.held -= 1;
        self.extents.let_go(block);
        if !self.cache.rest(block) {
            self.free.insert(block);
        }
    }
}

impl BlockPool {
    /// The blocks of a backend, with or without a prefix cache. All are free; they take memory from
    /// `budget`.
    pub(crate) fn new(limits: &Limits, sharing: bool, budget: Arc<MemoryBudget>, clock: Clock) -> Self {
        // Ids are 32 bits wide; a backend has far fewer.
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

    /// Blocks that `tokens` positions take.
    pub(crate) fn needed(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.block_tokens)
    }

    /// Blocks that tables hold.
    pub(crate) fn used(&self) -> usize {
        self.shared.borrow().held
    }

    /// Blocks that nobody holds and the cache knows.
    pub(crate) fn cached(&self) -> usize {
        self.shared.borrow().cache.idle()
    }

    /// Gives back memory that an adapter wants and no table needs, cached blocks included, and
    /// calls `forget` for each extent of it with its first block and how many they are.
    pub(crate) fn make_room(&self, mut forget: impl FnMut(BlockId, usize)) {
        let blocks = &mut *self.shared.borrow_mut();
        let Some(want) = blocks.extents.budget().wanted_of_kv() else {
            return;
        };
        for index in blocks.extents.unused(want.bytes, want.unused_since) {
            for block in blocks.extents.members(index) {
                if blocks.cache.is_idle(block) {
                    // What follows a block lies anywhere.
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

    /// A table without blocks, for a sequence of `lineage`.
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
    /// How many of them, from the first, are in the cache. Never written to again, since others may
    /// hold them too.
    cached: usize,
    lineage: Lineage,
    pool: BlockPool,
}

/// What a table has when it was filled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Prefix {
    /// Positions that its blocks hold already.
    pub(crate) positions: usize,
    /// What would hold some more after them.
    pub(crate) copy: Option<BlockCopy>,
}

/// Copying a block's first positions makes them those of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockCopy {
    pub(crate) from: BlockId,
    pub(crate) to: BlockId,
    pub(crate) positions: usize,
}

impl BlockTable {
    /// Gives an empty table blocks for all `tokens`: of the first `reusable` of them, which are
    /// fewer, those that the cache has. If `reserve` blocks would not be left then, takes none and
    /// says `None`.
    ///
    /// What is to be copied has to be before the next step.
    pub(crate) fn fill(&mut self, tokens: &[u32], reusable: usize, reserve: usize) -> Option<Prefix> {
        let mut blocks = self.pool.shared.borrow_mut();
        let found = if self.pool.sharing {
            blocks.cache.find(self.lineage, &tokens[..reusable])
        } else {
            Default::default()
        };
        // Those that somebody holds cost nothing; the idle ones are among those that are available.
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

    /// Makes room for `tokens` positions in all. If the pool has too few blocks, takes none and
    /// says `false`.
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

    /// Lets others share the full blocks of `computed`, the tokens whose keys and values the table
    /// holds. A block that the cache has from somebody else takes the place of its own: their
    /// contents are the same to the bit.
    pub(crate) fn share(&mut self, computed: &[u32]) {
        if !self.pool.sharing {
            return;
        }
        let size = self.pool.block_tokens;
        let mut blocks = self.pool.shared.borrow_mut();
        for tokens in computed.chunks_exact(size).skip(self.cached) {
            let before = self.cached.checked_sub(1).map(|before| self.blocks[before]);
            let parent = self.lineage.parent(self.cached, before, size);
            let own = &mut self.blocks[self.cached];
            if let Some(twin) = blocks.cache.insert(parent, tokens, *own) {
                blocks.hold(twin);
                blocks.release(*own);
                *own = twin;
            }
            self.cached += 1;
        }
    }

    /// Gives all blocks back.
    pub(crate) fn clear(&mut self) {
        let mut blocks = self.pool.shared.borrow_mut();
        // The last first: in the cache, those that others build on are to stay longest.
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

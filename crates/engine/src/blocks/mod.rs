//! KV blocks: who holds which. An allocation is a value; dropping it gives the blocks back.
//!
//! A full block may be held by several sequences that begin alike. What nobody holds any more but the prefix cache
//! knows counts as free: it stays until a block is needed and no other is left.

use std::cell::RefCell;
use std::rc::Rc;

use multigraft_model::{BLOCK_TOKENS, BlockId};

use crate::prefix::{Lineage, PrefixCache};

/// The backend's KV blocks. Clones are handles to the same pool, which lives on the engine's thread.
#[derive(Clone, Debug)]
pub(crate) struct BlockPool {
    shared: Rc<RefCell<Blocks>>,
    total: usize,
    /// Whether sequences share prefixes at all.
    sharing: bool,
}

/// Every block is free, idle in the cache, or held.
#[derive(Debug)]
struct Blocks {
    /// Those that hold nothing of use.
    free: Vec<BlockId>,
    /// How many tables hold each.
    holders: Vec<u32>,
    cache: PrefixCache,
}

impl Blocks {
    fn available(&self) -> usize {
        self.free.len() + self.cache.idle()
    }

    /// A block that nobody else holds; none if all are held.
    fn fresh(&mut self) -> Option<BlockId> {
        let block = self.free.pop().or_else(|| self.cache.evict())?;
        self.holders[block.0 as usize] = 1;
        Some(block)
    }

    fn hold(&mut self, block: BlockId) {
        self.holders[block.0 as usize] += 1;
        self.cache.wake(block);
    }

    fn release(&mut self, block: BlockId) {
        let holders = &mut self.holders[block.0 as usize];
        *holders -= 1;
        if *holders == 0 && !self.cache.rest(block) {
            self.free.push(block);
        }
    }
}

impl BlockPool {
    /// `total` free blocks, with or without a prefix cache.
    pub(crate) fn new(total: usize, sharing: bool) -> Self {
        // Ids are 32 bits wide; a backend has far fewer.
        let count = u32::try_from(total).unwrap_or(u32::MAX);
        let blocks = Blocks {
            free: (0..count).rev().map(BlockId).collect(),
            holders: vec![0; count as usize],
            cache: PrefixCache::default(),
        };
        Self {
            shared: Rc::new(RefCell::new(blocks)),
            total: count as usize,
            sharing,
        }
    }

    pub(crate) fn total(&self) -> usize {
        self.total
    }

    /// Blocks that can be had, those that only the cache knows included.
    pub(crate) fn free(&self) -> usize {
        self.shared.borrow().available()
    }

    pub(crate) fn used(&self) -> usize {
        self.total - self.free()
    }

    /// Blocks that nobody holds and the cache knows.
    pub(crate) fn cached(&self) -> usize {
        self.shared.borrow().cache.idle()
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

/// The blocks of one sequence: position p lives in the block at `p / BLOCK_TOKENS`.
#[derive(Debug)]
pub(crate) struct BlockTable {
    blocks: Vec<BlockId>,
    /// How many of them, from the first, are in the cache. Never written to again, since others may hold them too.
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
    /// Blocks that `tokens` positions take.
    pub(crate) fn needed(tokens: usize) -> usize {
        tokens.div_ceil(BLOCK_TOKENS)
    }

    /// Gives an empty table blocks for all `tokens`: of the first `reusable` of them, which are fewer, those that the
    /// cache has. If `reserve` blocks would not be left then, takes none and says `None`.
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
        let taken = Self::needed(tokens.len()) - held.count();
        if taken + reserve > blocks.available() {
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
            positions: self.cached * BLOCK_TOKENS,
            copy: found.partial.map(|(from, positions)| BlockCopy {
                from,
                to: self.blocks[self.cached],
                positions,
            }),
        })
    }

    /// Makes room for `tokens` positions in all. If the pool has too few blocks, takes none and says `false`.
    #[must_use]
    pub(crate) fn grow(&mut self, tokens: usize) -> bool {
        let more = Self::needed(tokens).saturating_sub(self.blocks.len());
        let mut blocks = self.pool.shared.borrow_mut();
        if more > blocks.available() {
            return false;
        }
        self.blocks.extend((0..more).map_while(|_| blocks.fresh()));
        true
    }

    /// Lets others share the full blocks of `computed`, the tokens whose keys and values the table holds. A block that
    /// the cache has from somebody else takes the place of its own: their contents are the same to the bit.
    pub(crate) fn share(&mut self, computed: &[u32]) {
        if !self.pool.sharing {
            return;
        }
        let mut blocks = self.pool.shared.borrow_mut();
        for &tokens in computed.as_chunks::<BLOCK_TOKENS>().0.iter().skip(self.cached) {
            let before = self.cached.checked_sub(1).map(|before| self.blocks[before]);
            let parent = self.lineage.parent(self.cached, before);
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

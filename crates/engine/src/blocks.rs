//! KV blocks: who holds which. An allocation is a value; dropping it gives the blocks back.

use std::cell::RefCell;
use std::rc::Rc;

use multigraft_model::{BLOCK_TOKENS, BlockId};

/// The backend's KV blocks. Clones are handles to the same pool, which lives on the engine's thread.
#[derive(Clone, Debug)]
pub(crate) struct BlockPool {
    free: Rc<RefCell<Vec<BlockId>>>,
    total: usize,
}

impl BlockPool {
    /// `total` free blocks.
    pub(crate) fn new(total: usize) -> Self {
        // Ids are 32 bits wide; a backend has far fewer.
        let count = u32::try_from(total).unwrap_or(u32::MAX);
        Self {
            free: Rc::new(RefCell::new((0..count).rev().map(BlockId).collect())),
            total: count as usize,
        }
    }

    pub(crate) fn total(&self) -> usize {
        self.total
    }

    pub(crate) fn free(&self) -> usize {
        self.free.borrow().len()
    }

    pub(crate) fn used(&self) -> usize {
        self.total - self.free()
    }

    /// A table without blocks.
    pub(crate) fn table(&self) -> BlockTable {
        BlockTable {
            blocks: Vec::new(),
            pool: self.clone(),
        }
    }
}

/// The blocks of one sequence: position p lives in the block at `p / BLOCK_TOKENS`.
#[derive(Debug)]
pub(crate) struct BlockTable {
    blocks: Vec<BlockId>,
    pool: BlockPool,
}

impl BlockTable {
    /// Blocks that `tokens` positions take.
    pub(crate) fn needed(tokens: usize) -> usize {
        tokens.div_ceil(BLOCK_TOKENS)
    }

    /// Makes room for `tokens` positions in all. If the pool has too few blocks, takes none and says `false`.
    #[must_use]
    pub(crate) fn grow(&mut self, tokens: usize) -> bool {
        let more = Self::needed(tokens).saturating_sub(self.blocks.len());
        let mut free = self.pool.free.borrow_mut();
        let Some(rest) = free.len().checked_sub(more) else {
            return false;
        };
        self.blocks.extend(free.drain(rest..).rev());
        true
    }

    /// Gives all blocks back.
    pub(crate) fn clear(&mut self) {
        // Reversed, so that they are handed out again in the order in which they were.
        self.pool.free.borrow_mut().extend(self.blocks.drain(..).rev());
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
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_table_covers_its_tokens_and_no_more() {
        let pool = BlockPool::new(4);
        let mut table = pool.table();
        for (tokens, blocks) in [(0, 0), (1, 1), (BLOCK_TOKENS, 1), (BLOCK_TOKENS + 1, 2), (1, 2)] {
            assert!(table.grow(tokens));
            assert_eq!(table.blocks().len(), blocks, "{tokens} tokens");
        }
    }

    #[test]
    fn growing_beyond_the_pool_takes_nothing() {
        let pool = BlockPool::new(2);
        let mut table = pool.table();
        assert!(!table.grow(2 * BLOCK_TOKENS + 1));
        assert_eq!((pool.free(), table.blocks().len()), (2, 0));
        assert!(table.grow(2 * BLOCK_TOKENS));
        drop(table);
        assert_eq!(pool.free(), 2);
    }

    proptest! {
        #[test]
        fn no_block_has_two_owners_and_none_is_lost(
            total in 0_usize..20,
            script in prop::collection::vec((0_usize..5, 0_usize..100), 0..60),
        ) {
            let pool = BlockPool::new(total);
            let mut tables: Vec<_> = (0..5).map(|_| pool.table()).collect();
            for (index, tokens) in script {
                if tokens == 0 {
                    tables[index].clear();
                } else {
                    let before = tables[index].blocks().to_vec();
                    let grown = tables[index].grow(tokens);
                    prop_assert!(tables[index].blocks().starts_with(&before), "blocks in use moved");
                    prop_assert_eq!(grown, tables[index].blocks().len() >= BlockTable::needed(tokens));
                }
                let held: Vec<_> = tables.iter().flat_map(|table| table.blocks().to_vec()).collect();
                let distinct: HashSet<_> = held.iter().copied().collect();
                prop_assert_eq!(distinct.len(), held.len());
                prop_assert_eq!(pool.used(), held.len());
            }
            drop(tables);
            prop_assert_eq!(pool.free(), total);
        }
    }
}

//! Who holds what, over all ways to fill, grow, share and give back.

use crate::prefix::Namespace;
use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;
use crate::tenant::Tenant;

const MINE: Namespace = Namespace {
    adapter: None,
    tenant: None,
};

/// A table that holds `tokens`, which are computed.
fn computed(pool: &BlockPool, tokens: &[u32]) -> BlockTable {
    let mut table = pool.table(MINE);
    table.fill(tokens, tokens.len() - 1, 0).unwrap();
    table.share(tokens);
    table
}

fn tokens(blocks: usize) -> Vec<u32> {
    (0..(blocks * BLOCK_TOKENS) as u32).collect()
}

#[test]
fn a_table_covers_its_tokens_and_no_more() {
    let pool = BlockPool::new(4, true);
    let mut table = pool.table(MINE);
    for (tokens, blocks) in [(0, 0), (1, 1), (BLOCK_TOKENS, 1), (BLOCK_TOKENS + 1, 2), (1, 2)] {
        assert!(table.grow(tokens));
        assert_eq!(table.blocks().len(), blocks, "{tokens} tokens");
    }
}

#[test]
fn growing_beyond_the_pool_takes_nothing() {
    let pool = BlockPool::new(2, true);
    let mut table = pool.table(MINE);
    assert!(!table.grow(2 * BLOCK_TOKENS + 1));
    assert_eq!((pool.free(), table.blocks().len()), (2, 0));
    assert!(table.grow(2 * BLOCK_TOKENS));
    drop(table);
    assert_eq!(
        (pool.free(), pool.cached()),
        (2, 0),
        "what was never shared is not kept"
    );
}

#[test]
fn what_was_computed_is_found_while_held_and_after() {
    let pool = BlockPool::new(8, true);
    let first = computed(&pool, &tokens(3));
    let mut second = pool.table(MINE);
    let prefix = second.fill(&tokens(3), 3 * BLOCK_TOKENS - 1, 0).unwrap();
    assert_eq!(second.blocks()[..2], first.blocks()[..2]);
    assert_eq!(
        prefix,
        Prefix {
            positions: 2 * BLOCK_TOKENS,
            copy: Some(BlockCopy {
                from: first.blocks()[2],
                to: second.blocks()[2],
                positions: BLOCK_TOKENS - 1,
            }),
        }
    );
    assert_eq!(pool.used(), 4);
    // Once the second has computed its last row, its third block is the first's.
    second.share(&tokens(3));
    assert_eq!(second.blocks(), first.blocks());
    assert_eq!(pool.used(), 3);
    drop((first, second));
    assert_eq!((pool.used(), pool.free(), pool.cached()), (0, 8, 3));
    let third = computed(&pool, &tokens(2));
    assert_eq!((pool.used(), pool.free(), pool.cached()), (2, 6, 1));
    drop(third);
}

#[test]
fn without_sharing_nothing_is_kept() {
    let pool = BlockPool::new(8, false);
    let _first = computed(&pool, &tokens(3));
    let mut second = pool.table(MINE);
    assert_eq!(second.fill(&tokens(3), 40, 0), Some(Prefix::default()));
    assert_eq!((pool.used(), pool.cached()), (6, 0));
}

#[test]
fn idle_blocks_are_counted_once_when_they_are_taken_again() {
    let pool = BlockPool::new(4, true);
    drop(computed(&pool, &tokens(3)));
    let (mut table, four) = (pool.table(MINE), tokens(4));
    assert_eq!(
        table.fill(&four, 4 * BLOCK_TOKENS - 1, 1),
        None,
        "none would be left"
    );
    assert_eq!((pool.free(), pool.cached()), (4, 3));
    let prefix = table.fill(&four, 4 * BLOCK_TOKENS - 1, 0).unwrap();
    assert_eq!((prefix.positions, pool.free()), (3 * BLOCK_TOKENS, 0));
}

#[test]
fn a_full_pool_takes_the_least_recently_used_leaf() {
    let pool = BlockPool::new(4, true);
    let other: Vec<u32> = tokens(2).into_iter().rev().collect();
    drop(computed(&pool, &tokens(2)));
    drop(computed(&pool, &other));
    // The first chain is used again.
    drop(computed(&pool, &tokens(2)));
    let hits = |tokens: &[u32]| pool.shared.borrow().cache.find(MINE, tokens).blocks.len();
    let mut newcomer = pool.table(MINE);
    for left in [(2, 1), (2, 0), (1, 0), (0, 0)] {
        assert!(newcomer.grow((newcomer.blocks().len() + 1) * BLOCK_TOKENS));
        assert_eq!((hits(&tokens(2)), hits(&other)), left);
    }
    assert!(!newcomer.grow(5 * BLOCK_TOKENS));
}

/// What a sequence does to its table.
#[derive(Clone, Debug)]
enum Act {
    /// It is admitted with a prompt: so many tokens of a common beginning, then so many of one kind.
    Fill(usize, u32, usize),
    /// It computes all its tokens, and generates so many of one kind.
    Generate(u32, usize),
    Clear,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (0_usize..60, 0_u32..3, 1_usize..40).prop_map(|(common, kind, rest)| Act::Fill(common, kind, rest)),
        (0_u32..3, 1_usize..20).prop_map(|(kind, count)| Act::Generate(kind, count)),
        Just(Act::Clear),
    ]
}

/// Of six sequences, three are one tenant's and three another's.
fn namespace(index: usize) -> Namespace {
    Namespace {
        tenant: (index % 2 == 1).then(|| Tenant::new("another")),
        ..MINE
    }
}

proptest! {
    #[test]
    fn every_block_is_in_one_place_and_holds_what_its_finders_expect(
        total in 0_usize..24,
        sharing in prop::bool::weighted(0.9),
        script in prop::collection::vec((0_usize..6, act()), 0..60),
    ) {
        let pool = BlockPool::new(total, sharing);
        let mut tables: Vec<(BlockTable, Vec<u32>)> =
            (0..6).map(|index| (pool.table(namespace(index)), Vec::new())).collect();
        // What each block was computed for, by whom.
        let mut written: HashMap<BlockId, (Namespace, Vec<u32>)> = HashMap::new();
        for (index, act) in script {
            let owner = namespace(index);
            let (table, tokens) = &mut tables[index];
            let mut from = 0;
            match act {
                Act::Clear => {
                    table.clear();
                    tokens.clear();
                }
                Act::Fill(common, kind, rest) => {
                    table.clear();
                    tokens.clear();
                    let prompt: Vec<u32> =
                        (100..100 + common as u32).chain(std::iter::repeat_n(kind, rest)).collect();
                    if let Some(prefix) = table.fill(&prompt, prompt.len() - 1, 0) {
                        prop_assert!(prefix.positions < prompt.len());
                        let reused = prefix.positions / BLOCK_TOKENS;
                        for (n, block) in table.blocks()[..reused].iter().enumerate() {
                            let held = (owner, prompt[..(n + 1) * BLOCK_TOKENS].to_vec());
                            prop_assert_eq!(&written[block], &held, "somebody else's block");
                        }
                        if let Some(copy) = prefix.copy {
                            prop_assert_eq!(copy.to, table.blocks()[reused]);
                            let (whose, content) = &written[&copy.from];
                            let end = prefix.positions + copy.positions;
                            prop_assert_eq!(*whose, owner);
                            prop_assert_eq!(&content[..end], &prompt[..end]);
                            prop_assert!(end < prompt.len());
                        }
                        from = reused;
                        *tokens = prompt;
                    }
                }
                Act::Generate(kind, count) => {
                    let before = table.blocks().to_vec();
                    from = tokens.len() / BLOCK_TOKENS;
                    let more = tokens.len() + count;
                    let grown = !tokens.is_empty() && table.grow(more);
                    prop_assert!(table.blocks().starts_with(&before), "blocks in use moved");
                    if grown {
                        tokens.extend(std::iter::repeat_n(kind, count));
                    }
                }
            }
            for (n, &block) in table.blocks().iter().enumerate().skip(from) {
                let end = tokens.len().min((n + 1) * BLOCK_TOKENS);
                written.insert(block, (owner, tokens[..end].to_vec()));
            }
            table.share(tokens);

            // What a table holds is what was computed for it or for its like.
            for (index, (table, tokens)) in tables.iter().enumerate() {
                prop_assert_eq!(table.blocks().len(), BlockTable::needed(tokens.len()));
                for (n, block) in table.blocks().iter().enumerate() {
                    let end = tokens.len().min((n + 1) * BLOCK_TOKENS);
                    prop_assert_eq!(&written[block], &(namespace(index), tokens[..end].to_vec()));
                }
            }
            // Free, idle and held are all there is, and each is counted.
            let held: Vec<BlockId> = tables.iter().flat_map(|(table, _)| table.blocks().to_vec()).collect();
            let distinct: HashSet<BlockId> = held.iter().copied().collect();
            let blocks = pool.shared.borrow();
            let (free, idle): (HashSet<_>, HashSet<_>) = (
                blocks.free.iter().copied().collect(),
                (0..total as u32).map(BlockId).filter(|&block| blocks.cache.is_idle(block)).collect(),
            );
            prop_assert_eq!(free.len(), blocks.free.len());
            prop_assert_eq!(idle.len(), blocks.cache.idle());
            prop_assert!(free.is_disjoint(&idle) && free.is_disjoint(&distinct) && idle.is_disjoint(&distinct));
            prop_assert_eq!(free.len() + idle.len() + distinct.len(), total);
            for block in (0..total as u32).map(BlockId) {
                let holders = held.iter().filter(|&&other| other == block).count();
                prop_assert_eq!(blocks.holders[block.0 as usize] as usize, holders);
            }
            if !sharing {
                prop_assert_eq!(distinct.len(), held.len());
            }
        }
        drop(tables);
        prop_assert_eq!((pool.free(), pool.used()), (total, 0));
        prop_assert!(pool.shared.borrow().holders.iter().all(|&holders| holders == 0));
        // Everything can be had again.
        let mut all = pool.table(MINE);
        prop_assert!(all.grow(total * BLOCK_TOKENS));
        prop_assert_eq!(pool.cached(), 0);
    }
}

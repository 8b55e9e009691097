//! Block tables and pool, over all sequences of filling, growing, sharing and releasing.

use crate::prefix::Namespace;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use multigraft_model::Want;
use proptest::prelude::*;

use super::*;
use crate::clock::manual::ManualClock;
use crate::tenant::Tenant;
use crate::testing::BLOCK_TOKENS;

const MINE: Namespace = Namespace {
    adapter: None,
    tenant: None,
};

/// `blocks` of a byte each, in extents of two.
fn limits(blocks: usize) -> Limits {
    Limits {
        vocab: 1,
        hidden: 5,
        blocks,
        block_tokens: BLOCK_TOKENS,
        block_bytes: 1,
        extent: 2,
        context: 1,
        step_rows: 1,
    }
}

fn pool(blocks: usize, sharing: bool) -> BlockPool {
    BlockPool::new(&limits(blocks), sharing, Arc::default(), Clock::default())
}

/// Number of blocks that are available without more memory.
fn free(pool: &BlockPool) -> usize {
    pool.shared.borrow().available()
}

/// A table of `tokens`, all computed.
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
    let pool = self::pool(4, true);
    let mut table = pool.table(MINE);
    for (tokens, blocks) in [(0, 0), (1, 1), (BLOCK_TOKENS, 1), (BLOCK_TOKENS + 1, 2), (1, 2)] {
        assert!(table.grow(tokens));
        assert_eq!(table.blocks().len(), blocks, "{tokens} tokens");
    }
}

#[test]
fn growing_beyond_the_pool_takes_nothing() {
    let pool = self::pool(2, true);
    let mut table = pool.table(MINE);
    assert!(!table.grow(2 * BLOCK_TOKENS + 1));
    assert_eq!((free(&pool), table.blocks().len()), (2, 0));
    assert!(table.grow(2 * BLOCK_TOKENS));
    drop(table);
    assert_eq!(
        (free(&pool), pool.cached()),
        (2, 0),
        "what was never shared is not kept"
    );
}

#[test]
fn computed_blocks_are_found_while_held_and_afterwards() {
    let pool = self::pool(8, true);
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
    // Once the second table has computed its last row, its third block is the first table's.
    second.share(&tokens(3));
    assert_eq!(second.blocks(), first.blocks());
    assert_eq!(pool.used(), 3);
    drop((first, second));
    assert_eq!((pool.used(), free(&pool), pool.cached()), (0, 8, 3));
    let third = computed(&pool, &tokens(2));
    assert_eq!((pool.used(), free(&pool), pool.cached()), (2, 6, 1));
    drop(third);
}

#[test]
fn without_sharing_nothing_is_kept() {
    let pool = self::pool(8, false);
    let _first = computed(&pool, &tokens(3));
    let mut second = pool.table(MINE);
    assert_eq!(second.fill(&tokens(3), 40, 0), Some(Prefix::default()));
    assert_eq!((pool.used(), pool.cached()), (6, 0));
}

#[test]
fn idle_blocks_are_counted_once_when_they_are_taken_again() {
    let pool = self::pool(4, true);
    drop(computed(&pool, &tokens(3)));
    let (mut table, four) = (pool.table(MINE), tokens(4));
    assert_eq!(
        table.fill(&four, 4 * BLOCK_TOKENS - 1, 1),
        None,
        "none would be left"
    );
    assert_eq!((free(&pool), pool.cached()), (4, 3));
    let prefix = table.fill(&four, 4 * BLOCK_TOKENS - 1, 0).unwrap();
    assert_eq!((prefix.positions, free(&pool)), (3 * BLOCK_TOKENS, 0));
}

#[test]
fn a_full_pool_takes_the_least_recently_used_leaf() {
    let pool = self::pool(4, true);
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

fn want(bytes: usize, unused_since: Option<Instant>) -> Want {
    Want { bytes, unused_since }
}

/// The extents that the pool gives back for a load that wants so much.
fn given(pool: &BlockPool, budget: &MemoryBudget, want: Want) -> Vec<(u32, usize)> {
    let mut given = Vec::new();
    // The deadline has passed, so this does not wait.
    budget.ask_kv(want, Instant::now());
    pool.make_room(|first, count| given.push((first.0, count)));
    assert_eq!(budget.wanted_of_kv(), None, "it was answered");
    budget.want_no_more();
    given
}

/// A budget of `total` blocks with a floor of 4, and a pool of 32 blocks that takes from it.
fn budgeted(total: usize) -> (Arc<MemoryBudget>, BlockPool) {
    let (budget, pool, _) = budgeted_at(total);
    (budget, pool)
}

/// The same, with the pool's clock.
fn budgeted_at(total: usize) -> (Arc<MemoryBudget>, BlockPool, ManualClock) {
    let clock = ManualClock::new();
    let budget = Arc::new(MemoryBudget::new(total, 4));
    budget.on_kv_wanted(|| true);
    let pool = BlockPool::new(&limits(32), true, Arc::clone(&budget), clock.clock());
    (budget, pool, clock)
}

#[test]
fn the_kv_cache_takes_only_what_adapters_leave() {
    let (budget, pool) = budgeted(16);
    assert_eq!((budget.taken(), free(&pool)), ((4, 0), 4), "the floor is there");
    budget.take_for_adapters(0, 7).unwrap();
    let mut table = pool.table(MINE);
    assert!(table.grow(8 * BLOCK_TOKENS));
    assert_eq!(budget.taken(), (8, 7));
    assert!(
        !table.grow(9 * BLOCK_TOKENS),
        "another extent of two would be one too many"
    );
    assert_eq!(table.blocks().len(), 8, "nothing was taken");
    assert_eq!(
        budget.wanted_of_adapters(),
        1,
        "and adapters are asked for what lacks"
    );
    budget.set_adapters(0);
    assert!(table.grow(12 * BLOCK_TOKENS));
    assert_eq!(budget.taken(), (12, 0));
}

#[test]
fn held_blocks_and_the_floor_make_no_room_and_the_least_recently_used_extent_goes_first() {
    let (budget, pool, clock) = budgeted_at(100);
    let first = computed(&pool, &tokens(5));
    let others: Vec<u32> = tokens(5).into_iter().map(|token| token + 1000).collect();
    let second = computed(&pool, &others);
    assert_eq!(budget.taken(), (10, 0));
    let ids = |table: &BlockTable| table.blocks().iter().map(|block| block.0).collect::<Vec<_>>();
    assert_eq!(
        (ids(&first), ids(&second)),
        (vec![0, 1, 2, 3, 4], vec![5, 6, 7, 8, 9])
    );
    assert_eq!(given(&pool, &budget, want(100, None)), [], "all are held");
    drop(first);
    clock.advance(Duration::from_secs(1));
    let between = clock.now();
    clock.advance(Duration::from_secs(1));
    drop(second);
    // Blocks 4 and 5 are one extent, which both tables used.
    assert_eq!(given(&pool, &budget, want(100, Some(between))), [(2, 2), (0, 2)]);
    assert_eq!(budget.taken(), (6, 0));
    assert_eq!(
        pool.shared.borrow().cache.find(MINE, &tokens(5)).blocks,
        [],
        "its beginning is gone"
    );
    assert_eq!(pool.shared.borrow().cache.find(MINE, &others).blocks.len(), 5);
    assert_eq!(
        given(&pool, &budget, want(1, None)),
        [(8, 2)],
        "no more than wanted, and whole extents"
    );
    assert_eq!(given(&pool, &budget, want(100, None)), [], "the floor stays");
    assert_eq!((pool.used(), pool.cached(), free(&pool)), (0, 3, 4));
    // The returned memory is taken again.
    let mut table = pool.table(MINE);
    assert!(table.grow(32 * BLOCK_TOKENS));
    assert_eq!(budget.taken(), (32, 0));
}

#[test]
fn the_prefix_cache_leaves_a_sixteenth_for_loads_and_sequences_take_it() {
    let (budget, pool) = budgeted(64);
    let pool_of_64 = BlockPool::new(&limits(64), true, Arc::clone(&budget), Clock::default());
    drop(pool);
    for start in 0..20 {
        let tokens: Vec<u32> = (0..4 * BLOCK_TOKENS as u32).map(|n| n + 1000 * start).collect();
        drop(computed(&pool_of_64, &tokens));
    }
    assert_eq!(budget.taken().0, 60);
    assert!(pool_of_64.table(MINE).grow(64 * BLOCK_TOKENS));
    assert_eq!(budget.taken().0, 64);
}

/// An operation of a sequence on its table.
#[derive(Clone, Debug)]
enum Act {
    /// It is admitted with a prompt: so many tokens of a common prefix, then so many equal tokens.
    Fill(usize, u32, usize),
    /// It computes all its tokens, and generates so many equal tokens.
    Generate(u32, usize),
    Clear,
    /// An adapter takes so much memory, for which the KV cache makes room, or one is dropped.
    Adapter(usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (0_usize..60, 0_u32..3, 1_usize..40).prop_map(|(common, kind, rest)| Act::Fill(common, kind, rest)),
        (0_u32..3, 1_usize..20).prop_map(|(kind, count)| Act::Generate(kind, count)),
        Just(Act::Clear),
        (0_usize..12).prop_map(Act::Adapter),
    ]
}

/// Of six sequences, three belong to one tenant and three to another.
fn namespace(index: usize) -> Namespace {
    Namespace {
        tenant: (index % 2 == 1).then(|| Tenant::new("another")),
        ..MINE
    }
}

proptest! {
    #[test]
    fn every_block_is_in_one_state_and_holds_what_its_tables_expect(
        total in 0_usize..24,
        bounded in any::<bool>(),
        sharing in prop::bool::weighted(0.9),
        script in prop::collection::vec((0_usize..6, act()), 0..60),
    ) {
        let budget = match bounded {
            true => MemoryBudget::new(total + 2, total.min(4) / 2 * 2),
            false => MemoryBudget::default(),
        };
        let budget = Arc::new(budget);
        budget.on_kv_wanted(|| true);
        let pool = BlockPool::new(&limits(total), sharing, Arc::clone(&budget), Clock::default());
        let mut tables: Vec<(BlockTable, Vec<u32>)> =
            (0..6).map(|index| (pool.table(namespace(index)), Vec::new())).collect();
        // The tokens and the tenant that each block was computed for.
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
                Act::Adapter(bytes) => {
                    let had = budget.taken().1;
                    if let Err(bytes) = budget.take_for_adapters(had, bytes) {
                        given(&pool, &budget, want(bytes, None));
                        budget.set_adapters(0);
                    }
                    from = tokens.len().div_ceil(BLOCK_TOKENS);
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

            // Each block of a table was computed for the table's tokens and tenant.
            for (index, (table, tokens)) in tables.iter().enumerate() {
                prop_assert_eq!(table.blocks().len(), pool.needed(tokens.len()));
                for (n, block) in table.blocks().iter().enumerate() {
                    let end = tokens.len().min((n + 1) * BLOCK_TOKENS);
                    prop_assert_eq!(&written[block], &(namespace(index), tokens[..end].to_vec()));
                }
            }
            // Blocks with memory are free, idle or held, and each is counted once.
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
            let with_memory: HashSet<_> = blocks.extents.with_memory().collect();
            prop_assert!(free.iter().chain(&idle).chain(&distinct).all(|block| with_memory.contains(block)));
            prop_assert_eq!(free.len() + idle.len() + distinct.len(), with_memory.len());
            prop_assert_eq!(blocks.held, distinct.len());
            if bounded {
                let (kv, adapters) = budget.taken();
                prop_assert!(kv + adapters <= budget.total());
                prop_assert!(kv + 1 >= with_memory.len(), "{} blocks in {} bytes", with_memory.len(), kv);
            }
            for block in (0..total as u32).map(BlockId) {
                let holders = held.iter().filter(|&&other| other == block).count();
                prop_assert_eq!(blocks.holders[block.0 as usize] as usize, holders);
            }
            if !sharing {
                prop_assert_eq!(distinct.len(), held.len());
            }
        }
        drop(tables);
        budget.set_adapters(0);
        prop_assert_eq!(pool.used(), 0);
        prop_assert!(pool.shared.borrow().holders.iter().all(|&holders| holders == 0));
        // All blocks are available again.
        let mut all = pool.table(MINE);
        prop_assert!(all.grow(total * BLOCK_TOKENS));
        prop_assert_eq!(pool.cached(), 0);
    }
}

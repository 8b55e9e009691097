//! The prefix cache: which blocks hold the keys and values of which prefixes of sequences.
//!
//! The cache is a tree. A path from a root spells the tokens of a sequence, one full block per
//! node. The contents of a block depend on all tokens before it and on the adapter, so each node
//! belongs to one path. Each [`Namespace`] has a root; an activated adapter's path branches off the
//! base's path where its invocation begins ([`Lineage`]). Tokens and namespaces are compared
//! themselves, never by a hash, so a hit cannot be another tenant's block.
//!
//! A table that holds a block holds all blocks above it, and releases the lower ones first
//! (`crate::blocks`). Therefore idle blocks can be evicted in the order of their release: the least
//! recently used leaf first, and a parent only after its children.

use std::collections::{BTreeMap, HashMap};

use multigraft_model::{AdapterHash, BlockId};
use smallvec::SmallVec;

use crate::request::AdapterUse;
use crate::tenant::Tenant;

/// The fewest positions that are worth copying. A copy moves the keys and values of a block in all
/// layers; computing fewer positions in a step that takes place anyway costs about as little.
const WORTH_COPYING: usize = 4;

/// Sequences that may share blocks: those of one adapter at one scale, or of the base, and of one
/// tenant, or of requests that name none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Namespace {
    pub(crate) adapter: Option<Applied>,
    pub(crate) tenant: Option<Tenant>,
}

/// The adapter that was applied while a block's keys and values were computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Applied {
    hash: AdapterHash,
    /// Bits of the scale.
    scale: u32,
    /// The position from which on it was applied.
    from: usize,
}

/// The namespaces of a sequence's blocks: those that end before its adapter applies are the base's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lineage {
    base: Namespace,
    own: Namespace,
    /// The position from which on the adapter applies.
    from: usize,
}

impl Lineage {
    /// The lineage of a sequence of `tenant` whose adapter applies from position `from` on.
    pub(crate) fn new(used: Option<&AdapterUse>, from: usize, tenant: Option<Tenant>) -> Self {
        let adapter = used.map(|used| Applied {
            hash: used.hash(),
            scale: used.scale.to_bits(),
            from,
        });
        let base = Namespace {
            adapter: None,
            tenant,
        };
        let own = Namespace { adapter, tenant };
        Self { base, own, from }
    }

    fn namespace(&self, index: usize, block_tokens: usize) -> Namespace {
        match (index + 1) * block_tokens <= self.from {
            true => self.base,
            false => self.own,
        }
    }

    /// The parent of block number `index`, which follows block `before`.
    pub(crate) fn parent(&self, index: usize, before: Option<BlockId>, block_tokens: usize) -> Parent {
        let namespace = self.namespace(index, block_tokens);
        match before {
            None => Parent::Root(namespace),
            Some(before) if index > 0 && self.namespace(index - 1, block_tokens) != namespace => {
                Parent::Turn(before, namespace)
            }
            Some(before) => Parent::Block(before),
        }
    }

    /// If the adapter begins to apply within block number `index`: the parent of the base's block
    /// in the same place, and how many of its positions are the same.
    fn base_block(
        &self,
        index: usize,
        before: Option<BlockId>,
        block_tokens: usize,
    ) -> Option<(Parent, usize)> {
        let same = self.from.checked_sub(index * block_tokens)?;
        let parent = before.map_or(Parent::Root(self.base), Parent::Block);
        (1..block_tokens).contains(&same).then_some((parent, same))
    }
}

impl From<Namespace> for Lineage {
    fn from(own: Namespace) -> Self {
        Self {
            base: own,
            own,
            from: 0,
        }
    }
}

/// What precedes a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Parent {
    /// Nothing: the block is the first of a sequence of this namespace.
    Root(Namespace),
    /// This block.
    Block(BlockId),
    /// This block of the base, after which the adapter's namespace begins.
    Turn(BlockId, Namespace),
}

/// The tokens of a block, stored inline for the usual block size.
type BlockTokens = SmallVec<[u32; 16]>;

/// The key of a node in the tree. In the order of keys, the children of a parent are neighbours,
/// sorted by their tokens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct NodeKey {
    parent: Parent,
    tokens: BlockTokens,
}

#[derive(Debug)]
struct Node {
    key: NodeKey,
    /// When the last table released it, by the cache's counter; `None` while a table holds it.
    released: Option<u64>,
}

/// The cached prefix of a sequence.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// The sequence's first blocks.
    pub(crate) blocks: Vec<BlockId>,
    /// A block whose first positions match the next tokens, and how many match, if that is worth a
    /// copy.
    pub(crate) partial: Option<(BlockId, usize)>,
}

#[derive(Debug)]
pub(crate) struct PrefixCache {
    /// Positions that a block holds.
    block_tokens: usize,
    tree: BTreeMap<NodeKey, BlockId>,
    nodes: HashMap<BlockId, Node>,
    /// Blocks that no table holds, by [`Node::released`].
    idle: BTreeMap<u64, BlockId>,
    /// Counts releases.
    releases: u64,
}

impl PrefixCache {
    /// An empty cache of blocks of `block_tokens` positions.
    pub(crate) fn new(block_tokens: usize) -> Self {
        Self {
            block_tokens,
            tree: BTreeMap::new(),
            nodes: HashMap::new(),
            idle: BTreeMap::new(),
            releases: 0,
        }
    }

    /// The longest cached prefix of `tokens`.
    pub(crate) fn find(&self, lineage: impl Into<Lineage>, tokens: &[u32]) -> Found {
        let lineage = lineage.into();
        let mut found = Found::default();
        let size = self.block_tokens;
        let chunks = tokens.chunks_exact(size);
        let mut rest = chunks.remainder();
        for chunk in chunks {
            let parent = lineage.parent(found.blocks.len(), found.blocks.last().copied(), size);
            let tokens = BlockTokens::from_slice(chunk);
            let Some(&block) = self.tree.get(&NodeKey { parent, tokens }) else {
                rest = chunk;
                break;
            };
            found.blocks.push(block);
        }
        let (index, before) = (found.blocks.len(), found.blocks.last().copied());
        let adapted = self.nearest(lineage.parent(index, before, size), rest);
        let base = lineage
            .base_block(index, before, size)
            .and_then(|(parent, same)| self.nearest(parent, &rest[..same.min(rest.len())]));
        found.partial = adapted.into_iter().chain(base).max_by_key(|&(_, common)| common);
        found
    }

    /// The child of `parent` that has the longest common prefix with `tokens`, and the length of
    /// that prefix. `tokens` are less than a block, or a block that is not in the tree.
    fn nearest(&self, parent: Parent, tokens: &[u32]) -> Option<(BlockId, usize)> {
        let mut padded = BlockTokens::from_slice(tokens);
        padded.resize(self.block_tokens, 0);
        let key = NodeKey {
            parent,
            tokens: padded,
        };
        // One of the two neighbours in order has the longest common prefix.
        let neighbours = [
            self.tree.range(..&key).next_back(),
            self.tree.range(&key..).next(),
        ];
        let siblings = neighbours
            .into_iter()
            .flatten()
            .filter(|(key, _)| key.parent == parent);
        siblings
            .map(|(key, &block)| {
                let same = tokens.iter().zip(&key.tokens).take_while(|(a, b)| a == b);
                (block, same.count())
            })
            .max_by_key(|&(_, common)| common)
            .filter(|&(_, common)| common >= WORTH_COPYING)
    }

    /// Adds a block of these tokens. If the cache has a block of the same tokens and parent,
    /// returns that block and adds nothing.
    pub(crate) fn insert(&mut self, parent: Parent, tokens: &[u32], block: BlockId) -> Option<BlockId> {
        let tokens = BlockTokens::from_slice(tokens);
        let key = NodeKey { parent, tokens };
        if let Some(&twin) = self.tree.get(&key) {
            return Some(twin);
        }
        self.tree.insert(key.clone(), block);
        let released = None;
        self.nodes.insert(block, Node { key, released });
        None
    }

    /// Says that a table holds `block` again.
    pub(crate) fn hold(&mut self, block: BlockId) {
        if let Some(released) = self.nodes.get_mut(&block).and_then(|node| node.released.take()) {
            self.idle.remove(&released);
        }
    }

    /// Says that no table holds `block` any more. Returns whether the cache keeps it.
    pub(crate) fn release(&mut self, block: BlockId) -> bool {
        let Some(node) = self.nodes.get_mut(&block) else {
            return false;
        };
        self.releases += 1;
        node.released = Some(self.releases);
        self.idle.insert(self.releases, block);
        true
    }

    /// Number of cached blocks that no table holds.
    pub(crate) fn idle(&self) -> usize {
        self.idle.len()
    }

    /// Whether the cache has `block` and no table holds it.
    pub(crate) fn is_idle(&self, block: BlockId) -> bool {
        self.nodes.get(&block).is_some_and(|node| node.released.is_some())
    }

    /// Evicts the least recently used block that no table holds.
    pub(crate) fn evict(&mut self) -> Option<BlockId> {
        let (_, block) = self.idle.pop_first()?;
        if let Some(node) = self.nodes.remove(&block) {
            self.tree.remove(&node.key);
        }
        debug_assert!(
            !self.has_children(block),
            "{block:?} was evicted before its children"
        );
        Some(block)
    }

    /// Evicts a block that no table holds and all its descendants, which no table can hold either.
    /// Returns the evicted blocks.
    pub(crate) fn evict_path(&mut self, block: BlockId) -> Vec<BlockId> {
        let mut path = vec![block];
        let mut index = 0;
        while let Some(&above) = path.get(index) {
            path.extend(self.children(above));
            index += 1;
        }
        for block in &path {
            if let Some(Node { key, released }) = self.nodes.remove(block) {
                self.tree.remove(&key);
                let idle = released.and_then(|released| self.idle.remove(&released));
                debug_assert!(idle.is_some(), "{block:?} is held, but not what comes before it");
            }
        }
        path
    }

    /// The children of `block`.
    fn children(&self, block: BlockId) -> impl Iterator<Item = BlockId> {
        let tokens = BlockTokens::from_elem(0, self.block_tokens);
        let least = [Parent::Block(block), Parent::Turn(block, Namespace::default())];
        least.into_iter().flat_map(move |parent| {
            let turns = matches!(parent, Parent::Turn(..));
            let tokens = tokens.clone();
            let behind = self.tree.range(NodeKey { parent, tokens }..);
            let of_this = move |(key, _): &(&NodeKey, &BlockId)| match key.parent {
                Parent::Block(above) => !turns && above == block,
                Parent::Turn(above, _) => turns && above == block,
                Parent::Root(_) => false,
            };
            behind.take_while(of_this).map(|(_, &child)| child)
        })
    }

    fn has_children(&self, block: BlockId) -> bool {
        self.children(block).next().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::BLOCK_TOKENS;

    const MINE: Namespace = Namespace {
        adapter: None,
        tenant: None,
    };

    /// A block of tokens that begins with these.
    fn block(first: &[u32]) -> [u32; BLOCK_TOKENS] {
        let mut tokens = [7; BLOCK_TOKENS];
        tokens[..first.len()].copy_from_slice(first);
        tokens
    }

    /// Two blocks below one: `[1..]`, then `[2..]` or `[3..]`.
    fn fork() -> PrefixCache {
        let mut cache = PrefixCache::new(BLOCK_TOKENS);
        assert_eq!(cache.insert(Parent::Root(MINE), &block(&[1]), BlockId(0)), None);
        assert_eq!(
            cache.insert(Parent::Block(BlockId(0)), &block(&[2]), BlockId(1)),
            None
        );
        assert_eq!(
            cache.insert(Parent::Block(BlockId(0)), &block(&[3]), BlockId(2)),
            None
        );
        cache
    }

    #[test]
    fn a_prefix_is_found_as_far_as_it_goes() {
        let cache = fork();
        let tokens = [block(&[1]), block(&[3]), block(&[4])].concat();
        let found = cache.find(MINE, &tokens);
        assert_eq!(
            (found.blocks, found.partial),
            (vec![BlockId(0), BlockId(2)], None)
        );
        assert_eq!(cache.find(MINE, &block(&[2])), Found::default());
        assert_eq!(cache.find(MINE, &[]), Found::default());
    }

    #[test]
    fn blocks_of_another_adapter_scale_or_tenant_are_not_found() {
        let mut cache = fork();
        let hash = AdapterHash([1; 32]);
        let adapter = Some(Applied {
            hash,
            scale: 1,
            from: 0,
        });
        let tenant = Some(Tenant::new("a"));
        for namespace in [
            Namespace { adapter, ..MINE },
            Namespace { tenant, ..MINE },
            Namespace { adapter, tenant },
        ] {
            assert_eq!(cache.find(namespace, &block(&[1])), Found::default());
        }
        let scaled = |scale| Namespace {
            adapter: Some(Applied { hash, scale, from: 0 }),
            ..MINE
        };
        cache.insert(Parent::Root(scaled(1)), &block(&[1]), BlockId(3));
        assert_eq!(cache.find(scaled(1), &block(&[1])).blocks, [BlockId(3)]);
        assert_eq!(cache.find(scaled(2), &block(&[1])), Found::default());
        assert_eq!(Tenant::new("a"), Tenant::new("a"));
        assert_ne!(Tenant::new("a"), Tenant::new("b"));
    }

    #[test]
    fn the_block_with_the_longest_common_prefix_is_copied() {
        let mut cache = PrefixCache::new(BLOCK_TOKENS);
        for (id, first) in [[5, 6, 1, 1, 1, 1], [5, 6, 1, 1, 2, 2], [5, 6, 9, 9, 9, 9]]
            .iter()
            .enumerate()
        {
            cache.insert(Parent::Root(MINE), &block(first), BlockId(id as u32));
        }
        let partial = |tokens: &[u32]| cache.find(MINE, tokens).partial;
        assert_eq!(partial(&block(&[5, 6, 1, 1, 2, 3])), Some((BlockId(1), 5)));
        assert_eq!(partial(&[5, 6, 1, 1, 1]), Some((BlockId(0), 5)));
        assert_eq!(partial(&block(&[5, 6, 9, 9, 9, 9])[..15]), Some((BlockId(2), 15)));
        assert_eq!(partial(&[5, 6, 1]), None, "too little to be worth a copy");
        assert_eq!(partial(&[4; 16]), None);
    }

    #[test]
    fn a_twin_is_not_taken_in() {
        let mut cache = fork();
        let twin = cache.insert(Parent::Block(BlockId(0)), &block(&[3]), BlockId(9));
        assert_eq!(twin, Some(BlockId(2)));
        assert!(!cache.release(BlockId(9)));
    }

    #[test]
    fn evicting_a_block_evicts_its_descendants() {
        let mut cache = fork();
        let tenant = Some(Tenant::new("a"));
        let turn = Parent::Turn(BlockId(1), Namespace { tenant, ..MINE });
        cache.insert(turn, &block(&[4]), BlockId(3));
        cache.insert(Parent::Block(BlockId(3)), &block(&[5]), BlockId(4));
        for id in [4, 3, 2, 1, 0] {
            assert!(cache.release(BlockId(id)));
        }
        assert_eq!(cache.evict_path(BlockId(1)), [1, 3, 4].map(BlockId));
        let found = cache.find(MINE, &[block(&[1]), block(&[3])].concat());
        assert_eq!(found.blocks, [BlockId(0), BlockId(2)], "others stay");
        assert_eq!(cache.evict_path(BlockId(0)), [0, 2].map(BlockId));
        assert!(cache.tree.is_empty() && cache.nodes.is_empty() && cache.idle.is_empty());
    }

    #[test]
    fn the_least_recently_used_leaf_goes_first() {
        let mut cache = fork();
        for id in [1, 2, 0] {
            assert!(cache.release(BlockId(id)));
        }
        // Used again: block 1 and the one above it.
        cache.hold(BlockId(0));
        cache.hold(BlockId(1));
        assert_eq!((cache.idle(), cache.is_idle(BlockId(2))), (1, true));
        cache.release(BlockId(1));
        cache.release(BlockId(0));
        let evicted: Vec<_> = std::iter::from_fn(|| cache.evict()).collect();
        assert_eq!(evicted, [2, 1, 0].map(BlockId));
        assert!(cache.tree.is_empty() && cache.nodes.is_empty());
    }
}

//! The paged cache of one layer's keys and values.

use super::format::{Bf16, F32, Format, Int8, KvDtype};
use crate::isa::LANES;
use crate::reclaim;
use crate::shared::SharedRows;

/// Positions per block of the cache.
pub const BLOCK_POSITIONS: usize = LANES;

/// Keys and values of one layer, for all blocks.
#[derive(Debug)]
pub struct KvLayer {
    pub(super) shape: Shape,
    pub(super) store: AnyStore,
}

/// Shape of a position's keys, and of its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
}

impl Shape {
    /// Number of tiles of sixteen features; the last is padded.
    #[inline(always)]
    pub(super) fn tiles(self) -> usize {
        self.head_dim.div_ceil(LANES)
    }

    /// Length of one head's keys in one block, `[head_dim, 16]`.
    #[inline(always)]
    pub(super) fn keys(self) -> usize {
        self.head_dim * BLOCK_POSITIONS
    }

    /// Length of one head's values in one block, `[tiles, 16, 16]`.
    #[inline(always)]
    pub(super) fn values(self) -> usize {
        self.tiles() * LANES * BLOCK_POSITIONS
    }
}

/// A store of any format.
#[derive(Debug)]
pub(super) enum AnyStore {
    Bf16(Store<Bf16>),
    F32(Store<F32>),
    Int8(Store<Int8>),
}

/// Evaluates an expression on a store of any format.
macro_rules! with_store {
    ($any:expr, $store:ident => $run:expr) => {
        match $any {
            AnyStore::Bf16($store) => $run,
            AnyStore::F32($store) => $run,
            AnyStore::Int8($store) => $run,
        }
    };
}
pub(super) use with_store;

/// Keys and values in one format. Keys are transposed, so that a vector holds one feature of
/// sixteen keys. Values are in tiles of sixteen features, so that a tile's sixteen positions are
/// neighbours.
#[derive(Debug)]
pub(super) struct Store<F: Format> {
    /// `[blocks, kv_heads, head_dim, 16 positions]`
    keys: Vec<F::Raw>,
    /// `[blocks, kv_heads, tiles, 16 positions, 16 features]`
    values: Vec<F::Raw>,
    /// `[blocks, kv_heads, 16 positions]`; empty if the format has no scales.
    key_scales: Vec<f32>,
    /// As `key_scales`.
    value_scales: Vec<f32>,
}

impl KvLayer {
    /// A cache of zeros, which takes memory as it is first written.
    pub fn new(blocks: usize, kv_heads: usize, head_dim: usize, dtype: KvDtype) -> Self {
        let shape = Shape { kv_heads, head_dim };
        let store = match dtype {
            KvDtype::Bf16 => AnyStore::Bf16(Store::new(blocks, shape)),
            KvDtype::F32 => AnyStore::F32(Store::new(blocks, shape)),
            KvDtype::Int8 => AnyStore::Int8(Store::new(blocks, shape)),
        };
        Self { shape, store }
    }

    /// Memory of one block, in bytes.
    pub fn block_bytes(kv_heads: usize, head_dim: usize, dtype: KvDtype) -> usize {
        let shape = Shape { kv_heads, head_dim };
        let (number, scales) = match dtype {
            KvDtype::Bf16 => (size_of::<u16>(), 0),
            KvDtype::F32 => (size_of::<f32>(), 0),
            KvDtype::Int8 => (size_of::<i8>(), 2 * BLOCK_POSITIONS * size_of::<f32>()),
        };
        kv_heads * ((shape.keys() + shape.values()) * number + scales)
    }

    /// Number of blocks.
    pub fn blocks(&self) -> usize {
        with_store!(&self.store, store => store.keys.len() / (self.shape.kv_heads * self.shape.keys()))
    }

    /// Marks the contents of `count` blocks from `first` on as disposable, and gives their memory
    /// back to the system where possible. They may be written again.
    ///
    /// # Panics
    /// If one of them does not exist.
    pub fn forget(&mut self, first: u32, count: usize) {
        let shape = self.shape;
        with_store!(&mut self.store, store => {
            forget(&mut store.keys, shape.kv_heads * shape.keys(), first, count);
            forget(&mut store.values, shape.kv_heads * shape.values(), first, count);
            if !store.key_scales.is_empty() {
                forget(&mut store.key_scales, shape.kv_heads * BLOCK_POSITIONS, first, count);
                forget(&mut store.value_scales, shape.kv_heads * BLOCK_POSITIONS, first, count);
            }
        });
    }

    /// Copies all sixteen positions of a block.
    ///
    /// # Panics
    /// If a block does not exist.
    pub fn copy_block(&mut self, from: u32, to: u32) {
        let shape = self.shape;
        with_store!(&mut self.store, store => {
            copy(&mut store.keys, shape.kv_heads * shape.keys(), from, to);
            copy(&mut store.values, shape.kv_heads * shape.values(), from, to);
            if !store.key_scales.is_empty() {
                copy(&mut store.key_scales, shape.kv_heads * BLOCK_POSITIONS, from, to);
                copy(&mut store.value_scales, shape.kv_heads * BLOCK_POSITIONS, from, to);
            }
        });
    }
}

/// Gives back the memory of `count` pieces of `data` of length `len`, from piece `first` on.
fn forget<T: bytemuck::AnyBitPattern>(data: &mut [T], len: usize, first: u32, count: usize) {
    reclaim::forget(&mut data[first as usize * len..][..count * len]);
}

/// Copies one piece of `data` of length `len` to another.
fn copy<T: Copy>(data: &mut [T], len: usize, from: u32, to: u32) {
    let (from, to) = (from as usize * len, to as usize * len);
    data.copy_within(from..from + len, to);
}

impl<F: Format> Store<F> {
    fn new(blocks: usize, shape: Shape) -> Self {
        let heads = blocks * shape.kv_heads;
        let scales = if F::SCALED { heads * BLOCK_POSITIONS } else { 0 };
        Self {
            keys: vec![F::Raw::default(); heads * shape.keys()],
            values: vec![F::Raw::default(); heads * shape.values()],
            key_scales: vec![0.0; scales],
            value_scales: vec![0.0; scales],
        }
    }

    /// One head's keys and values in one block.
    #[inline(always)]
    pub(super) fn head(&self, shape: Shape, block: u32, kv_head: usize) -> HeadBlock<'_, F> {
        let index = block as usize * shape.kv_heads + kv_head;
        HeadBlock {
            keys: self.keys[index * shape.keys()..][..shape.keys()].as_chunks().0,
            values: self.values[index * shape.values()..][..shape.values()]
                .as_chunks()
                .0
                .as_chunks()
                .0,
            scales: F::SCALED.then(|| {
                let at = index * BLOCK_POSITIONS;
                (scales(&self.key_scales, at), scales(&self.value_scales, at))
            }),
        }
    }

    /// The same memory, for tasks of one parallel region that write different blocks.
    pub(super) fn shared(&mut self, shape: Shape) -> SharedStore<'_, F> {
        SharedStore {
            shape,
            keys: SharedRows::new(&mut self.keys, shape.kv_heads * shape.keys()),
            values: SharedRows::new(&mut self.values, shape.kv_heads * shape.values()),
            key_scales: SharedRows::new(&mut self.key_scales, shape.kv_heads * BLOCK_POSITIONS),
            value_scales: SharedRows::new(&mut self.value_scales, shape.kv_heads * BLOCK_POSITIONS),
        }
    }

    /// Fills all memory with a number, so that tests notice reads of positions that were not
    /// stored.
    #[cfg(test)]
    pub(super) fn poison(&mut self, x: F::Raw) {
        self.keys.fill(x);
        self.values.fill(x);
        self.key_scales.fill(f32::NAN);
        self.value_scales.fill(f32::NAN);
    }
}

#[inline(always)]
fn scales(of: &[f32], at: usize) -> &[f32; BLOCK_POSITIONS] {
    of[at..].first_chunk().expect("a block has sixteen scales")
}

/// One head's keys and values in one block.
pub(super) struct HeadBlock<'a, F: Format> {
    /// `[head_dim][16 positions]`
    pub(super) keys: &'a [[F::Raw; LANES]],
    /// `[tiles][16 positions][16 features]`
    pub(super) values: &'a [[[F::Raw; LANES]; BLOCK_POSITIONS]],
    /// Scales of keys and of values, if the format has scales.
    pub(super) scales: Option<(&'a [f32; BLOCK_POSITIONS], &'a [f32; BLOCK_POSITIONS])>,
}

impl<F: Format> Clone for HeadBlock<'_, F> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<F: Format> Copy for HeadBlock<'_, F> {}

/// A store of which each task of a parallel region writes its own blocks.
#[derive(Clone, Copy)]
pub(super) struct SharedStore<'a, F: Format> {
    shape: Shape,
    keys: SharedRows<'a, F::Raw>,
    values: SharedRows<'a, F::Raw>,
    key_scales: SharedRows<'a>,
    value_scales: SharedRows<'a>,
}

impl<F: Format> SharedStore<'_, F> {
    /// Stores one position's keys and values, `[kv_heads, head_dim]` each. The block must belong to
    /// the calling task.
    #[inline(always)]
    pub(super) fn write(&self, block: usize, position: usize, keys: &[f32], values: &[f32]) {
        let shape = self.shape;
        let heads = keys
            .chunks_exact(shape.head_dim)
            .zip(values.chunks_exact(shape.head_dim));
        for (head, (key, value)) in heads.enumerate() {
            let to = self.keys.slice(block, head * shape.keys(), shape.keys());
            let inverse = self.scale(&self.key_scales, block, head, position, key);
            for (to, x) in to.as_chunks_mut::<BLOCK_POSITIONS>().0.iter_mut().zip(key) {
                to[position] = F::store(*x, inverse);
            }
            let to = self.values.slice(block, head * shape.values(), shape.values());
            let inverse = self.scale(&self.value_scales, block, head, position, value);
            let tiles = to.chunks_exact_mut(LANES * BLOCK_POSITIONS);
            for (tile, features) in tiles.zip(value.chunks(LANES)) {
                let to = &mut tile[position * LANES..][..LANES];
                for (to, x) in to.iter_mut().zip(features) {
                    *to = F::store(*x, inverse);
                }
                // Lanes beyond the head are computed and discarded; they must not be denormals,
                // which are slow.
                to[features.len()..].fill(F::Raw::default());
            }
        }
    }

    /// Stores a head's scale and returns its inverse.
    #[inline(always)]
    fn scale(&self, scales: &SharedRows<'_>, block: usize, head: usize, position: usize, x: &[f32]) -> f32 {
        if !F::SCALED {
            return 1.0;
        }
        let scale = F::scale(x);
        scales.write(block, head * BLOCK_POSITIONS + position, &[scale]);
        if scale > 0.0 { 1.0 / scale } else { 0.0 }
    }
}

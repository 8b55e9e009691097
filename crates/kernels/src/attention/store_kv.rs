//! Preparing attention: queries and keys are normalised and rotated, keys and values are stored.

use super::cache::{AnyStore, BLOCK_POSITIONS, KvLayer, SharedStore, with_store};
use super::format::Format;
use super::plan::{AttentionPlan, Tile};
use crate::isa::{Isa, Kernel, dispatch};
use crate::norm::{self, worth_sharing};
use crate::pool::Pool;
use crate::rope::Angles;
use crate::shared::SharedRows;

/// Weights of the norms of queries and keys, each of one head or of all heads of a row together.
#[derive(Clone, Copy, Debug)]
pub struct HeadNorms<'a> {
    /// `[head_dim]` or `[heads · head_dim]`
    pub query: &'a [f32],
    /// `[head_dim]` or `[kv_heads · head_dim]`
    pub key: &'a [f32],
    /// Added to the mean square.
    pub eps: f32,
}

/// Normalises and rotates the queries and keys of a step in place, and stores keys and values in
/// the cache.
///
/// `qkv` is `[rows, (heads + 2 · kv_heads) · head_dim]`: queries, keys, values. `angles` are those
/// of the step's rows.
///
/// # Panics
/// If sizes do not fit or the cache lacks a block.
pub fn store_kv(
    pool: &Pool,
    kv: &mut KvLayer,
    plan: &AttentionPlan<'_>,
    norms: Option<HeadNorms<'_>>,
    angles: Option<&Angles>,
    qkv: &mut [f32],
) {
    if plan.rows == 0 {
        return;
    }
    let shape = kv.shape;
    let (len, stride, rows) = (qkv.len(), qkv.len() / plan.rows, plan.rows);
    let kv_width = shape.kv_heads * shape.head_dim;
    assert!(
        len == rows * stride && stride > 2 * kv_width,
        "{len} values in {rows} rows of queries, keys and values"
    );
    let qkv = SharedRows::new(qkv, stride);
    with_store!(&mut kv.store, store => {
        let store = store.shared(shape);
        let shared = Shared { store, head_dim: shape.head_dim, kv_width, norms, angles, qkv, stride };
        let task = |index: usize| dispatch(StoreTile { shared: &shared, tile: plan.tiles[index] });
        if worth_sharing(len) {
            pool.run_chunked(plan.tiles.len(), task);
        } else {
            (0..plan.tiles.len()).for_each(task);
        }
    });
}

/// Arguments of [`store_kv`], shared by its tasks.
struct Shared<'a, F: Format> {
    store: SharedStore<'a, F>,
    head_dim: usize,
    kv_width: usize,
    norms: Option<HeadNorms<'a>>,
    angles: Option<&'a Angles>,
    qkv: SharedRows<'a>,
    stride: usize,
}

/// Stores the rows of one tile, whose block belongs to this task alone.
struct StoreTile<'a, 'b, F: Format> {
    shared: &'b Shared<'a, F>,
    tile: Tile<'b>,
}

impl<F: Format> Kernel for StoreTile<'_, '_, F> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Shared {
            store,
            head_dim,
            kv_width,
            norms,
            angles,
            qkv,
            stride,
        } = self.shared;
        for row in 0..self.tile.rows {
            let index = self.tile.first_row + row;
            let (queries, keys_values) = qkv.slice(index, 0, *stride).split_at_mut(stride - 2 * kv_width);
            let (keys, values) = keys_values.split_at_mut(*kv_width);
            if let Some(norms) = norms {
                norm::in_place(isa, queries, norms.query, norms.eps);
                norm::in_place(isa, keys, norms.key, norms.eps);
            }
            if let Some(angles) = angles {
                angles.rotate(isa, index, queries, *head_dim);
                angles.rotate(isa, index, keys, *head_dim);
            }
            let position = (self.tile.position + row) % BLOCK_POSITIONS;
            store.write(self.tile.own_block(), position, keys, values);
        }
    }
}

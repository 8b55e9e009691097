//! Attention over a paged KV cache, grouped-query, with an online softmax (Milakov and Gimelshein
//! 2018, arXiv 1805.02867; Dao et al. 2022, arXiv 2205.14135). Long contexts are split (Dao et al.
//! 2023, "Flash-Decoding").
//!
//! A step's rows are planned once ([`AttentionPlan`]). In each layer they store their keys and
//! values ([`store_kv`]) and then attend ([`attention`]). Query heads that share a key and value
//! head, and rows of one sequence whose positions lie in one block, share each load of keys and
//! values.
//!
//! A query's result depends on its own sequence alone, to the bit. Scores are sums over features in
//! order. Weighted values are sums over positions in order, split into partials at fixed positions;
//! the partials are added in order. Neither the queries that share a load nor the thread that
//! computes a partial affect the result.

mod cache;
mod format;
mod head;
mod partial;
mod plan;
mod store_kv;
#[cfg(test)]
mod tests;
mod work;

pub use cache::{BLOCK_POSITIONS, KvLayer};
pub use format::KvDtype;
pub use plan::{AttentionPlan, Query};
pub use store_kv::{HeadNorms, store_kv};

use cache::{AnyStore, Shape, Store, with_store};
use format::Format;
use partial::{Gather, SpanTask};
use work::Work;

use crate::isa::{InstructionSet, dispatch_on};
use crate::pool::Pool;
use crate::shared::SharedRows;

/// Parameters of a layer's attention.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    /// Number of query heads, a multiple of the number of key and value heads.
    pub heads: usize,
    /// Factor of query·key.
    pub scale: f32,
    /// Scores become `cap · tanh(score / cap)`.
    pub softcap: Option<f32>,
    /// How many positions a row sees, including its own, at least 1; `None` is all.
    pub window: Option<usize>,
}

/// `out[r] = softmax(scores(q[r], keys)) · values` for each row and head.
///
/// `q` is `[rows, q_stride]` with each row's heads first; `out` is `[rows, heads · head_dim]`.
/// `scratch` is working memory, which grows as needed.
///
/// # Panics
/// If sizes do not fit or the cache lacks a block.
pub fn attention(
    pool: &Pool,
    kv: &KvLayer,
    settings: Attention,
    plan: &AttentionPlan<'_>,
    q: &[f32],
    scratch: &mut Vec<f32>,
    out: &mut [f32],
) {
    with_store!(&kv.store, store => {
        attend(InstructionSet::current(), pool, store, kv.shape, settings, plan, q, scratch, out);
    });
}

#[expect(
    clippy::too_many_arguments,
    reason = "the function above, on a given store and instruction set"
)]
fn attend<F: Format>(
    set: InstructionSet,
    pool: &Pool,
    store: &Store<F>,
    shape: Shape,
    settings: Attention,
    plan: &AttentionPlan<'_>,
    q: &[f32],
    scratch: &mut Vec<f32>,
    out: &mut [f32],
) {
    if plan.rows == 0 {
        return;
    }
    let (heads, dim) = (settings.heads, shape.head_dim);
    let q_stride = q.len() / plan.rows;
    assert!(
        q.len() == plan.rows * q_stride && q_stride >= heads * dim && out.len() == plan.rows * heads * dim,
        "rows of q and out"
    );
    assert!(
        heads.is_multiple_of(shape.kv_heads),
        "{heads} query heads over {} key and value heads",
        shape.kv_heads
    );
    assert!(settings.window != Some(0), "a window of at least the row itself");
    let (sums, slots) = (plan.rows * heads * 2, plan.slots * heads * (dim + 2));
    if scratch.len() < sums + slots {
        scratch.resize(sums + slots, 0.0);
    }
    let (sums, slots) = scratch.split_at_mut(sums);
    let work = Work {
        store,
        shape,
        settings,
        q,
        q_stride,
        out: SharedRows::new(out, heads * dim),
        sums: SharedRows::new(sums, heads * 2),
        slots: SharedRows::new(slots, heads * (dim + 2)),
    };
    let tasks = plan.spans.len() * shape.kv_heads;
    pool.run(tasks, |task| {
        // The last tiles of a prompt have the longest contexts. They come first, so that threads
        // end together.
        let task = tasks - 1 - task;
        let span = &plan.spans[task / shape.kv_heads];
        let task = SpanTask {
            work: &work,
            tile: plan.tiles[span.tile],
            partials: span.partials.clone(),
            kv_head: task % shape.kv_heads,
        };
        dispatch_on(set, task);
    });
    pool.run(plan.cut.len() * shape.kv_heads, |task| {
        let gather = Gather {
            work: &work,
            tile: plan.tiles[plan.cut[task / shape.kv_heads]],
            kv_head: task % shape.kv_heads,
        };
        dispatch_on(set, gather);
    });
}

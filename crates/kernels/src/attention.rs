//! Attention over a paged KV cache, grouped-query, with an online softmax (Milakov and Gimelshein 2018, arXiv
//! 1805.02867; Dao et al. 2022, arXiv 2205.14135).
//!
//! A block holds sixteen positions. Keys lie transposed, `[head_dim, 16]`, so that one vector is sixteen keys'
//! values of one feature; values lie `[16, head_dim]`. A query goes through its blocks in order of position, and
//! within a block in a fixed order, so its result depends on its own sequence alone: not on which rows share the
//! step, nor on where a prompt was cut.

use crate::activation::tanh;
use crate::isa::{Isa, Kernel, LANES, dispatch, exp};
use crate::pool::Pool;
use crate::shared::SharedRows;

/// Positions of a block of the cache.
pub const BLOCK_POSITIONS: usize = LANES;

/// Keys and values of one layer, for all blocks.
#[derive(Debug)]
pub struct KvLayer {
    kv_heads: usize,
    head_dim: usize,
    /// `[blocks, kv_heads, head_dim, 16]`
    keys: Vec<f32>,
    /// `[blocks, kv_heads, 16, head_dim]`
    values: Vec<f32>,
}

impl KvLayer {
    /// A cache of zeros; the system gives the memory as it is first written.
    pub fn new(blocks: usize, kv_heads: usize, head_dim: usize) -> Self {
        let len = blocks * kv_heads * head_dim * BLOCK_POSITIONS;
        Self {
            kv_heads,
            head_dim,
            keys: vec![0.0; len],
            values: vec![0.0; len],
        }
    }

    /// Stores one position's keys and values, `[kv_heads, head_dim]` each.
    ///
    /// # Panics
    /// If the block does not exist or the sizes do not fit.
    pub fn store(&mut self, block: u32, position_in_block: usize, keys: &[f32], values: &[f32]) {
        let (heads, dim) = (self.kv_heads, self.head_dim);
        assert!(
            keys.len() == heads * dim && values.len() == heads * dim,
            "one position's keys and values"
        );
        for head in 0..heads {
            let from = (block as usize * heads + head) * dim * BLOCK_POSITIONS;
            let source = head * dim..(head + 1) * dim;
            let to = &mut self.keys[from..from + dim * BLOCK_POSITIONS];
            for (lanes, key) in to.chunks_exact_mut(BLOCK_POSITIONS).zip(&keys[source.clone()]) {
                lanes[position_in_block] = *key;
            }
            self.values[from + position_in_block * dim..][..dim].copy_from_slice(&values[source]);
        }
    }

    /// Keys `[head_dim, 16]` and values `[16, head_dim]` of one head of one block.
    #[inline(always)]
    fn block(&self, block: u32, head: usize) -> (&[[f32; LANES]], &[f32]) {
        let len = self.head_dim * BLOCK_POSITIONS;
        let from = (block as usize * self.kv_heads + head) * len;
        (
            self.keys[from..from + len].as_chunks().0,
            &self.values[from..from + len],
        )
    }
}

/// One row that attends.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// Its position; it sees positions up to and with its own.
    pub position: usize,
    /// The block table of its sequence.
    pub blocks: &'a [u32],
}

/// How a layer attends.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    /// Query heads; each key and value head serves as many of them as divide evenly.
    pub heads: usize,
    /// Query·key is multiplied by this.
    pub scale: f32,
    /// Attention become `cap · tanh(score / cap)`.
    pub softcap: Option<f32>,
    /// A row sees this many positions, its own included.
    pub window: Option<usize>,
}

/// `out[r] = softmax(scores(q[r], keys)) · values` for each row and head.
///
/// `q` is `[rows, q_stride]` with each row's heads first; `out` is `[rows, heads · head_dim]`.
///
/// # Panics
/// If sizes do not fit or a block table is too short.
pub fn attention(
    pool: &Pool,
    kv: &KvLayer,
    layer: Attention,
    queries: &[Query<'_>],
    q: &[f32],
    q_stride: usize,
    out: &mut [f32],
) {
    let (dim, heads) = (kv.head_dim, layer.heads);
    assert!(
        q.len() == queries.len() * q_stride && out.len() == queries.len() * heads * dim,
        "rows of q and out"
    );
    let group = heads / kv.kv_heads;
    let out = SharedRows::new(out, heads * dim);
    pool.run_chunked(queries.len() * kv.kv_heads, |task| {
        let (row, kv_head) = (task / kv.kv_heads, task % kv.kv_heads);
        for head in kv_head * group..(kv_head + 1) * group {
            dispatch(Head {
                kv,
                kv_head,
                layer,
                query: queries[row],
                q: &q[row * q_stride + head * dim..][..dim],
                out: out.slice(row, head * dim, dim),
            });
        }
    });
}

/// One head of one row.
struct Head<'a> {
    kv: &'a KvLayer,
    kv_head: usize,
    layer: Attention,
    query: Query<'a>,
    /// `[head_dim]`
    q: &'a [f32],
    /// `[head_dim]`
    out: &'a mut [f32],
}

impl Kernel for Head<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self {
            kv,
            kv_head,
            layer,
            query,
            q,
            out,
        } = self;
        let end = query.position + 1;
        let start = layer.window.map_or(0, |window| end.saturating_sub(window));
        let (mut largest, mut total) = (f32::NEG_INFINITY, 0.0f32);
        out.fill(0.0);
        for index in start / BLOCK_POSITIONS..end.div_ceil(BLOCK_POSITIONS) {
            let first = index * BLOCK_POSITIONS;
            let seen = start.saturating_sub(first)..BLOCK_POSITIONS.min(end - first);
            let (keys, values) = kv.block(query.blocks[index], kv_head);
            let mut weights = block_scores(isa, keys, q, layer);
            let block_largest = weights[seen.clone()]
                .iter()
                .copied()
                .fold(f32::NEG_INFINITY, f32::max);
            let new_largest = largest.max(block_largest);
            let mut lanes = isa.sub(isa.load(&weights), isa.splat(new_largest));
            lanes = exp(isa, lanes);
            isa.store(lanes, &mut weights);
            // What lies outside of the window may be another sequence's old data.
            weights[..seen.start].fill(0.0);
            weights[seen.end..].fill(0.0);
            let keep = (largest - new_largest).exp();
            total = total.mul_add(keep, isa.sum(isa.load(&weights)));
            accumulate(
                isa,
                out,
                keep,
                &weights[seen.clone()],
                &values[seen.start * kv.head_dim..],
            );
            largest = new_largest;
        }
        let scale = 1.0 / total;
        out.iter_mut().for_each(|o| *o *= scale);
    }
}

/// Attention of sixteen keys.
#[inline(always)]
fn block_scores<I: Isa>(isa: I, keys: &[[f32; LANES]], q: &[f32], layer: Attention) -> [f32; LANES] {
    let (mut even, mut odd) = (isa.splat(0.0), isa.splat(0.0));
    for (key, q) in keys.chunks_exact(2).zip(q.chunks_exact(2)) {
        even = isa.mul_add(isa.load(&key[0]), isa.splat(q[0]), even);
        odd = isa.mul_add(isa.load(&key[1]), isa.splat(q[1]), odd);
    }
    let mut sums = isa.mul(isa.add(even, odd), isa.splat(layer.scale));
    if let Some(cap) = layer.softcap {
        let cap = isa.splat(cap);
        sums = isa.mul(cap, tanh(isa, isa.div(sums, cap)));
    }
    let mut out = [0.0; LANES];
    isa.store(sums, &mut out);
    out
}

/// `out = out · keep + Σ_t weights[t] · values[t]`.
#[inline(always)]
fn accumulate<I: Isa>(isa: I, out: &mut [f32], keep: f32, weights: &[f32], values: &[f32]) {
    let dim = out.len();
    let (lanes, rest) = out.as_chunks_mut::<LANES>();
    for (i, lane) in lanes.iter_mut().enumerate() {
        let mut sum = isa.mul(isa.load(lane), isa.splat(keep));
        for (t, weight) in weights.iter().enumerate() {
            let value = values[t * dim + i * LANES..]
                .first_chunk()
                .expect("a value has head_dim features");
            sum = isa.mul_add(isa.splat(*weight), isa.load(value), sum);
        }
        isa.store(sum, lane);
    }
    let done = dim - rest.len();
    for (i, o) in rest.iter_mut().enumerate() {
        *o *= keep;
        for (t, weight) in weights.iter().enumerate() {
            *o = weight.mul_add(values[t * dim + done + i], *o);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn noise(seed: u64, i: usize) -> f32 {
        ((seed % 1000) as f64 + i as f64 * 78.233).sin() as f32
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn attention_is_its_formula_whatever_the_blocks_hold_beyond_the_sequence(
            positions in 1usize..70,
            kv_heads in 1usize..3,
            group in 1usize..4,
            dim in prop::sample::select(vec![2usize, 8, 16, 24, 64]),
            window in prop::option::of(1usize..40),
            softcap in prop::option::of(2f32..10.0),
            seed: u64,
        ) {
            let heads = kv_heads * group;
            let blocks: Vec<u32> = (0..positions.div_ceil(16) as u32).rev().collect();
            let mut kv = KvLayer::new(blocks.len(), kv_heads, dim);
            kv.keys.fill(f32::NAN);
            kv.values.fill(f32::NAN);
            let width = kv_heads * dim;
            let key = |p: usize, i: usize| noise(seed, p * width + i);
            let value = |p: usize, i: usize| noise(seed ^ 77, 5000 + p * width + i);
            for p in 0..positions {
                let row = |f: &dyn Fn(usize, usize) -> f32| (0..width).map(|i| f(p, i)).collect::<Vec<_>>();
                kv.store(blocks[p / 16], p % 16, &row(&key), &row(&value));
            }
            let q: Vec<f32> = (0..heads * dim).map(|i| 2.0 * noise(seed, 90_000 + i)).collect();
            let mut out = vec![0.0; heads * dim];
            let position = positions - 1;
            let layer = Attention { heads, scale: 0.7, softcap, window };
            attention(&Pool::new(1), &kv, layer, &[Query { position, blocks: &blocks }], &q, heads * dim, &mut out);
            for head in 0..heads {
                let base = head / group * dim;
                let first = window.map_or(0, |w| positions.saturating_sub(w));
                let exps: Vec<f64> = (first..positions).map(|p| {
                    let dot: f64 = (0..dim).map(|i| f64::from(q[head * dim + i]) * f64::from(key(p, base + i))).sum();
                    let s = dot * 0.7;
                    softcap.map_or(s, |c| f64::from(c) * (s / f64::from(c)).tanh()).exp()
                }).collect();
                let total: f64 = exps.iter().sum();
                for i in 0..dim {
                    let want: f64 = (first..positions).zip(&exps).map(|(p, e)| e / total * f64::from(value(p, base + i))).sum();
                    let got = f64::from(out[head * dim + i]);
                    prop_assert!((got - want).abs() < 2e-5, "head {head} feature {i}: {got} for {want}");
                }
            }
        }
    }
}

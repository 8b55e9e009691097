//! The arithmetic of a partial: a few queries and one head's keys and values.

use std::ops::Range;

use super::cache::BLOCK_POSITIONS;
use super::format::Format;
use super::plan::PARTIAL_BLOCKS;
use super::work::Work;
use crate::activation::tanh;
use crate::isa::{Isa, LANES, exp};

/// Bytes of a cache line on common processors. Where lines have another size, prefetching helps
/// less.
const LINE: usize = 64;

/// Scores, then weights, of Q queries: `[blocks][Q][16 positions]`.
pub(super) type Weights<const Q: usize> = [[[f32; LANES]; Q]; PARTIAL_BLOCKS];

/// Number of sums that fit into registers beside two operands. It affects how work is split, never
/// the result. Instruction sets whose vector is one register have thirty-two registers; the others
/// need several registers per vector, and have sixteen.
#[inline(always)]
pub(super) const fn accumulators<I: Isa>() -> usize {
    if align_of::<I::F>() == size_of::<I::F>() {
        16
    } else {
        4
    }
}

/// The keys and values of one head in one partial.
pub(super) struct Head<'w, 'a, F: Format> {
    pub(super) work: &'w Work<'a, F>,
    /// The partial's blocks.
    pub(super) table: &'w [u32],
    pub(super) kv_head: usize,
}

impl<F: Format> Head<'_, '_, F> {
    /// Scores of all positions of the blocks, including those that the queries do not see.
    #[inline(always)]
    pub(super) fn scores<I: Isa, const Q: usize>(
        &self,
        isa: I,
        blocks: Range<usize>,
        queries: &[&[f32]; Q],
        out: &mut Weights<Q>,
    ) {
        let mut block = blocks.start;
        if accumulators::<I>() >= 2 * Q {
            while block + 2 <= blocks.end {
                self.block_scores::<I, Q, 2>(isa, block, queries, out);
                block += 2;
            }
        }
        while block < blocks.end {
            self.block_scores::<I, Q, 1>(isa, block, queries, out);
            block += 1;
        }
    }

    /// Scores of B blocks: each the sum over features in order.
    #[inline(always)]
    fn block_scores<I: Isa, const Q: usize, const B: usize>(
        &self,
        isa: I,
        first: usize,
        queries: &[&[f32]; Q],
        out: &mut Weights<Q>,
    ) {
        let Work {
            store,
            shape,
            settings,
            ..
        } = self.work;
        let mut heads = [store.head(*shape, self.table[first], self.kv_head); B];
        for (b, head) in heads.iter_mut().enumerate() {
            *head = store.head(*shape, self.table[first + b], self.kv_head);
        }
        let dim = queries[0].len();
        let mut keys = [&heads[0].keys[..dim]; B];
        for b in 1..B {
            keys[b] = &heads[b].keys[..dim];
        }
        // Blocks are scattered in memory, so the processor does not prefetch them itself.
        // Prefetches the next blocks' keys, and these blocks' values, which are read after the
        // scores.
        let next = self.table.get(first + B..).unwrap_or(&[]);
        let mut following = heads;
        for (following, &block) in following.iter_mut().zip(next) {
            *following = store.head(*shape, block, self.kv_head);
        }
        let mut sums = [[isa.splat(0.0); Q]; B];
        for feature in 0..dim {
            if (feature * size_of::<[F::Raw; LANES]>()).is_multiple_of(LINE) {
                for b in 0..B {
                    isa.prefetch(&following[b].keys[feature]);
                    isa.prefetch(&heads[b].values[feature / LANES][feature % LANES]);
                }
            }
            let mut key = [isa.splat(0.0); B];
            for b in 0..B {
                key[b] = F::load(isa, &keys[b][feature]);
            }
            for q in 0..Q {
                let x = isa.splat(queries[q][feature]);
                for b in 0..B {
                    sums[b][q] = isa.mul_add(key[b], x, sums[b][q]);
                }
            }
        }
        for b in 0..B {
            let mut scale = isa.splat(settings.scale);
            if let Some((scales, _)) = heads[b].scales {
                scale = isa.mul(scale, isa.load(scales));
            }
            for q in 0..Q {
                let mut score = isa.mul(sums[b][q], scale);
                if let Some(cap) = settings.softcap {
                    let cap = isa.splat(cap);
                    score = isa.mul(cap, tanh(isa, isa.div(score, cap)));
                }
                isa.store(score, &mut out[first + b][q]);
            }
        }
    }

    /// Turns a query's scores into weights, and returns the largest score and the sum of weights.
    #[inline(always)]
    pub(super) fn weigh<I: Isa, const Q: usize>(
        &self,
        isa: I,
        blocks: Range<usize>,
        q: usize,
        seen: (usize, usize),
        weights: &mut Weights<Q>,
    ) -> [f32; 2] {
        let mut largest = isa.splat(f32::NEG_INFINITY);
        for block in blocks.clone() {
            // Positions outside may hold old data of another sequence.
            mask(&mut weights[block][q], block, seen, f32::NEG_INFINITY);
            largest = isa.max(isa.load(&weights[block][q]), largest);
        }
        let mut lanes = [0.0; LANES];
        isa.store(largest, &mut lanes);
        let mut largest = lanes[0];
        for lane in lanes {
            largest = if lane > largest { lane } else { largest };
        }
        let mut total = isa.splat(0.0);
        for block in blocks {
            let scores = isa.load(&weights[block][q]);
            let to = &mut weights[block][q];
            isa.store(exp(isa, isa.sub(scores, isa.splat(largest))), to);
            mask(to, block, seen, 0.0);
            total = isa.add(total, isa.load(to));
            if F::SCALED {
                let head = self
                    .work
                    .store
                    .head(self.work.shape, self.table[block], self.kv_head);
                if let Some((_, scales)) = head.scales {
                    isa.store(isa.mul(isa.load(to), isa.load(scales)), to);
                }
            }
        }
        [largest, isa.sum(total)]
    }

    /// Weighted sums of T neighbouring tiles of features, each over the seen positions in order.
    #[inline(always)]
    pub(super) fn values<I: Isa, const Q: usize, const T: usize>(
        &self,
        isa: I,
        blocks: Range<usize>,
        tile: usize,
        seen: &[(usize, usize); Q],
        weights: &Weights<Q>,
    ) -> [[I::F; Q]; T] {
        let mut sums = [[isa.splat(0.0); Q]; T];
        for block in blocks {
            let head = self
                .work
                .store
                .head(self.work.shape, self.table[block], self.kv_head);
            let mut values = [&head.values[tile]; T];
            for (t, values) in values.iter_mut().enumerate() {
                *values = &head.values[tile + t];
            }
            let weights = &weights[block];
            let (start, end) = (block * BLOCK_POSITIONS, (block + 1) * BLOCK_POSITIONS);
            let mut whole = true;
            for seen in seen {
                whole &= seen.0 <= start && seen.1 >= end;
            }
            if whole {
                for position in 0..BLOCK_POSITIONS {
                    let mut value = [isa.splat(0.0); T];
                    for t in 0..T {
                        value[t] = F::load(isa, &values[t][position]);
                    }
                    for q in 0..Q {
                        let weight = isa.splat(weights[q][position]);
                        for t in 0..T {
                            sums[t][q] = isa.mul_add(weight, value[t], sums[t][q]);
                        }
                    }
                }
                continue;
            }
            for q in 0..Q {
                let range = within(block, seen[q]);
                for position in range {
                    let weight = isa.splat(weights[q][position]);
                    for t in 0..T {
                        let value = F::load(isa, &values[t][position]);
                        sums[t][q] = isa.mul_add(weight, value, sums[t][q]);
                    }
                }
            }
        }
        sums
    }
}

/// The positions of a block that are seen, relative to the block; `seen` is relative to the
/// partial.
#[inline(always)]
fn within(block: usize, (from, to): (usize, usize)) -> Range<usize> {
    let start = block * BLOCK_POSITIONS;
    let clamp = |at: usize| at.saturating_sub(start).min(BLOCK_POSITIONS);
    clamp(from)..clamp(to)
}

/// Fills the lanes of a block that are not seen.
#[inline(always)]
fn mask(lanes: &mut [f32; LANES], block: usize, seen: (usize, usize), with: f32) {
    let start = block * BLOCK_POSITIONS;
    if seen.0 <= start && seen.1 >= start + BLOCK_POSITIONS {
        return;
    }
    for (position, lane) in lanes.iter_mut().enumerate() {
        if start + position < seen.0 || start + position >= seen.1 {
            *lane = with;
        }
    }
}

//! The attention of a few queries over at most [`PARTIAL_POSITIONS`] positions, and the sum of such
//! partials.
//!
//! A query's context is always split at multiples of [`PARTIAL_POSITIONS`]. Each partial has its
//! own largest score, sum of weights and weighted sum of values. A query's partials are added in
//! order of position by the rule of the online softmax. Therefore any thread may compute a partial,
//! together with any other queries.

use std::ops::Range;

use super::cache::BLOCK_POSITIONS;
use super::format::Format;
use super::head::{Head, Weights, accumulators};
use super::plan::{PARTIAL_BLOCKS, PARTIAL_POSITIONS, Tile};
use super::work::Work;
use crate::isa::{Isa, Kernel, LANES, exp};

impl<'a, F: Format> Work<'a, F> {
    /// Positions that a tile's row sees.
    #[inline(always)]
    fn seen(&self, tile: &Tile<'_>, row: usize) -> Range<usize> {
        let end = tile.position + row + 1;
        let start = match self.settings.window {
            Some(window) => end.saturating_sub(window),
            None => 0,
        };
        start..end
    }

    #[inline(always)]
    fn group(&self) -> usize {
        self.settings.heads / self.shape.kv_heads
    }

    /// Where a head's values and sums are written: to the row itself, or to the partial's slot.
    #[inline(always)]
    fn destination(
        &self,
        tile: &Tile<'_>,
        row: usize,
        head: usize,
        partial: usize,
    ) -> (&mut [f32], &mut [f32]) {
        let dim = self.shape.head_dim;
        match tile.slot {
            None => (
                self.out.slice(tile.first_row + row, head * dim, dim),
                self.sums.slice(tile.first_row + row, head * 2, 2),
            ),
            Some(first) => {
                let slot = first + row * tile.partials() + partial;
                self.slots
                    .slice(slot, head * (dim + 2), dim + 2)
                    .split_at_mut(dim)
            }
        }
    }

    /// Adds a partial's sums to those of the partials before it, and returns the factors for the
    /// values of both.
    #[inline(always)]
    fn add_sums<I: Isa>(isa: I, sums: &mut [f32], partial: [f32; 2]) -> [f32; 2] {
        let largest = if sums[0] > partial[0] { sums[0] } else { partial[0] };
        let mut exponents = [0.0; LANES];
        exponents[0] = sums[0] - largest;
        exponents[1] = partial[0] - largest;
        isa.store(exp(isa, isa.load(&exponents)), &mut exponents);
        let [keep, gain, ..] = exponents;
        sums[0] = largest;
        sums[1] = sums[1].mul_add(keep, partial[1] * gain);
        [keep, gain]
    }

    /// `to[tile] = to[tile] · keep + values · gain`.
    #[inline(always)]
    fn add_values<I: Isa>(isa: I, to: &mut [f32], tile: usize, values: I::F, [keep, gain]: [f32; 2]) {
        let scaled = isa.mul(values, isa.splat(gain));
        let to = &mut to[tile * LANES..];
        if let Some(to) = to.first_chunk_mut() {
            isa.store(isa.mul_add(isa.load(to), isa.splat(keep), scaled), to);
            return;
        }
        let mut lanes = [0.0; LANES];
        lanes[..to.len()].copy_from_slice(to);
        let sum = isa.mul_add(isa.load(&lanes), isa.splat(keep), scaled);
        isa.store(sum, &mut lanes);
        to.copy_from_slice(&lanes[..to.len()]);
    }

    /// `to[tile] = values`.
    #[inline(always)]
    fn set_values<I: Isa>(isa: I, to: &mut [f32], tile: usize, values: I::F) {
        let to = &mut to[tile * LANES..];
        if let Some(to) = to.first_chunk_mut() {
            return isa.store(values, to);
        }
        let mut lanes = [0.0; LANES];
        isa.store(values, &mut lanes);
        to.copy_from_slice(&lanes[..to.len()]);
    }

    /// Divides a row's values by their sum of weights.
    #[inline(always)]
    fn finish(values: &mut [f32], total: f32) {
        let scale = 1.0 / total;
        for value in values {
            *value *= scale;
        }
    }

    /// Q queries of a tile, counted by rows and then heads of the group from `first`, over one
    /// partial. Returns Q.
    #[inline(always)]
    fn partial<I: Isa, const Q: usize>(
        &self,
        isa: I,
        tile: &Tile<'_>,
        kv_head: usize,
        partial: usize,
        first: usize,
    ) -> usize {
        let (group, dim) = (self.group(), self.shape.head_dim);
        let start = partial * PARTIAL_POSITIONS;
        let mut queries: [&[f32]; Q] = [&[]; Q];
        let mut seen = [(0, 0); Q];
        let (mut from, mut to) = (PARTIAL_POSITIONS, 0);
        for index in 0..Q {
            let (row, head) = ((first + index) / group, kv_head * group + (first + index) % group);
            queries[index] = &self.q[(tile.first_row + row) * self.q_stride + head * dim..][..dim];
            let range = self.seen(tile, row);
            seen[index] = (
                range.start.saturating_sub(start),
                range.end.saturating_sub(start).min(PARTIAL_POSITIONS),
            );
            if seen[index].0 < seen[index].1 {
                from = from.min(seen[index].0);
                to = to.max(seen[index].1);
            }
        }
        if from >= to {
            return Q;
        }
        let blocks = from / BLOCK_POSITIONS..to.div_ceil(BLOCK_POSITIONS);
        let table = &tile.blocks[partial * PARTIAL_BLOCKS..];
        let mut weights: Weights<Q> = [[[0.0; LANES]; Q]; PARTIAL_BLOCKS];
        let head = Head {
            work: self,
            table: &table[..blocks.end],
            kv_head,
        };
        head.scores(isa, blocks.clone(), &queries, &mut weights);
        let mut sums = [[0.0; 2]; Q];
        for q in 0..Q {
            sums[q] = head.weigh(isa, blocks.clone(), q, seen[q], &mut weights);
        }

        // The values of earlier partials are kept, scaled; the first partial has none before it.
        let mut factors = [None; Q];
        for index in 0..Q {
            let (row, of_group) = ((first + index) / group, (first + index) % group);
            if seen[index].0 < seen[index].1 {
                let (_, before) = self.destination(tile, row, kv_head * group + of_group, partial);
                let fresh = tile.slot.is_some() || partial == self.seen(tile, row).start / PARTIAL_POSITIONS;
                if fresh {
                    before.copy_from_slice(&sums[index]);
                } else {
                    factors[index] = Some(Self::add_sums(isa, before, sums[index]));
                }
            }
        }
        let mut feature_tile = 0;
        while feature_tile < self.shape.tiles() {
            let mut values = [[isa.splat(0.0); Q]; 2];
            let count = if accumulators::<I>() >= 2 * Q && feature_tile + 2 <= self.shape.tiles() {
                values = head.values::<I, Q, 2>(isa, blocks.clone(), feature_tile, &seen, &weights);
                2
            } else {
                [values[0]] = head.values::<I, Q, 1>(isa, blocks.clone(), feature_tile, &seen, &weights);
                1
            };
            for index in 0..Q {
                if seen[index].0 >= seen[index].1 {
                    continue;
                }
                let (row, of_group) = ((first + index) / group, (first + index) % group);
                let (to, _) = self.destination(tile, row, kv_head * group + of_group, partial);
                for (offset, values) in values.iter().enumerate().take(count) {
                    match factors[index] {
                        None => Self::set_values(isa, to, feature_tile + offset, values[index]),
                        Some(factors) => {
                            Self::add_values(isa, to, feature_tile + offset, values[index], factors);
                        }
                    }
                }
            }
            feature_tile += count;
        }
        Q
    }
}

/// One task: some or all partials of a tile under one key and value head.
pub(super) struct SpanTask<'a, 'b, F: Format> {
    pub(super) work: &'b Work<'a, F>,
    pub(super) tile: Tile<'b>,
    pub(super) partials: Range<usize>,
    pub(super) kv_head: usize,
}

impl<F: Format> Kernel for SpanTask<'_, '_, F> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self {
            work,
            tile,
            partials,
            kv_head,
        } = self;
        let queries = tile.rows * work.group();
        for partial in partials {
            let mut first = 0;
            while first < queries {
                let left = queries - first;
                first += if left >= 8 && accumulators::<I>() >= 8 {
                    work.partial::<I, 8>(isa, &tile, kv_head, partial, first)
                } else if left >= 4 {
                    work.partial::<I, 4>(isa, &tile, kv_head, partial, first)
                } else if left == 3 {
                    work.partial::<I, 3>(isa, &tile, kv_head, partial, first)
                } else if left == 2 {
                    work.partial::<I, 2>(isa, &tile, kv_head, partial, first)
                } else {
                    work.partial::<I, 1>(isa, &tile, kv_head, partial, first)
                };
            }
        }
        if tile.slot.is_none() {
            for query in 0..queries {
                let head = kv_head * work.group() + query % work.group();
                let (values, sums) = work.destination(&tile, query / work.group(), head, 0);
                Work::<F>::finish(values, sums[1]);
            }
        }
    }
}

/// Adds the partials of a tile that was cut, for one key and value head.
pub(super) struct Gather<'a, 'b, F: Format> {
    pub(super) work: &'b Work<'a, F>,
    pub(super) tile: Tile<'b>,
    pub(super) kv_head: usize,
}

impl<F: Format> Kernel for Gather<'_, '_, F> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self { work, tile, kv_head } = self;
        let (group, dim) = (work.group(), work.shape.head_dim);
        for query in 0..tile.rows * group {
            let (row, head) = (query / group, kv_head * group + query % group);
            let seen = work.seen(&tile, row);
            let first = seen.start / PARTIAL_POSITIONS;
            let out = work.out.slice(tile.first_row + row, head * dim, dim);
            let (values, sums) = work.destination(&tile, row, head, first);
            out.copy_from_slice(values);
            for partial in first + 1..seen.end.div_ceil(PARTIAL_POSITIONS) {
                let (values, added) = work.destination(&tile, row, head, partial);
                let factors = Work::<F>::add_sums(isa, sums, [added[0], added[1]]);
                for feature_tile in 0..work.shape.tiles() {
                    let from = &values[feature_tile * LANES..];
                    let mut lanes = [0.0; LANES];
                    let count = from.len().min(LANES);
                    lanes[..count].copy_from_slice(&from[..count]);
                    Work::<F>::add_values(isa, out, feature_tile, isa.load(&lanes), factors);
                }
            }
            Work::<F>::finish(out, sums[1]);
        }
    }
}

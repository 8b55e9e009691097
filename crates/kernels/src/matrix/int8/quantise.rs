//! Quantising activations to eight bits, and to more where that is needed.
//!
//! Each 32 neighbouring inputs of a row are a block `scale · q`, as in GGUF runtimes (Q8_0: q in
//! ±127, `scale` the largest magnitude / 127). Alone this is too coarse: the rounding error of a
//! block is proportional to its largest value, and in language models a few inputs are many times
//! larger than their neighbours. Therefore in each half of a block the four neighbouring inputs
//! with the largest value may have q up to ±1,139, with a second byte of multiples of eight. The
//! scale is such that the *second* largest group of four of both halves fits into eight bits. On
//! SmolLM2 (Q4_1) the likeliest token agrees with exact arithmetic at more than 98 % of positions,
//! where plain eight bits agree at 95 to 96 %; the figures are in `docs/performance.md`.
//!
//! This costs two integer products in addition to eight. The rounding of a row depends on the row
//! alone.

use super::rows::{INPUTS, OVER_SHIFT, ROW_UNITS, Rows, TILE, Tile, Unit, tile_rows};
use crate::isa::{Isa, Kernel, LANES, dispatch};
use crate::pool::Pool;
use crate::shared::SharedRows;

/// The unit of `over`.
const STEP: f32 = (1 << OVER_SHIFT) as f32;

/// The largest magnitude with an `over` of 0: half a step less than a byte holds, so that the
/// remainder of a larger value fits into a byte too.
const WITHIN: f32 = 127.0 - STEP / 2.0;

/// The largest magnitude outside each half's largest four. Less than 127, so that rounding cannot
/// exceed a byte.
const MOST: f32 = 126.0;

/// The largest magnitude within each half's largest four.
const MOST_OVER: f32 = WITHIN + 127.0 * STEP;

/// Adding and subtracting 1.5 · 2²³ rounds a float of small magnitude to the nearest integer, ties
/// to even.
const ROUND: f32 = 12_582_912.0;

impl Rows {
    /// Quantises `x`, `[rows, width]`, the width a multiple of 32.
    pub(in crate::matrix) fn quantise(&mut self, pool: &Pool, x: &[f32], width: usize) {
        let (rows, blocks) = (x.len() / width, width / INPUTS);
        (self.rows, self.blocks) = (rows, blocks);
        self.tiles.resize(rows * blocks * ROW_UNITS, [0; 4]);
        let tiles = SharedRows::new(&mut self.tiles, blocks * ROW_UNITS);
        pool.run_chunked(rows.div_ceil(TILE), |tile| {
            let (mut first, end) = (tile * TILE, rows.min((tile + 1) * TILE));
            while first < end {
                let height = tile_rows(end - first);
                let (x, tile) = (&x[first * width..][..height * width], tiles.rows(first, height));
                match height {
                    1 => dispatch(QuantiseRows::<1>::new(x, width, tile)),
                    2 => dispatch(QuantiseRows::<2>::new(x, width, tile)),
                    4 => dispatch(QuantiseRows::<4>::new(x, width, tile)),
                    _ => dispatch(QuantiseRows::<TILE>::new(x, width, tile)),
                }
                first += height;
            }
        });
    }
}

/// Quantises the rows of a tile.
struct QuantiseRows<'a, const T: usize> {
    /// `[T, width]`
    x: &'a [f32],
    width: usize,
    tile: &'a mut [Tile<T>],
}

impl<'a, const T: usize> QuantiseRows<'a, T> {
    fn new(x: &'a [f32], width: usize, tile: &'a mut [Unit]) -> Self {
        let tile = bytemuck::cast_slice_mut(tile);
        Self { x, width, tile }
    }
}

impl<const T: usize> Kernel for QuantiseRows<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for (t, x) in self.x.chunks_exact(self.width).enumerate() {
            for (x, tile) in x.as_chunks::<INPUTS>().0.iter().zip(self.tile.iter_mut()) {
                let [low, high] = x.as_chunks::<LANES>().0 else {
                    unreachable!("two halves")
                };
                put(isa, tile, t, [isa.load(low), isa.load(high)]);
            }
        }
    }
}

/// Quantises a block, two halves, into row `t` of a tile.
#[inline(always)]
fn put<I: Isa, const T: usize>(isa: I, tile: &mut Tile<T>, t: usize, halves: [I::F; 2]) {
    let low = Largest::new(isa.largest_of_fours(halves[0]));
    let high = Largest::new(isa.largest_of_fours(halves[1]));
    let most = f32::from_bits(low.second.max(high.second)) / MOST;
    let most_over = f32::from_bits(low.first.max(high.first)) / MOST_OVER;
    // Compared as bits, so that NaN is the largest and shows in the block's scale.
    let scale = f32::from_bits(most.to_bits().max(most_over.to_bits()));
    let inverse = isa.splat(if scale > f32::MIN_POSITIVE {
        1.0 / scale
    } else {
        0.0
    });
    let mut sums = [0; 2];
    for (half, at) in [low.at, high.at].into_iter().enumerate() {
        let x = isa.mul(halves[half], inverse);
        let x = isa.max(isa.min(x, isa.splat(MOST_OVER)), isa.splat(-MOST_OVER));
        let above = isa.max(isa.sub(x, isa.splat(WITHIN)), isa.splat(0.0));
        let below = isa.min(isa.add(x, isa.splat(WITHIN)), isa.splat(0.0));
        let over = isa.mul(isa.add(above, below), isa.splat(1.0 / STEP));
        let over = isa.sub(isa.add(over, isa.splat(ROUND)), isa.splat(ROUND));
        let mut overs = [0; LANES];
        isa.round_i8(over, &mut overs);
        let q = &mut tile.q[t].as_chunks_mut::<LANES>().0[half];
        isa.round_i8(isa.mul_add(over, isa.splat(-STEP), x), q);
        let over = overs.as_chunks::<4>().0[at];
        tile.over[half][t] = over;
        tile.over_at[half][t] = at as u32;
        let over: i32 = over.iter().map(|over| i32::from(*over)).sum();
        sums[half] = isa.sum_i32(isa.widen_i8(q)) + (over << OVER_SHIFT);
    }
    let sum = sums[0] + sums[1];
    tile.scale[t] = scale;
    tile.sum[t] = scale * sum as f32;
    tile.minus_sum[t] = -sum;
    tile.minus_low_sum[t] = -sums[0];
}

/// The two largest of four magnitudes, as bits, to two bits.
struct Largest {
    first: u32,
    second: u32,
    /// Index of the largest.
    at: usize,
}

impl Largest {
    /// Stores each magnitude's index in its last two bits, so that the largest carries its index.
    /// This needs no branches, which would be unpredictable.
    fn new(magnitudes: [u32; 4]) -> Self {
        let tagged = |index: usize| magnitudes[index] & !3 | index as u32;
        let [a, b, c, d] = [tagged(0), tagged(1), tagged(2), tagged(3)];
        let (left, right) = (a.max(b), c.max(d));
        let first = left.max(right);
        Self {
            first,
            second: left.min(right).max(a.min(b)).max(c.min(d)),
            at: (first & 3) as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The values that a quantised row represents.
    fn values(rows: &Rows) -> Vec<f32> {
        let tiles: &[Tile<1>] = rows.tile(0);
        let mut values = Vec::new();
        for tile in tiles {
            for (i, q) in tile.q[0].iter().enumerate() {
                let (half, four) = (i / LANES, i % LANES / 4);
                let mut q = i32::from(*q);
                if tile.over_at[half][0] as usize == four {
                    q += i32::from(tile.over[half][0][i % 4]) << OVER_SHIFT;
                }
                values.push(tile.scale[0] * q as f32);
            }
        }
        values
    }

    proptest! {
        #[test]
        fn no_input_is_off_by_more_than_half_a_step_of_the_second_largest(
            small in prop::collection::vec(-1f32..1.0, INPUTS),
            large in prop::collection::vec((0..INPUTS, -1e3f32..1e3), 0..3),
            exponent in -30i32..30,
        ) {
            let mut x = small;
            for (at, value) in large {
                x[at] = value;
            }
            x.iter_mut().for_each(|x| *x *= (exponent as f32).exp2());
            let mut rows = Rows::default();
            rows.quantise(&Pool::new(1), &x, INPUTS);
            let fours: Vec<f32> = x.chunks(4).map(|four| four.iter().fold(0f32, |m, x| m.max(x.abs()))).collect();
            let mut step = 0f32;
            for half in fours.chunks(4) {
                let mut half = half.to_vec();
                half.sort_by(f32::total_cmp);
                step = step.max(half[2] / MOST).max(half[3] / MOST_OVER);
            }
            for (got, want) in values(&rows).iter().zip(&x) {
                prop_assert!((got - want).abs() <= 0.5001 * step, "{got} for {want}, in steps of {step}");
            }
        }
    }

    #[test]
    fn nan_and_infinity_show() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = vec![1.0; 2 * INPUTS];
            x[INPUTS + 5] = bad;
            let mut rows = Rows::default();
            rows.quantise(&Pool::new(1), &x, x.len());
            let tiles: &[Tile<1>] = rows.tile(0);
            assert!(tiles[0].scale[0].is_finite(), "{bad} stays in its block");
            assert!(!tiles[1].scale[0].is_finite(), "{bad}");
        }
    }
}

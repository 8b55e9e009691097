//! The products of a group of weights with a tile: exact integer sums, multiplied by their scales.

use super::packed::{Packed, Room, Whole};
use super::rows::{OVER_SHIFT, Tile};
use crate::isa::Isa;

/// Sixteen outputs × 32 inputs, ready to be multiplied.
pub(in crate::matrix) trait Group<I: Isa> {
    /// `sums[t] += Σ_i w[i] · x[t][i]` for each row of a tile and each output. Products with the
    /// same scale are summed exactly.
    fn add_to<const T: usize>(&self, isa: I, sums: &mut [I::F; T], x: &Tile<T>);
}

/// `start` plus the exact sums of products with the parts of a half's inputs beyond eight bits.
#[inline(always)]
fn dot_over<I: Isa, const T: usize, const WIDE: bool>(
    isa: I,
    start: [I::I; T],
    q: &Whole,
    x: &Tile<T>,
    half: usize,
) -> [I::I; T] {
    let mut sums = start;
    each_row!(T, |T_| {
        let w = isa.load_bytes(&q.0[half][x.over_at[half][T_] as usize % 4]);
        sums[T_] = isa.dot_one::<WIDE>(sums[T_], w, &x.over[half][T_]);
    });
    sums
}

/// The exact sums of products of a group with `q - 8·ZERO`.
#[inline(always)]
fn dot<I: Isa, Q: Packed<I>, const T: usize, const ZERO: i32, const WIDE: bool>(
    isa: I,
    q: Q,
    x: &Tile<T>,
) -> [I::I; T] {
    let mut sums = [isa.splat_i32(0); T];
    each_row!(T, |T_| if ZERO != 0 {
        sums[T_] = isa.splat_i32(ZERO * x.minus_sum[T_]);
    });
    let mut room = Room::new();
    let whole = q.in_memory(isa, &mut room);
    let sums = dot_over::<I, T, WIDE>(isa, sums, whole, x, 0);
    let mut sums = dot_over::<I, T, WIDE>(isa, sums, whole, x, 1);
    each_row!(T, |T_| sums[T_] = isa.shift_up_i32(sums[T_], OVER_SHIFT));
    if T < 4 {
        // Two chains, because a single chain of products is bound by latency.
        let zeros = [isa.splat_i32(0); T];
        let low = isa.dot_rows::<T, WIDE>(zeros, q.half(isa, 0), &x.q, 0);
        let high = isa.dot_rows::<T, WIDE>(zeros, q.half(isa, 1), &x.q, 1);
        each_row!(T, |T_| sums[T_] =
            isa.add_i32(sums[T_], isa.add_i32(low[T_], high[T_])));
        sums
    } else {
        let sums = isa.dot_rows::<T, WIDE>(sums, q.half(isa, 0), &x.q, 0);
        isa.dot_rows::<T, WIDE>(sums, q.half(isa, 1), &x.q, 1)
    }
}

/// `scale · (q - 8·ZERO)`; `WIDE` where a `q` has eight bits.
pub(super) struct Symmetric<I: Isa, Q, const ZERO: i32, const WIDE: bool> {
    pub(super) q: Q,
    pub(super) scale: I::F,
}

impl<I: Isa, Q: Packed<I>, const ZERO: i32, const WIDE: bool> Group<I> for Symmetric<I, Q, ZERO, WIDE> {
    #[inline(always)]
    fn add_to<const T: usize>(&self, isa: I, sums: &mut [I::F; T], x: &Tile<T>) {
        let dots = dot::<I, Q, T, ZERO, WIDE>(isa, self.q, x);
        each_row!(T, |T_| {
            let scale = isa.mul(self.scale, isa.splat(x.scale[T_]));
            sums[T_] = isa.mul_add(isa.to_floats(dots[T_]), scale, sums[T_]);
        });
    }
}

/// `scale · q + min`.
pub(super) struct Affine<I: Isa, Q> {
    pub(super) q: Q,
    pub(super) scale: I::F,
    pub(super) min: I::F,
}

impl<I: Isa, Q: Packed<I>> Group<I> for Affine<I, Q> {
    #[inline(always)]
    fn add_to<const T: usize>(&self, isa: I, sums: &mut [I::F; T], x: &Tile<T>) {
        let dots = dot::<I, Q, T, 0, false>(isa, self.q, x);
        each_row!(T, |T_| {
            let scale = isa.mul(self.scale, isa.splat(x.scale[T_]));
            let sum = isa.mul_add(isa.to_floats(dots[T_]), scale, sums[T_]);
            sums[T_] = isa.mul_add(self.min, isa.splat(x.sum[T_]), sum);
        });
    }
}

/// `scale · (q - 32)`, a scale for each half.
pub(super) struct Halved<I: Isa, Q> {
    pub(super) q: Q,
    pub(super) scales: [I::F; 2],
}

impl<I: Isa, Q: Packed<I>> Halved<I, Q> {
    /// The exact sums of products of a half.
    #[inline(always)]
    fn half<const T: usize>(&self, isa: I, whole: &Whole, x: &Tile<T>, half: usize) -> [I::I; T] {
        let mut sums = [isa.splat_i32(0); T];
        each_row!(T, |T_| {
            let minus_sum = if half == 0 {
                x.minus_low_sum[T_]
            } else {
                x.minus_sum[T_] - x.minus_low_sum[T_]
            };
            sums[T_] = isa.splat_i32(4 * minus_sum);
        });
        let mut sums = dot_over::<I, T, false>(isa, sums, whole, x, half);
        each_row!(T, |T_| sums[T_] = isa.shift_up_i32(sums[T_], OVER_SHIFT));
        isa.dot_rows::<T, false>(sums, self.q.half(isa, half), &x.q, half)
    }
}

impl<I: Isa, Q: Packed<I>> Group<I> for Halved<I, Q> {
    #[inline(always)]
    fn add_to<const T: usize>(&self, isa: I, sums: &mut [I::F; T], x: &Tile<T>) {
        let mut room = Room::new();
        let whole = self.q.in_memory(isa, &mut room);
        let low = self.half::<T>(isa, whole, x, 0);
        let high = self.half::<T>(isa, whole, x, 1);
        each_row!(T, |T_| {
            let low = isa.mul(isa.to_floats(low[T_]), self.scales[0]);
            let both = isa.mul_add(isa.to_floats(high[T_]), self.scales[1], low);
            sums[T_] = isa.mul_add(both, isa.splat(x.scale[T_]), sums[T_]);
        });
    }
}

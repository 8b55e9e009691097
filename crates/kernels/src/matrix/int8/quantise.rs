//! Activations in eight bits, as precise as it takes.
//!
//! Each 32 neighbouring inputs of a row are a block `scale · q`, q in ±127, `scale` their largest size / 127. That is
//! what GGUF runtimes do (Q8_0), and alone it is too coarse: the rounding error of a block is proportional to its
//! largest value, and in language models a few inputs are tens of times larger than the others. So a block whose scale
//! is more than [`FINE_FROM`] times the row's median is followed by a second block that holds what the first rounded
//! away, in steps of 1/254 of the first's. On SmolLM2 (Q4_1) about one block in four is such, and the likeliest
//! token agrees with exact arithmetic at 99 positions in a hundred where plain eight bits agree at 95 to 96.
//!
//! Whether a block is fine depends on its row alone.

use crate::isa::{Isa, Kernel, LANES, dispatch};
use crate::pool::Pool;
use crate::shared::SharedRows;

/// Inputs of a block.
pub(in crate::matrix) const INPUTS: usize = 32;

/// Rows that share a byte of [`Rows::masks`]: the largest tile of the product.
pub(super) const GROUP: usize = 8;

/// A block is fine if its scale is more than this many times the median of its row. Of 1.2, 1.3, 1.5 and 2 the largest that
/// keeps SmolLM2 well above 98 positions in a hundred; the figures are in `docs/performance.md`.
const FINE_FROM: f32 = 1.3;

/// How much finer the second block's steps are: the first's rounding error is half a step, 127 steps of the second.
const FINER: f32 = 1.0 / 254.0;

/// 32 inputs of a row: `scale · q`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(in crate::matrix) struct Quantised {
    pub(super) q: [i8; INPUTS],
    pub(super) scale: f32,
    /// `scale · Σ q`
    pub(super) sum: f32,
    /// `-8 · Σ q`: what a weight's zero point of 8 takes off an integer dot product.
    pub(super) minus_eight: i32,
    /// The same over the first sixteen inputs.
    pub(super) minus_eight_low: i32,
}

impl Quantised {
    const ZERO: Self = Self {
        q: [0; INPUTS],
        scale: 0.0,
        sum: 0.0,
        minus_eight: 0,
        minus_eight_low: 0,
    };
}

/// Quantised rows `[rows, blocks]`.
#[derive(Debug, Default)]
pub(in crate::matrix) struct Rows {
    pub(super) rows: usize,
    /// Blocks of a row.
    pub(super) blocks: usize,
    pub(super) coarse: Vec<Quantised>,
    /// What `coarse` rounded away, where the mask says so; anything elsewhere.
    pub(super) fine: Vec<Quantised>,
    /// `[ceil(rows / 8), blocks]`: bit i says whether the block is fine in row 8·g + i.
    pub(super) masks: Vec<u8>,
}

impl Rows {
    /// Quantises `x`, `[rows, width]`, the width a multiple of 32.
    pub(in crate::matrix) fn quantise(&mut self, pool: &Pool, x: &[f32], width: usize) {
        self.rows = x.len() / width;
        self.blocks = width / INPUTS;
        self.coarse.resize(self.rows * self.blocks, Quantised::ZERO);
        self.fine.resize(self.rows * self.blocks, Quantised::ZERO);
        let groups = self.rows.div_ceil(GROUP);
        self.masks.clear();
        self.masks.resize(groups * self.blocks, 0);
        let blocks = self.blocks;
        let coarse = SharedRows::new(&mut self.coarse, blocks);
        let fine = SharedRows::new(&mut self.fine, blocks);
        let masks = SharedRows::new(&mut self.masks, blocks);
        let rows = self.rows;
        pool.run_chunked(groups, |group| {
            let mask = masks.slice(group, 0, blocks);
            for row in group * GROUP..rows.min((group + 1) * GROUP) {
                dispatch(QuantiseRow {
                    x: &x[row * width..][..width],
                    coarse: coarse.slice(row, 0, blocks),
                    fine: fine.slice(row, 0, blocks),
                    mask,
                    bit: 1 << (row % GROUP),
                });
            }
        });
    }
}

struct QuantiseRow<'a> {
    x: &'a [f32],
    coarse: &'a mut [Quantised],
    fine: &'a mut [Quantised],
    mask: &'a mut [u8],
    bit: u8,
}

impl Kernel for QuantiseRow<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let x = self.x.as_chunks::<INPUTS>().0;
        for (x, to) in x.iter().zip(self.coarse.iter_mut()) {
            let scale = largest(isa, x) / 127.0;
            *to = quantised(isa, x, scale);
        }
        let limit = FINE_FROM * median(self.coarse);
        for (b, coarse) in self.coarse.iter().enumerate() {
            if coarse.scale > limit {
                let rest = remainder(isa, &x[b], coarse);
                self.fine[b] = quantised(isa, &rest, coarse.scale * FINER);
                self.mask[b] |= self.bit;
            }
        }
    }
}

/// The largest size; NaN if that is infinite or there is a NaN, so that it shows in the result.
#[inline(always)]
fn largest<I: Isa>(isa: I, x: &[f32; INPUTS]) -> f32 {
    let [low, high] = halves(x);
    let (low, high) = (isa.load(low), isa.load(high));
    let zero = isa.splat(0.0);
    let (low_size, high_size) = (
        isa.max(low, isa.sub(zero, low)),
        isa.max(high, isa.sub(zero, high)),
    );
    let mut lanes = [0.0f32; LANES];
    isa.store(isa.max(low_size, high_size), &mut lanes);
    for width in [8, 4, 2, 1] {
        for i in 0..width {
            lanes[i] = if lanes[i] > lanes[i + width] {
                lanes[i]
            } else {
                lanes[i + width]
            };
        }
    }
    // 0·x is NaN exactly for those.
    lanes[0] + isa.sum(isa.mul(zero, isa.add(low, high)))
}

#[inline(always)]
pub(super) fn halves<T>(x: &[T; INPUTS]) -> [&[T; LANES]; 2] {
    let (chunks, _) = x.as_chunks::<LANES>();
    [&chunks[0], &chunks[1]]
}

#[inline(always)]
fn quantised<I: Isa>(isa: I, x: &[f32; INPUTS], scale: f32) -> Quantised {
    let inverse = isa.splat(if scale > f32::MIN_POSITIVE {
        1.0 / scale
    } else {
        0.0
    });
    let (most, least) = (isa.splat(127.0), isa.splat(-127.0));
    let mut to = Quantised::ZERO;
    let mut sums = [0; 2];
    for (half, (x, q)) in halves(x)
        .into_iter()
        .zip(to.q.as_chunks_mut::<LANES>().0)
        .enumerate()
    {
        let value = isa.max(isa.min(isa.mul(isa.load(x), inverse), most), least);
        isa.round_i8(value, q);
        sums[half] = q.iter().map(|&q| i32::from(q)).sum();
    }
    let sum: i32 = sums[0] + sums[1];
    to.scale = scale;
    to.sum = scale * sum as f32;
    to.minus_eight = -8 * sum;
    to.minus_eight_low = -8 * sums[0];
    to
}

/// `x - scale · q`.
#[inline(always)]
fn remainder<I: Isa>(isa: I, x: &[f32; INPUTS], coarse: &Quantised) -> [f32; INPUTS] {
    let mut rest = [0.0; INPUTS];
    let minus_scale = isa.splat(-coarse.scale);
    let to = rest.as_chunks_mut::<LANES>().0;
    let q = coarse.q.as_chunks::<LANES>().0;
    for ((x, q), to) in halves(x).into_iter().zip(q).zip(to) {
        isa.store(isa.mul_add(isa.load_i8(q), minus_scale, isa.load(x)), to);
    }
    rest
}

/// The median of the blocks' scales, of two the larger.
fn median(blocks: &[Quantised]) -> f32 {
    let mut scales: smallvec::SmallVec<[f32; 128]> = blocks.iter().map(|block| block.scale).collect();
    let middle = scales.len() / 2;
    *scales.select_nth_unstable_by(middle, f32::total_cmp).1
}

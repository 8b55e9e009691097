//! Activations in eight bits, as precise as it takes.
//!
//! Each 32 neighbouring inputs of a row are a block `scale · q`, q in ±127, `scale` their largest size / 127. That is
//! what GGUF runtimes do (Q8_0), and alone it is too coarse: the rounding error of a block is proportional to its
//! largest value, and in language models a few inputs are many times larger than the others. So inputs that are larger
//! than the median of the row's blocks' largest are left out of their block and multiplied in float32, as *outliers*: on
//! SmolLM2 (Q4_1) most often one of a block. The likeliest token there agrees with exact arithmetic at more than 98
//! positions in a hundred, where plain eight bits agree at 95 to 96.
//!
//! Whether an input is an outlier depends on its row alone.

use smallvec::SmallVec;

use super::rows::{INPUTS, OUTLIERS, Outlier, ROW_UNITS, Rows, TILE, Tile, Unit, tile_rows};
use crate::isa::{Isa, Kernel, LANES, dispatch};
use crate::pool::Pool;
use crate::shared::SharedRows;

impl Rows {
    /// Quantises `x`, `[rows, width]`, the width a multiple of 32.
    pub(in crate::matrix) fn quantise(&mut self, pool: &Pool, x: &[f32], width: usize) {
        let (rows, blocks) = (x.len() / width, width / INPUTS);
        (self.rows, self.blocks) = (rows, blocks);
        self.tiles.resize(rows * blocks * ROW_UNITS, [0; 4]);
        self.outliers.resize(rows * blocks * OUTLIERS, Outlier::default());
        self.counts.resize(rows, 0);
        let tiles = SharedRows::new(&mut self.tiles, blocks * ROW_UNITS);
        let outliers = SharedRows::new(&mut self.outliers, blocks * OUTLIERS);
        let counts = SharedRows::new(&mut self.counts, 1);
        pool.run_chunked(rows.div_ceil(TILE), |tile| {
            let (mut first, end) = (tile * TILE, rows.min((tile + 1) * TILE));
            while first < end {
                let height = tile_rows(end - first);
                let task = QuantiseTile {
                    x: &x[first * width..][..height * width],
                    width,
                    tile: tiles.rows(first, height),
                    outliers: outliers.rows(first, height),
                };
                counts.slice(first, 0, 1)[0] = match height {
                    1 => dispatch(task.of::<1>()),
                    2 => dispatch(task.of::<2>()),
                    4 => dispatch(task.of::<4>()),
                    _ => dispatch(task.of::<TILE>()),
                };
                first += height;
            }
        });
    }
}

struct QuantiseTile<'a> {
    /// `[T, width]`
    x: &'a [f32],
    width: usize,
    tile: &'a mut [Unit],
    outliers: &'a mut [Outlier],
}

impl<'a> QuantiseTile<'a> {
    fn of<const T: usize>(self) -> QuantiseRows<'a, T> {
        QuantiseRows {
            x: self.x,
            width: self.width,
            tile: bytemuck::cast_slice_mut(self.tile),
            outliers: self.outliers,
        }
    }
}

/// Quantises the rows of a tile and returns how many outliers they have.
struct QuantiseRows<'a, const T: usize> {
    x: &'a [f32],
    width: usize,
    tile: &'a mut [Tile<T>],
    outliers: &'a mut [Outlier],
}

impl<const T: usize> Kernel for QuantiseRows<'_, T> {
    type Output = u32;
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> u32 {
        let mut found: [SmallVec<[Outlier; 32]>; T] = std::array::from_fn(|_| SmallVec::new());
        for (t, (x, found)) in self.x.chunks_exact(self.width).zip(&mut found).enumerate() {
            let x = x.as_chunks::<INPUTS>().0;
            let mut sizes: SmallVec<[f32; 128]> = SmallVec::new();
            sizes.extend(x.iter().map(|_| 0.0));
            for (x, size) in x.iter().zip(&mut sizes) {
                *size = largest(isa, x);
            }
            // Of 0.9 to 1.3 times the median: the figures that chose it are in `docs/performance.md`.
            let limit = median(&sizes);
            for ((b, x), size) in x.iter().enumerate().zip(&sizes) {
                if *size > limit {
                    let mut others = *x;
                    leave_out(&mut others, b, t, limit, found);
                    let size = largest(isa, &others);
                    put(isa, &mut self.tile[b], t, &others, size);
                } else {
                    put(isa, &mut self.tile[b], t, x, *size);
                }
            }
        }
        let mut count = 0;
        let most = found.iter().map(SmallVec::len).max().unwrap_or(0);
        for index in 0..most {
            for outlier in found.iter().filter_map(|found| found.get(index)) {
                self.outliers[count as usize] = *outlier;
                count += 1;
            }
        }
        count
    }
}

/// The largest size. NaN is larger than all.
#[inline(always)]
fn largest<I: Isa>(isa: I, x: &[f32; INPUTS]) -> f32 {
    let [low, high] = halves(x);
    f32::from_bits(isa.largest_bits(isa.load(low), isa.load(high)))
}

#[inline(always)]
fn halves<T>(x: &[T; INPUTS]) -> [&[T; LANES]; 2] {
    let (chunks, _) = x.as_chunks::<LANES>();
    [&chunks[0], &chunks[1]]
}

/// Moves the inputs of block `b` that are over the limit to `found`, and leaves 0 in their place; unless they are more
/// than [`OUTLIERS`]: such a block is large as a whole, and nothing in it suffers from its neighbours.
fn leave_out(x: &mut [f32; INPUTS], b: usize, row: usize, limit: f32, found: &mut SmallVec<[Outlier; 32]>) {
    // NaN stays in its block, where it shows.
    let mut over = 0u32;
    for (i, x) in x.iter().enumerate() {
        over |= u32::from(x.abs() > limit) << i;
    }
    if over.count_ones() as usize > OUTLIERS {
        return;
    }
    while over != 0 {
        let i = over.trailing_zeros() as usize;
        over &= over - 1;
        found.push(Outlier {
            input: (b * INPUTS + i) as u32,
            row: row as u32,
            x: x[i],
        });
        x[i] = 0.0;
    }
}

/// Quantises a block whose largest size is `size` into row `t` of a tile.
#[inline(always)]
fn put<I: Isa, const T: usize>(isa: I, tile: &mut Tile<T>, t: usize, x: &[f32; INPUTS], size: f32) {
    let scale = size / 127.0;
    let inverse = isa.splat(if scale > f32::MIN_POSITIVE {
        1.0 / scale
    } else {
        0.0
    });
    let (most, least) = (isa.splat(127.0), isa.splat(-127.0));
    let [x_low, x_high] = halves(x);
    let low = isa.max(isa.min(isa.mul(isa.load(x_low), inverse), most), least);
    let high = isa.max(isa.min(isa.mul(isa.load(x_high), inverse), most), least);
    let [q_low, q_high] = tile.q[t].as_chunks_mut::<LANES>().0 else {
        unreachable!("two halves")
    };
    isa.round_i8(low, q_low);
    isa.round_i8(high, q_high);
    let low = isa.sum_i32(isa.widen_i8(q_low));
    let sum = low + isa.sum_i32(isa.widen_i8(q_high));
    tile.scale[t] = scale;
    tile.sum[t] = scale * sum as f32;
    tile.minus_eight[t] = -8 * sum;
    tile.minus_eight_low[t] = -8 * low;
}

/// The median, of two the larger.
fn median(sizes: &[f32]) -> f32 {
    let mut sizes: SmallVec<[f32; 128]> = SmallVec::from_slice(sizes);
    let middle = sizes.len() / 2;
    *sizes.select_nth_unstable_by(middle, f32::total_cmp).1
}

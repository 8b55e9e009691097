//! Low-rank updates for the rows of many adapters at once: shrink `h = s·A·x`, expand `y += B·h`
//! (the SGMV of Punica, Chen et al. 2023, arXiv 2310.18547).
//!
//! The rows of one adapter are neighbours in a step; together they are a *segment*. Work is split
//! by segment and by columns. Ranks are not padded to the largest of the step, but A is stored in
//! groups of four ranks. The order of a row's sums depends on its adapter alone.

mod dtype;
mod shrink;

use crate::isa::dispatch;
use crate::matrix::{ActivationScratch, Activations, PackedMatrix, Prefetch, Target, overlap};
use crate::pool::Pool;
use crate::shared::SharedRows;
pub use dtype::LoraDtype;
use shrink::{RANKS, ROWS, Shrink, ShrinkTile};

/// A low-rank update of one linear map, packed.
#[derive(Debug)]
pub struct PackedLora {
    rank: usize,
    inp: usize,
    /// `[rank]`
    scalings: Vec<f32>,
    a: Shrink,
    /// `[out, rank]`
    b: PackedMatrix,
}

impl PackedLora {
    /// Packs A `[rank, in]` and B `[out, rank]`, both row-major.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn new(a: &[f32], b: &[f32], rank: usize, scaling: f32, dtype: LoraDtype) -> Self {
        Self::stacked(a, b, vec![scaling; rank], dtype)
    }

    /// Packs a sum of updates that are stacked into one: each rank has its own scaling in
    /// `scalings`, `[rank]`.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn stacked(a: &[f32], b: &[f32], scalings: Vec<f32>, dtype: LoraDtype) -> Self {
        let rank = scalings.len();
        assert!(
            rank > 0 && a.len().is_multiple_of(rank) && b.len().is_multiple_of(rank),
            "A and B of rank {rank}"
        );
        let (inp, out) = (a.len() / rank, b.len() / rank);
        let b = match dtype {
            LoraDtype::F32 => PackedMatrix::from_f32(b, out, rank),
            LoraDtype::Bf16 => PackedMatrix::from_f32_as_bf16(b, out, rank),
            LoraDtype::Int8 => PackedMatrix::from_f32_as_int8(b, out, rank),
        };
        Self {
            rank,
            inp,
            scalings,
            a: Shrink::new(a, inp, dtype),
            b,
        }
    }

    /// Memory of an update once it is packed, in bytes.
    pub fn size(rank: usize, inp: usize, out: usize, dtype: LoraDtype) -> usize {
        Shrink::size(rank, inp, dtype) + PackedMatrix::float_size(out, rank, dtype)
    }

    /// The rank.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Memory, in bytes.
    pub fn bytes(&self) -> usize {
        self.b.bytes() + self.a.bytes()
    }

    /// The packed A and B as bytes, for prefetching.
    pub fn memory(&self) -> [&[u8]; 2] {
        [self.a.memory(), self.b.memory()]
    }
}

/// Neighbouring rows of one adapter, and the adapter's update of a linear map.
#[derive(Clone, Copy, Debug)]
pub struct LoraSegment<'a> {
    /// The first row.
    pub start: usize,
    /// Number of rows.
    pub rows: usize,
    /// The update.
    pub lora: &'a PackedLora,
    /// Columns of the output where the map's outputs begin.
    pub at: usize,
    /// Factor of the update for these rows, besides its own scaling. 1 does not change a bit.
    pub scale: f32,
}

/// Adds each segment's update: `out[r, at..] += scale · scaling · B·(A·x[r])`.
///
/// `x` is `[rows, in]`, `out` is `[rows, stride]`. Segments may cover the same rows if their
/// columns differ (the maps that share an input). `shrunk` is scratch.
///
/// # Panics
/// If sizes do not fit.
pub fn add_lora(
    pool: &Pool,
    segments: &[LoraSegment<'_>],
    x: &[f32],
    out: &mut [f32],
    stride: usize,
    shrunk: &mut Vec<f32>,
) {
    if segments.is_empty() {
        return;
    }
    // The start of each segment's shrunk rows, and its tasks.
    let mut starts = Vec::with_capacity(segments.len());
    let mut tasks = Vec::with_capacity(segments.len());
    let (mut len, mut count) = (0, 0);
    for segment in segments {
        starts.push(len);
        tasks.push(count);
        len += segment.rows * segment.lora.rank;
        count += segment.lora.rank.div_ceil(RANKS) * row_tiles(segment.rows);
    }
    shrunk.clear();
    shrunk.resize(len, 0.0);

    let shared = SharedRows::new(shrunk, len);
    pool.run_chunked(count, |task| {
        let s = tasks.partition_point(|first| *first <= task) - 1;
        let LoraSegment {
            start,
            rows,
            lora,
            scale,
            ..
        } = segments[s];
        let (group, tile) = (
            (task - tasks[s]) / row_tiles(rows),
            (task - tasks[s]) % row_tiles(rows),
        );
        // Rows in fours first, then the rest one by one.
        let (first, height) = match tile < rows / ROWS {
            true => (tile * ROWS, ROWS),
            false => (rows / ROWS * ROWS + tile - rows / ROWS, 1),
        };
        dispatch(ShrinkTile {
            a: &lora.a,
            group,
            x: &x[(start + first) * lora.inp..][..height * lora.inp],
            inp: lora.inp,
            scalings: &lora.scalings,
            scale,
            rank: lora.rank,
            to: shared,
            at: starts[s] + first * lora.rank,
        });
    });

    let out = SharedRows::new(out, stride);
    let panels = segments.iter().map(|segment| segment.lora.b.panels()).sum();
    pool.run_ranges(panels, |range| {
        let mut first = 0;
        let mut scratch = ActivationScratch::default();
        for (segment, at_shrunk) in segments.iter().zip(&starts) {
            let LoraSegment {
                start,
                rows,
                lora,
                at,
                ..
            } = *segment;
            let its = overlap(&range, first, lora.b.panels());
            first += lora.b.panels();
            if its.is_empty() {
                continue;
            }
            let h = Activations::new(&shrunk[*at_shrunk..][..rows * lora.rank], lora.rank, &mut scratch);
            let to = Target {
                out,
                row: start,
                at,
                width: lora.b.out(),
                adds: true,
            };
            lora.b.multiply_panels(its, &h, to, Prefetch::NOTHING);
        }
    });
}

/// Number of row tiles of a segment when it is shrunk.
fn row_tiles(rows: usize) -> usize {
    rows / ROWS + rows % ROWS
}

#[cfg(test)]
mod tests {
    use half::bf16;
    use proptest::prelude::*;

    use super::*;
    use crate::isa::LANES;
    use crate::scaled::ScaledInt8;

    const DTYPES: [LoraDtype; 3] = [LoraDtype::F32, LoraDtype::Bf16, LoraDtype::Int8];

    /// Stores A, `[rank, in]`, in this type.
    fn kept_a(a: &[f32], inp: usize, dtype: LoraDtype) -> Vec<f32> {
        match dtype {
            LoraDtype::F32 => a.to_vec(),
            LoraDtype::Bf16 => a.iter().map(|&x| bf16::from_f32(x).to_f32()).collect(),
            LoraDtype::Int8 => a
                .chunks(inp)
                .flat_map(|row| row.chunks(LANES))
                .flat_map(|weights| {
                    let mut lanes = [0.0; LANES];
                    lanes[..weights.len()].copy_from_slice(weights);
                    let kept = ScaledInt8::new(&lanes);
                    (0..weights.len()).map(move |lane| kept.weight(lane))
                })
                .collect(),
        }
    }

    /// Stores B, `[out, rank]`, in this type.
    fn kept_b(lora: &PackedLora) -> Vec<f32> {
        let mut b = vec![0.0; lora.b.out() * lora.rank];
        for (o, row) in b.chunks_exact_mut(lora.rank).enumerate() {
            lora.b.row(o, row);
        }
        b
    }

    fn noise(seed: u64, len: usize) -> Vec<f32> {
        (0..len)
            .map(|i| ((seed % 997) as f64 + i as f64 * 12.9898).sin() as f32)
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn updates_are_their_formula_and_do_not_see_each_other(
            inp in 1usize..90, out in 1usize..40,
            shape in prop::collection::vec((1usize..11, 1usize..20), 1..5),
            dtype in prop::sample::select(&DTYPES), seed: u64,
        ) {
            let raw: Vec<(Vec<f32>, Vec<f32>)> = shape.iter().enumerate().map(|(i, &(_, rank))| {
                (noise(seed ^ i as u64, rank * inp), noise(seed ^ (i + 50) as u64, out * rank))
            }).collect();
            let packed: Vec<PackedLora> = raw.iter().zip(&shape)
                .map(|((a, b), &(_, rank))| PackedLora::new(a, b, rank, 0.5, dtype)).collect();
            let kept: Vec<(Vec<f32>, Vec<f32>)> = raw.iter().zip(&packed)
                .map(|((a, _), lora)| (kept_a(a, inp, dtype), kept_b(lora))).collect();
            let rows: usize = shape.iter().map(|s| s.0).sum();
            let x = noise(seed ^ 1234, rows * inp);
            let stride = out + 3;
            let mut start = 0;
            let segments: Vec<LoraSegment<'_>> = shape.iter().zip(&packed).map(|(&(rows, _), lora)| {
                let segment = LoraSegment { start, rows, lora, at: 2, scale: rows as f32 - 2.0 };
                start += rows;
                segment
            }).collect();
            let mut got = vec![1.0; rows * stride];
            add_lora(&Pool::new(2), &segments, &x, &mut got, stride, &mut Vec::new());
            for (segment, ((a, b), &(_, rank))) in segments.iter().zip(kept.iter().zip(&shape)) {
                for row in segment.start..segment.start + segment.rows {
                    for o in 0..out {
                        let want = 1.0 + 0.5 * f64::from(segment.scale) * (0..rank).map(|r| {
                            let h: f64 = (0..inp).map(|i| f64::from(a[r * inp + i]) * f64::from(x[row * inp + i])).sum();
                            f64::from(b[o * rank + r]) * h
                        }).sum::<f64>();
                        let value = f64::from(got[row * stride + 2 + o]);
                        prop_assert!((value - want).abs() < 1e-4 * (1.0 + want.abs()), "{value} for {want}");
                    }
                    prop_assert_eq!(&got[row * stride..row * stride + 2], &[1.0, 1.0]);
                    // The row alone gives the same bits.
                    let alone = LoraSegment { start: 0, rows: 1, ..*segment };
                    let mut single = vec![1.0; stride];
                    add_lora(&Pool::new(1), &[alone], &x[row * inp..][..inp], &mut single, stride, &mut Vec::new());
                    prop_assert_eq!(&single[..], &got[row * stride..][..stride]);
                }
            }
        }
    }

    /// Normally distributed numbers (Box and Muller 1958) of a linear congruential generator
    /// (Knuth's MMIX).
    fn gaussian(mut state: u64, len: usize) -> Vec<f32> {
        let mut uniform = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((state >> 11) as f64 + 1.0) / (1u64 << 53) as f64
        };
        (0..len)
            .map(|_| ((-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos()) as f32)
            .collect()
    }

    /// The root mean square error of updates, relative to that of the exact ones, is as documented.
    #[test]
    fn eight_bits_are_within_a_hundredth_and_take_nine_sixteenths() {
        for (rank, inp, out) in [(1, 576, 192), (8, 576, 576), (16, 1536, 576), (64, 2048, 2048)] {
            let (a, b) = (gaussian(1, rank * inp), gaussian(2, out * rank));
            let x = gaussian(3, 4 * inp);
            let pack = |dtype| PackedLora::new(&a, &b, rank, 2.0, dtype);
            let update = |lora: &PackedLora| {
                let mut y = vec![0.0; 4 * out];
                let segment = LoraSegment {
                    start: 0,
                    rows: 4,
                    lora,
                    at: 0,
                    scale: 1.0,
                };
                add_lora(&Pool::new(1), &[segment], &x, &mut y, out, &mut Vec::new());
                y
            };
            let exact = update(&pack(LoraDtype::F32));
            let off = |dtype| {
                let kept = update(&pack(dtype));
                let square = |v: f32| f64::from(v) * f64::from(v);
                let error: f64 = exact.iter().zip(kept).map(|(a, b)| square(a - b)).sum();
                (error / exact.iter().map(|v| square(*v)).sum::<f64>()).sqrt()
            };
            let (brain, eight) = (off(LoraDtype::Bf16), off(LoraDtype::Int8));
            println!("rank {rank}, {inp} to {out}: bf16 {brain:.4}, int8 {eight:.4}");
            assert!(eight < 0.01 && brain < 0.004, "bf16 {brain}, int8 {eight}");
            let bytes = |dtype| pack(dtype).bytes();
            assert_eq!(16 * bytes(LoraDtype::Int8), 9 * bytes(LoraDtype::Bf16));
        }
    }

    #[test]
    fn a_nan_weight_shows_in_every_type() {
        for dtype in DTYPES {
            for (a, b) in [([f32::NAN, 1.0], [1.0, 1.0]), ([1.0, 1.0], [1.0, f32::NAN])] {
                let lora = PackedLora::new(&a, &b, 1, 1.0, dtype);
                let segment = LoraSegment {
                    start: 0,
                    rows: 1,
                    lora: &lora,
                    at: 0,
                    scale: 1.0,
                };
                let mut y = [0.0; 2];
                add_lora(&Pool::new(1), &[segment], &[1.0, 1.0], &mut y, 2, &mut Vec::new());
                assert!(y.iter().any(|y| y.is_nan()), "{dtype:?}: {y:?}");
            }
        }
    }
}

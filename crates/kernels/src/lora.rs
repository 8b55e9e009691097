//! Low-rank updates for the rows of many adapters at once: shrink `h = s·A·x`, expand `y += B·h` (the SGMV of
//! Punica, Chen et al. 2023, arXiv 2310.18547).
//!
//! Rows of a step are ordered so that each adapter's are neighbours, a *segment*. Work is split by segment and by
//! columns; ranks are the adapters' own, nothing is padded to the largest. A row's sums are taken in an order
//! that depends on its adapter alone.

use half::bf16;

use crate::isa::{Isa, Kernel, LANES, dispatch};
use crate::matrix::{ActivationScratch, Activations, PackedMatrix, Target, overlap};
use crate::pool::Pool;
use crate::shared::SharedRows;

/// How adapter weights are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoraDtype {
    /// 32-bit floats.
    F32,
    /// Brain floats: half the memory, the precision most adapters are trained in.
    Bf16,
}

/// A low-rank update of one linear map, packed.
#[derive(Debug)]
pub struct PackedLora {
    rank: usize,
    inp: usize,
    scaling: f32,
    a: Shrink,
    /// `[out, rank]`
    b: PackedMatrix,
}

/// A as it lies in PEFT's file, `[rank, in]`: shrinking is a dot product along each row.
#[derive(Debug)]
enum Shrink {
    F32(Vec<f32>),
    Bf16(Vec<u16>),
}

impl PackedLora {
    /// Packs A `[rank, in]` and B `[out, rank]`, both row-major.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn new(a: &[f32], b: &[f32], rank: usize, scaling: f32, dtype: LoraDtype) -> Self {
        assert!(
            rank > 0 && a.len().is_multiple_of(rank) && b.len().is_multiple_of(rank),
            "A and B of rank {rank}"
        );
        let (inp, out) = (a.len() / rank, b.len() / rank);
        let (a, b) = match dtype {
            LoraDtype::F32 => (Shrink::F32(a.to_vec()), PackedMatrix::from_f32(b, out, rank)),
            LoraDtype::Bf16 => (
                Shrink::Bf16(a.iter().map(|&x| bf16::from_f32(x).to_bits()).collect()),
                PackedMatrix::from_f32_as_bf16(b, out, rank),
            ),
        };
        Self {
            rank,
            inp,
            scaling,
            a,
            b,
        }
    }

    /// The rank.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Memory, in bytes.
    pub fn bytes(&self) -> usize {
        self.b.bytes()
            + match &self.a {
                Shrink::F32(a) => size_of_val(a.as_slice()),
                Shrink::Bf16(a) => size_of_val(a.as_slice()),
            }
    }
}

/// A run of rows under one adapter, and that adapter's update of the map at hand.
#[derive(Clone, Copy, Debug)]
pub struct LoraSegment<'a> {
    /// First row.
    pub start: usize,
    /// Rows.
    pub rows: usize,
    /// The update.
    pub lora: &'a PackedLora,
    /// Columns of the output where the map's outputs begin.
    pub at: usize,
}

/// Adds each segment's update: `out[r, at..] += scaling · B·(A·x[r])`.
///
/// `x` is `[rows, in]`, `out` is `[rows, stride]`. Segments may cover the same rows if their columns differ (the
/// maps that share an input). `shrunk` is scratch.
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
    // Where each segment's shrunk rows begin.
    let mut starts = Vec::with_capacity(segments.len());
    let mut len = 0;
    for segment in segments {
        starts.push(len);
        len += segment.rows * segment.lora.rank;
    }
    shrunk.clear();
    shrunk.resize(len, 0.0);

    let shared = SharedRows::new(shrunk, len);
    let shrink_tasks: Vec<(usize, usize)> = segments
        .iter()
        .enumerate()
        .flat_map(|(s, segment)| (0..segment.rows).map(move |row| (s, row)))
        .collect();
    pool.run_chunked(shrink_tasks.len(), |task| {
        let (s, row) = shrink_tasks[task];
        let LoraSegment { start, lora, .. } = segments[s];
        let x = &x[(start + row) * lora.inp..][..lora.inp];
        dispatch(ShrinkRow {
            lora,
            x,
            out: shared.slice(0, starts[s] + row * lora.rank, lora.rank),
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
            lora.b.multiply_panels(its, &h, to);
        }
    });
}

/// `out = scaling · A·x` for one row.
struct ShrinkRow<'a> {
    lora: &'a PackedLora,
    x: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for ShrinkRow<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self { lora, x, out } = self;
        match &lora.a {
            Shrink::F32(a) => {
                for (out, a) in out.iter_mut().zip(a.chunks_exact(lora.inp)) {
                    *out = lora.scaling * dot::<I, Floats>(isa, a, x);
                }
            }
            Shrink::Bf16(a) => {
                for (out, a) in out.iter_mut().zip(a.chunks_exact(lora.inp)) {
                    *out = lora.scaling * dot::<I, BrainFloats>(isa, a, x);
                }
            }
        }
    }
}

/// How the numbers of A become floats.
trait Stored {
    type Number: Copy;
    fn load<I: Isa>(isa: I, lanes: &[Self::Number; LANES]) -> I::F;
    fn one(number: Self::Number) -> f32;
}

struct Floats;

impl Stored for Floats {
    type Number = f32;
    #[inline(always)]
    fn load<I: Isa>(isa: I, lanes: &[f32; LANES]) -> I::F {
        isa.load(lanes)
    }
    #[inline(always)]
    fn one(number: f32) -> f32 {
        number
    }
}

struct BrainFloats;

impl Stored for BrainFloats {
    type Number = u16;
    #[inline(always)]
    fn load<I: Isa>(isa: I, lanes: &[u16; LANES]) -> I::F {
        isa.load_bf16(lanes)
    }
    #[inline(always)]
    fn one(number: u16) -> f32 {
        bf16::from_bits(number).to_f32()
    }
}

/// `Σ a·x`: four lane sums that take turns, added as (0 + 1) + (2 + 3), then the tree of [`Isa::sum`], then what is
/// left over in order.
#[inline(always)]
fn dot<I: Isa, S: Stored>(isa: I, a: &[S::Number], x: &[f32]) -> f32 {
    let (a_lanes, a_rest) = a.as_chunks::<LANES>();
    let (x_lanes, x_rest) = x.as_chunks::<LANES>();
    let mut sums = [isa.splat(0.0); 4];
    let (a_fours, a_lanes) = a_lanes.as_chunks::<4>();
    let (x_fours, x_lanes) = x_lanes.as_chunks::<4>();
    for (a, x) in a_fours.iter().zip(x_fours) {
        for i in 0..4 {
            sums[i] = isa.mul_add(S::load(isa, &a[i]), isa.load(&x[i]), sums[i]);
        }
    }
    for (a, x) in a_lanes.iter().zip(x_lanes) {
        sums[0] = isa.mul_add(S::load(isa, a), isa.load(x), sums[0]);
    }
    let mut total = isa.sum(isa.add(isa.add(sums[0], sums[1]), isa.add(sums[2], sums[3])));
    for (a, x) in a_rest.iter().zip(x_rest) {
        total = S::one(*a).mul_add(*x, total);
    }
    total
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
            shape in prop::collection::vec((1usize..4, 1usize..20), 1..5),
            bf in any::<bool>(), seed: u64,
        ) {
            let dtype = if bf { LoraDtype::Bf16 } else { LoraDtype::F32 };
            let round = |v: Vec<f32>| -> Vec<f32> {
                if bf { v.iter().map(|&x| bf16::from_f32(x).to_f32()).collect() } else { v }
            };
            let raw: Vec<(Vec<f32>, Vec<f32>)> = shape.iter().enumerate().map(|(i, &(_, rank))| {
                (round(noise(seed ^ i as u64, rank * inp)), round(noise(seed ^ (i + 50) as u64, out * rank)))
            }).collect();
            let packed: Vec<PackedLora> = raw.iter().zip(&shape)
                .map(|((a, b), &(_, rank))| PackedLora::new(a, b, rank, 0.5, dtype)).collect();
            let rows: usize = shape.iter().map(|s| s.0).sum();
            let x = noise(seed ^ 1234, rows * inp);
            let stride = out + 3;
            let mut start = 0;
            let segments: Vec<LoraSegment<'_>> = shape.iter().zip(&packed).map(|(&(rows, _), lora)| {
                let segment = LoraSegment { start, rows, lora, at: 2 };
                start += rows;
                segment
            }).collect();
            let mut got = vec![1.0; rows * stride];
            add_lora(&Pool::new(2), &segments, &x, &mut got, stride, &mut Vec::new());
            for (segment, ((a, b), &(_, rank))) in segments.iter().zip(raw.iter().zip(&shape)) {
                for row in segment.start..segment.start + segment.rows {
                    for o in 0..out {
                        let want = 1.0 + 0.5 * (0..rank).map(|r| {
                            let h: f64 = (0..inp).map(|i| f64::from(a[r * inp + i]) * f64::from(x[row * inp + i])).sum();
                            f64::from(b[o * rank + r]) * h
                        }).sum::<f64>();
                        let value = f64::from(got[row * stride + 2 + o]);
                        prop_assert!((value - want).abs() < 1e-4 * (1.0 + want.abs()), "{value} for {want}");
                    }
                    prop_assert_eq!(&got[row * stride..row * stride + 2], &[1.0, 1.0]);
                    // Alone, the row gives the same bits.
                    let alone = LoraSegment { start: 0, rows: 1, lora: segment.lora, at: 2 };
                    let mut single = vec![1.0; stride];
                    add_lora(&Pool::new(1), &[alone], &x[row * inp..][..inp], &mut single, stride, &mut Vec::new());
                    prop_assert_eq!(&single[..], &got[row * stride..][..stride]);
                }
            }
        }
    }
}

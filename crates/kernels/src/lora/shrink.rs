//! Shrinking: `h = s · A · x` for rows of one adapter.
//!
//! Vector lanes are inputs. A row's sum for one rank is taken over sixteen inputs at a time, in
//! order, lane by lane; then the lanes are added as the tree of [`Isa::sum`].

use half::bf16;

use super::LoraDtype;
use crate::isa::{Isa, Kernel, LANES};
use crate::scaled::ScaledInt8;
use crate::shared::SharedRows;

/// Ranks that are computed in parallel: as many sums as hide the latency of a multiplication.
pub(super) const RANKS: usize = 4;

/// Rows that share each load of A.
pub(super) const ROWS: usize = 4;

/// A `[rank, in]`, stored as `[ceil(rank / 4), ceil(in / 16), 4 ranks, 16 inputs]` and padded with
/// zeros, so that four ranks are one stream from memory.
#[derive(Debug)]
pub(super) enum Shrink {
    F32(Vec<[[f32; LANES]; RANKS]>),
    Bf16(Vec<[[u16; LANES]; RANKS]>),
    Int8(Vec<[ScaledInt8; RANKS]>),
}

impl Shrink {
    pub(super) fn new(a: &[f32], inp: usize, dtype: LoraDtype) -> Self {
        match dtype {
            LoraDtype::F32 => Self::F32(packed(a, inp, |lanes| *lanes)),
            LoraDtype::Bf16 => Self::Bf16(packed(a, inp, |lanes| lanes.map(|x| bf16::from_f32(x).to_bits()))),
            LoraDtype::Int8 => Self::Int8(packed(a, inp, ScaledInt8::new)),
        }
    }

    /// Memory of the matrix, in bytes.
    pub(super) fn size(rank: usize, inp: usize, dtype: LoraDtype) -> usize {
        rank.next_multiple_of(RANKS) * inp.div_ceil(LANES) * dtype.lanes_bytes()
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::F32(a) => size_of_val(a.as_slice()),
            Self::Bf16(a) => size_of_val(a.as_slice()),
            Self::Int8(a) => size_of_val(a.as_slice()),
        }
    }

    /// The stored matrix as bytes.
    pub(super) fn memory(&self) -> &[u8] {
        match self {
            Self::F32(a) => bytemuck::cast_slice(a),
            Self::Bf16(a) => bytemuck::cast_slice(a),
            Self::Int8(a) => bytemuck::cast_slice(a),
        }
    }
}

/// Arranges A; `stored` converts sixteen inputs of a rank to the stored type.
fn packed<S: Copy>(a: &[f32], inp: usize, stored: impl Fn(&[f32; LANES]) -> S) -> Vec<[S; RANKS]> {
    let chunks = inp.div_ceil(LANES);
    let ranks = a.len() / inp;
    let mut packed = vec![[stored(&[0.0; LANES]); RANKS]; ranks.div_ceil(RANKS) * chunks];
    for (rank, row) in a.chunks_exact(inp).enumerate() {
        for (chunk, weights) in row.chunks(LANES).enumerate() {
            let mut lanes = [0.0; LANES];
            lanes[..weights.len()].copy_from_slice(weights);
            packed[rank / RANKS * chunks + chunk][rank % RANKS] = stored(&lanes);
        }
    }
    packed
}

/// Computes four ranks of one to four rows.
pub(super) struct ShrinkTile<'a> {
    pub(super) a: &'a Shrink,
    /// Index of the group of four ranks.
    pub(super) group: usize,
    /// `[rows, in]`, [`ROWS`] rows or one.
    pub(super) x: &'a [f32],
    pub(super) inp: usize,
    /// `[rank]`
    pub(super) scalings: &'a [f32],
    /// Factor of the results.
    pub(super) scale: f32,
    pub(super) rank: usize,
    /// The results of all segments, in one row.
    pub(super) to: SharedRows<'a>,
    /// The start of the results of these rows, `[rows, rank]`.
    pub(super) at: usize,
}

impl Kernel for ShrinkTile<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let chunks = self.inp.div_ceil(LANES);
        let group = self.group * chunks..(self.group + 1) * chunks;
        match (self.a, self.x.len() == ROWS * self.inp) {
            (Shrink::F32(a), true) => self.tile::<I, Floats, ROWS>(isa, &a[group]),
            (Shrink::F32(a), false) => self.tile::<I, Floats, 1>(isa, &a[group]),
            (Shrink::Bf16(a), true) => self.tile::<I, BrainFloats, ROWS>(isa, &a[group]),
            (Shrink::Bf16(a), false) => self.tile::<I, BrainFloats, 1>(isa, &a[group]),
            (Shrink::Int8(a), true) => self.tile::<I, ScaledInt8, ROWS>(isa, &a[group]),
            (Shrink::Int8(a), false) => self.tile::<I, ScaledInt8, 1>(isa, &a[group]),
        }
    }
}

impl ShrinkTile<'_> {
    #[inline(always)]
    fn tile<I: Isa, S: Stored, const T: usize>(&self, isa: I, a: &[[S::Lanes; RANKS]]) {
        let mut sums = [[isa.splat(0.0); RANKS]; T];
        let whole = self.inp / LANES;
        for (chunk, a) in a.iter().take(whole).enumerate() {
            let mut x = [isa.splat(0.0); T];
            for (t, x) in x.iter_mut().enumerate() {
                *x = isa.load(lanes_at(self.x, t * self.inp + chunk * LANES));
            }
            add_products::<I, S, T>(isa, &mut sums, a, &x);
        }
        if let Some(a) = a.get(whole) {
            let mut x = [isa.splat(0.0); T];
            for (t, x) in x.iter_mut().enumerate() {
                let rest = &self.x[t * self.inp + whole * LANES..(t + 1) * self.inp];
                let mut lanes = [0.0; LANES];
                lanes[..rest.len()].copy_from_slice(rest);
                *x = isa.load(&lanes);
            }
            add_products::<I, S, T>(isa, &mut sums, a, &x);
        }
        let first = self.group * RANKS;
        let ranks = RANKS.min(self.rank - first);
        for (t, sums) in sums.into_iter().enumerate() {
            let to = self.to.slice(0, self.at + t * self.rank + first, ranks);
            for ((to, scaling), sum) in to.iter_mut().zip(&self.scalings[first..]).zip(sums) {
                *to = scaling * self.scale * isa.sum(sum);
            }
        }
    }
}

#[inline(always)]
fn lanes_at(x: &[f32], at: usize) -> &[f32; LANES] {
    x[at..].first_chunk().expect("a whole chunk of inputs")
}

#[inline(always)]
fn add_products<I: Isa, S: Stored, const T: usize>(
    isa: I,
    sums: &mut [[I::F; RANKS]; T],
    a: &[S::Lanes; RANKS],
    x: &[I::F; T],
) {
    for r in 0..RANKS {
        let a = S::load(isa, &a[r]);
        for t in 0..T {
            sums[t][r] = isa.mul_add(a, x[t], sums[t][r]);
        }
    }
}

/// Converts sixteen stored weights of A to floats.
trait Stored {
    type Lanes;
    fn load<I: Isa>(isa: I, lanes: &Self::Lanes) -> I::F;
}

struct Floats;

impl Stored for Floats {
    type Lanes = [f32; LANES];
    #[inline(always)]
    fn load<I: Isa>(isa: I, lanes: &[f32; LANES]) -> I::F {
        isa.load(lanes)
    }
}

struct BrainFloats;

impl Stored for BrainFloats {
    type Lanes = [u16; LANES];
    #[inline(always)]
    fn load<I: Isa>(isa: I, lanes: &[u16; LANES]) -> I::F {
        isa.load_bf16(lanes)
    }
}

impl Stored for ScaledInt8 {
    type Lanes = Self;
    #[inline(always)]
    fn load<I: Isa>(isa: I, lanes: &Self) -> I::F {
        lanes.load(isa)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::isa::{InstructionSet, dispatch_on};

    proptest! {
        #[test]
        fn every_instruction_set_gives_the_same_bits(
            dtype in prop::sample::select(&[LoraDtype::F32, LoraDtype::Bf16, LoraDtype::Int8][..]),
            inp in 1usize..70, rank in 1usize..6, four: bool,
            numbers in prop::collection::vec(-10f32..10.0, 70 * (RANKS + ROWS + 1)),
        ) {
            let rows = if four { ROWS } else { 1 };
            let (x, rest) = numbers.split_at(rows * inp);
            let a = Shrink::new(&rest[..rank * inp], inp, dtype);
            let scalings = vec![0.7; rank];
            let shrunk = |set| {
                let mut h = vec![0.0; rows * rank];
                let len = h.len();
                for group in 0..rank.div_ceil(RANKS) {
                    let to = SharedRows::new(&mut h, len);
                    dispatch_on(set, ShrinkTile { a: &a, group, x, inp, scalings: &scalings, scale: 1.5, rank, to, at: 0 });
                }
                h
            };
            let expected = shrunk(InstructionSet::Scalar);
            for set in InstructionSet::available() {
                prop_assert_eq!(shrunk(set), expected.clone(), "{} {:?}", set.name(), dtype);
            }
        }
    }
}

//! Shrinking: `h = s · A · x` for rows of one adapter.
//!
//! Vector lanes are inputs. A row's sum for one rank is taken over sixteen inputs at a time, in order, lane by lane;
//! then the lanes are added as the tree of [`Isa::sum`].

use half::bf16;

use super::LoraDtype;
use crate::isa::{Isa, Kernel, LANES};
use crate::shared::SharedRows;

/// Ranks that are computed side by side: as many sums as it takes to hide a multiplication's latency.
pub(super) const RANKS: usize = 4;

/// Rows that share each load of A.
pub(super) const ROWS: usize = 4;

/// A `[rank, in]`, as `[ceil(rank / 4), ceil(in / 16), 4 ranks, 16 inputs]`, zeros where there is none: one stream from
/// memory for four ranks.
#[derive(Debug)]
pub(super) enum Shrink {
    F32(Vec<[[f32; LANES]; RANKS]>),
    Bf16(Vec<[[u16; LANES]; RANKS]>),
}

impl Shrink {
    pub(super) fn new(a: &[f32], inp: usize, dtype: LoraDtype) -> Self {
        match dtype {
            LoraDtype::F32 => Self::F32(packed(a, inp, |x| x)),
            LoraDtype::Bf16 => Self::Bf16(packed(a, inp, |x| bf16::from_f32(x).to_bits())),
        }
    }

    /// What [`Shrink::new`] takes, in bytes.
    pub(super) fn size(rank: usize, inp: usize, dtype: LoraDtype) -> usize {
        rank.next_multiple_of(RANKS) * inp.next_multiple_of(LANES) * dtype.bytes()
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::F32(a) => size_of_val(a.as_slice()),
            Self::Bf16(a) => size_of_val(a.as_slice()),
        }
    }

    /// As it lies in memory.
    pub(super) fn memory(&self) -> &[u8] {
        match self {
            Self::F32(a) => bytemuck::cast_slice(a),
            Self::Bf16(a) => bytemuck::cast_slice(a),
        }
    }
}

fn packed<N: Copy + Default>(a: &[f32], inp: usize, number: impl Fn(f32) -> N) -> Vec<[[N; LANES]; RANKS]> {
    let chunks = inp.div_ceil(LANES);
    let ranks = a.len() / inp;
    let mut packed = vec![[[N::default(); LANES]; RANKS]; ranks.div_ceil(RANKS) * chunks];
    for (rank, row) in a.chunks_exact(inp).enumerate() {
        for (i, weight) in row.iter().enumerate() {
            packed[rank / RANKS * chunks + i / LANES][rank % RANKS][i % LANES] = number(*weight);
        }
    }
    packed
}

/// Four ranks of one to four rows.
pub(super) struct ShrinkTile<'a> {
    pub(super) a: &'a Shrink,
    /// Which four ranks.
    pub(super) group: usize,
    /// `[rows, in]`, [`ROWS`] rows or one.
    pub(super) x: &'a [f32],
    pub(super) inp: usize,
    /// `[rank]`
    pub(super) scalings: &'a [f32],
    /// What they are multiplied by.
    pub(super) scale: f32,
    pub(super) rank: usize,
    /// All segments' results in one row.
    pub(super) to: SharedRows<'a>,
    /// Where those of these rows begin, `[rows, rank]`.
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
        }
    }
}

impl ShrinkTile<'_> {
    #[inline(always)]
    fn tile<I: Isa, S: Stored, const T: usize>(&self, isa: I, a: &[[[S::Number; LANES]; RANKS]]) {
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
    a: &[[S::Number; LANES]; RANKS],
    x: &[I::F; T],
) {
    for r in 0..RANKS {
        let a = S::load(isa, &a[r]);
        for t in 0..T {
            sums[t][r] = isa.mul_add(a, x[t], sums[t][r]);
        }
    }
}

/// How the numbers of A become floats.
trait Stored {
    type Number: Copy;
    fn load<I: Isa>(isa: I, lanes: &[Self::Number; LANES]) -> I::F;
}

struct Floats;

impl Stored for Floats {
    type Number = f32;
    #[inline(always)]
    fn load<I: Isa>(isa: I, lanes: &[f32; LANES]) -> I::F {
        isa.load(lanes)
    }
}

struct BrainFloats;

impl Stored for BrainFloats {
    type Number = u16;
    #[inline(always)]
    fn load<I: Isa>(isa: I, lanes: &[u16; LANES]) -> I::F {
        isa.load_bf16(lanes)
    }
}

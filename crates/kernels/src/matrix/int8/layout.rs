//! The packed layouts: the contents of one *block* of a panel for each storage type.
//!
//! A block covers sixteen outputs × one or eight *groups* of 32 inputs. Sizes equal those in the
//! file, except for Q4_K and Q5_K, whose six-bit scales and minima take a byte each (+0.125 bits
//! per weight).

use bytemuck::{Pod, Zeroable};

use super::group::{Affine, Group, Halved, Symmetric};
use super::packed::{Bits, Crumbs, Nibbles, Whole};
use crate::isa::{Isa, LANES};

/// Sixteen half floats, one per output.
pub(in crate::matrix) type Halves = [u16; LANES];
/// Sixteen bytes, one per output.
pub(in crate::matrix) type Bytes = [u8; LANES];

/// Sixteen outputs × `32 · GROUPS` inputs of one panel.
pub(in crate::matrix) trait Block: Pod + Send + Sync {
    const GROUPS: usize;

    /// Unpacks group `g`. `inline(always)`, like everything that kernels call: code that is not
    /// inlined is compiled without the instruction set.
    fn group<I: Isa>(&self, isa: I, g: usize) -> impl Group<I>;

    /// The weights of the block's input `i`, one for each output, as [`crate::BlockType::decode`]
    /// gives them.
    fn input<I: Isa>(&self, isa: I, i: usize) -> I::F;
}

/// Q8_0: `d·(q - 128)`, where q is the file's value + 128.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(in crate::matrix) struct Q8 {
    pub(in crate::matrix) d: Halves,
    pub(in crate::matrix) q: Whole,
}

impl Block for Q8 {
    const GROUPS: usize = 1;
    #[inline(always)]
    fn group<I: Isa>(&self, isa: I, _: usize) -> impl Group<I> {
        Symmetric::<I, _, 16, true> {
            q: &self.q,
            scale: isa.load_f16(&self.d),
        }
    }
    #[inline(always)]
    fn input<I: Isa>(&self, isa: I, i: usize) -> I::F {
        let q = self.q.input(isa, i);
        isa.mul(isa.load_f16(&self.d), isa.sub(q, isa.splat(128.0)))
    }
}

/// Q4_0: `d·(q - 8)`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(in crate::matrix) struct Q4 {
    pub(in crate::matrix) d: Halves,
    pub(in crate::matrix) low: Nibbles,
}

impl Block for Q4 {
    const GROUPS: usize = 1;
    #[inline(always)]
    fn group<I: Isa>(&self, isa: I, _: usize) -> impl Group<I> {
        Symmetric::<I, _, 1, false> {
            q: &self.low,
            scale: isa.load_f16(&self.d),
        }
    }
    #[inline(always)]
    fn input<I: Isa>(&self, isa: I, i: usize) -> I::F {
        let q = self.low.input(isa, i);
        isa.mul(isa.load_f16(&self.d), isa.sub(q, isa.splat(8.0)))
    }
}

/// Q4_1: `d·q + m`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(in crate::matrix) struct Q4Min {
    pub(in crate::matrix) d: Halves,
    pub(in crate::matrix) m: Halves,
    pub(in crate::matrix) low: Nibbles,
}

impl Block for Q4Min {
    const GROUPS: usize = 1;
    #[inline(always)]
    fn group<I: Isa>(&self, isa: I, _: usize) -> impl Group<I> {
        Affine {
            q: &self.low,
            scale: isa.load_f16(&self.d),
            min: isa.load_f16(&self.m),
        }
    }
    #[inline(always)]
    fn input<I: Isa>(&self, isa: I, i: usize) -> I::F {
        let q = self.low.input(isa, i);
        isa.add(isa.mul(isa.load_f16(&self.d), q), isa.load_f16(&self.m))
    }
}

/// Q5_0: `d·(q - 16)`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(in crate::matrix) struct Q5 {
    pub(in crate::matrix) d: Halves,
    pub(in crate::matrix) high: Bits,
    pub(in crate::matrix) low: Nibbles,
}

impl Block for Q5 {
    const GROUPS: usize = 1;
    #[inline(always)]
    fn group<I: Isa>(&self, isa: I, _: usize) -> impl Group<I> {
        Symmetric::<I, _, 2, false> {
            q: (&self.low, &self.high),
            scale: isa.load_f16(&self.d),
        }
    }
    #[inline(always)]
    fn input<I: Isa>(&self, isa: I, i: usize) -> I::F {
        let q = self.high.input(isa, i, self.low.input(isa, i));
        isa.mul(isa.load_f16(&self.d), isa.sub(q, isa.splat(16.0)))
    }
}

/// Q5_1: `d·q + m`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(in crate::matrix) struct Q5Min {
    pub(in crate::matrix) d: Halves,
    pub(in crate::matrix) m: Halves,
    pub(in crate::matrix) high: Bits,
    pub(in crate::matrix) low: Nibbles,
}

impl Block for Q5Min {
    const GROUPS: usize = 1;
    #[inline(always)]
    fn group<I: Isa>(&self, isa: I, _: usize) -> impl Group<I> {
        Affine {
            q: (&self.low, &self.high),
            scale: isa.load_f16(&self.d),
            min: isa.load_f16(&self.m),
        }
    }
    #[inline(always)]
    fn input<I: Isa>(&self, isa: I, i: usize) -> I::F {
        let q = self.high.input(isa, i, self.low.input(isa, i));
        isa.add(isa.mul(isa.load_f16(&self.d), q), isa.load_f16(&self.m))
    }
}

/// Scales `d·s` and minima `-dmin·m` of eight groups of Q4_K or Q5_K.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(in crate::matrix) struct Scales {
    pub(in crate::matrix) d: Halves,
    pub(in crate::matrix) dmin: Halves,
    pub(in crate::matrix) s: [Bytes; 8],
    pub(in crate::matrix) m: [Bytes; 8],
}

impl Scales {
    #[inline(always)]
    fn group<I: Isa, Q>(&self, isa: I, g: usize, q: Q) -> Affine<I, Q> {
        let min = isa.mul(isa.load_f16(&self.dmin), isa.load_u8(&self.m[g]));
        Affine {
            q,
            scale: isa.mul(isa.load_f16(&self.d), isa.load_u8(&self.s[g])),
            min: isa.sub(isa.splat(0.0), min),
        }
    }

    /// The weights that the bits of one input of group `g` represent.
    #[inline(always)]
    fn input<I: Isa>(&self, isa: I, g: usize, q: I::F) -> I::F {
        let scale = isa.mul(isa.load_f16(&self.d), isa.load_u8(&self.s[g]));
        let min = isa.mul(isa.load_f16(&self.dmin), isa.load_u8(&self.m[g]));
        isa.sub(isa.mul(scale, q), min)
    }
}

/// Q4_K: eight groups, `d·s·q - dmin·m`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(in crate::matrix) struct Q4K {
    pub(in crate::matrix) scales: Scales,
    pub(in crate::matrix) low: [Nibbles; 8],
}

impl Block for Q4K {
    const GROUPS: usize = 8;
    #[inline(always)]
    fn group<I: Isa>(&self, isa: I, g: usize) -> impl Group<I> {
        self.scales.group(isa, g, &self.low[g])
    }
    #[inline(always)]
    fn input<I: Isa>(&self, isa: I, i: usize) -> I::F {
        let (g, i) = (i / 32, i % 32);
        self.scales.input(isa, g, self.low[g].input(isa, i))
    }
}

/// Q5_K: as Q4_K with a fifth bit.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(in crate::matrix) struct Q5K {
    pub(in crate::matrix) scales: Scales,
    pub(in crate::matrix) high: [Bits; 8],
    pub(in crate::matrix) low: [Nibbles; 8],
}

impl Block for Q5K {
    const GROUPS: usize = 8;
    #[inline(always)]
    fn group<I: Isa>(&self, isa: I, g: usize) -> impl Group<I> {
        self.scales.group(isa, g, (&self.low[g], &self.high[g]))
    }
    #[inline(always)]
    fn input<I: Isa>(&self, isa: I, i: usize) -> I::F {
        let (g, i) = (i / 32, i % 32);
        let q = self.high[g].input(isa, i, self.low[g].input(isa, i));
        self.scales.input(isa, g, q)
    }
}

/// Q6_K: eight groups of two halves, `d·s·(q - 32)`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(in crate::matrix) struct Q6K {
    pub(in crate::matrix) d: Halves,
    pub(in crate::matrix) s: [[i8; LANES]; 16],
    pub(in crate::matrix) high: [Crumbs; 8],
    pub(in crate::matrix) low: [Nibbles; 8],
}

impl Block for Q6K {
    const GROUPS: usize = 8;
    #[inline(always)]
    fn group<I: Isa>(&self, isa: I, g: usize) -> impl Group<I> {
        let d = isa.load_f16(&self.d);
        Halved {
            q: (&self.low[g], &self.high[g]),
            scales: [
                isa.mul(d, isa.load_i8(&self.s[2 * g])),
                isa.mul(d, isa.load_i8(&self.s[2 * g + 1])),
            ],
        }
    }
    #[inline(always)]
    fn input<I: Isa>(&self, isa: I, i: usize) -> I::F {
        let (g, s, i) = (i / 32, isa.load_i8(&self.s[i / 16]), i % 32);
        let q = self.high[g].input(isa, i, self.low[g].input(isa, i));
        isa.mul(isa.mul(isa.load_f16(&self.d), s), isa.sub(q, isa.splat(32.0)))
    }
}

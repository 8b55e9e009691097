//! The packed layouts: what one *block* of a panel holds for each storage type.
//!
//! A block covers sixteen outputs × one or eight *groups* of 32 inputs. A vector holds four neighbouring
//! inputs of each output, an output to a 32-bit lane: the form that integer dot products take. A group is eight such
//! vectors. Sizes are those of the file but for Q4_K and Q5_K, whose six-bit scales and minima take a byte each
//! (+0.125 bits a weight).

use bytemuck::{Pod, Zeroable};

use super::rows::Tile;
use crate::isa::{Isa, LANES};

/// Sixteen half floats, one per output.
pub(in crate::matrix) type Halves = [u16; LANES];
/// Sixteen bytes, one per output.
pub(in crate::matrix) type Bytes = [u8; LANES];
/// Four bytes per output.
pub(in crate::matrix) type Vector = [u8; 4 * LANES];

/// Sixteen outputs × `32 · GROUPS` inputs of one panel.
pub(in crate::matrix) trait Block: Pod + Send + Sync {
    const GROUPS: usize;

    /// Unpacks group `g`. `inline(always)`, as is all that kernels call: code that is left out of line is compiled
    /// without the instruction set.
    fn group<I: Isa>(&self, isa: I, g: usize) -> impl Group<I>;

    /// The weights of the block's input `i`, one for each output: what [`crate::BlockType::decode`] gives.
    fn input<I: Isa>(&self, isa: I, i: usize) -> I::F;
}

/// Sixteen outputs × 32 inputs, unpacked.
pub(in crate::matrix) trait Group<I: Isa> {
    /// `sums[t] += Σ_i w[i] · x[t][i]` for each row of a tile and each output, the block's sum taken exactly.
    fn add_to<const T: usize>(&self, isa: I, sums: &mut [I::F; T], x: &Tile<T>);
}

/// An array of eight, `$v` a constant in each element: built in a loop it would lie in memory and not in registers.
macro_rules! eight {
    ($v:ident => $element:expr) => {
        [
            {
                const $v: usize = 0;
                $element
            },
            {
                const $v: usize = 1;
                $element
            },
            {
                const $v: usize = 2;
                $element
            },
            {
                const $v: usize = 3;
                $element
            },
            {
                const $v: usize = 4;
                $element
            },
            {
                const $v: usize = 5;
                $element
            },
            {
                const $v: usize = 6;
                $element
            },
            {
                const $v: usize = 7;
                $element
            },
        ]
    };
}

/// The exact sums of products of a half group, the low (0) or the high one (1), added to `start`.
#[inline(always)]
fn dot_half<I: Isa, const T: usize, const WIDE: bool>(
    isa: I,
    start: [I::I; T],
    q: &[I::B; 8],
    x: &Tile<T>,
    half: usize,
) -> [I::I; T] {
    let w = if half == 0 {
        [q[0], q[1], q[2], q[3]]
    } else {
        [q[4], q[5], q[6], q[7]]
    };
    isa.dot_rows::<T, WIDE>(start, w, &x.q, half)
}

/// The exact sums of products of a group, added to `start`.
#[inline(always)]
fn dot<I: Isa, const T: usize, const WIDE: bool>(
    isa: I,
    start: [I::I; T],
    q: &[I::B; 8],
    x: &Tile<T>,
) -> [I::I; T] {
    let mut sums = dot_half::<I, T, WIDE>(isa, start, q, x, 0);
    if T < 4 {
        // One chain of products would be as slow as its latency.
        let high = dot_half::<I, T, WIDE>(isa, [isa.splat_i32(0); T], q, x, 1);
        each_row!(T, |T_| sums[T_] = isa.add_i32(sums[T_], high[T_]));
        sums
    } else {
        dot_half::<I, T, WIDE>(isa, sums, q, x, 1)
    }
}

/// `scale · (q - 8·ZERO)`.
struct Symmetric<I: Isa, const ZERO: i32, const WIDE: bool> {
    q: [I::B; 8],
    scale: I::F,
}

impl<I: Isa, const ZERO: i32, const WIDE: bool> Group<I> for Symmetric<I, ZERO, WIDE> {
    #[inline(always)]
    fn add_to<const T: usize>(&self, isa: I, sums: &mut [I::F; T], x: &Tile<T>) {
        let mut start = [isa.splat_i32(0); T];
        each_row!(T, |T_| start[T_] = isa.splat_i32(ZERO * x.minus_eight[T_]));
        let dots = dot::<I, T, WIDE>(isa, start, &self.q, x);
        each_row!(T, |T_| {
            let scale = isa.mul(self.scale, isa.splat(x.scale[T_]));
            sums[T_] = isa.mul_add(isa.to_floats(dots[T_]), scale, sums[T_]);
        });
    }
}

/// `scale · q + min`.
struct Affine<I: Isa> {
    q: [I::B; 8],
    scale: I::F,
    min: I::F,
}

impl<I: Isa> Group<I> for Affine<I> {
    #[inline(always)]
    fn add_to<const T: usize>(&self, isa: I, sums: &mut [I::F; T], x: &Tile<T>) {
        let dots = dot::<I, T, false>(isa, [isa.splat_i32(0); T], &self.q, x);
        each_row!(T, |T_| {
            let scale = isa.mul(self.scale, isa.splat(x.scale[T_]));
            let sum = isa.mul_add(isa.to_floats(dots[T_]), scale, sums[T_]);
            sums[T_] = isa.mul_add(self.min, isa.splat(x.sum[T_]), sum);
        });
    }
}

/// `scale · s · (q - 32)`, an `s` for each half.
struct Halved<I: Isa> {
    q: [I::B; 8],
    s: [I::I; 2],
    scale: I::F,
}

impl<I: Isa> Group<I> for Halved<I> {
    #[inline(always)]
    fn add_to<const T: usize>(&self, isa: I, sums: &mut [I::F; T], x: &Tile<T>) {
        let (mut low, mut high) = ([isa.splat_i32(0); T], [isa.splat_i32(0); T]);
        each_row!(T, |T_| {
            low[T_] = isa.splat_i32(4 * x.minus_eight_low[T_]);
            high[T_] = isa.splat_i32(4 * (x.minus_eight[T_] - x.minus_eight_low[T_]));
        });
        let low = dot_half::<I, T, false>(isa, low, &self.q, x, 0);
        let high = dot_half::<I, T, false>(isa, high, &self.q, x, 1);
        each_row!(T, |T_| {
            let dot = isa.add_i32(isa.mul_i32(low[T_], self.s[0]), isa.mul_i32(high[T_], self.s[1]));
            let scale = isa.mul(self.scale, isa.splat(x.scale[T_]));
            sums[T_] = isa.mul_add(isa.to_floats(dot), scale, sums[T_]);
        });
    }
}

/// Four bits of 32 inputs: vector v has inputs `4v..` in its low and `16 + 4v..` in its high nibbles.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(transparent)]
pub(in crate::matrix) struct Nibbles(pub(in crate::matrix) [Vector; 4]);

impl Nibbles {
    #[inline(always)]
    fn unpack<I: Isa>(&self, isa: I) -> [I::B; 8] {
        eight!(V => {
            let both = isa.load_bytes(&self.0[V % 4]);
            isa.and_bytes(if V < 4 { both } else { isa.shift_down(both, 4) }, 15)
        })
    }

    /// Those of input `i` alone.
    #[inline(always)]
    fn input<I: Isa>(&self, isa: I, i: usize) -> I::F {
        let at = 8 * (i % 4) + 4 * (i / 16);
        isa.to_floats(isa.bits(&self.0[i % 16 / 4], at as u32, 15))
    }

    pub(in crate::matrix) fn set(&mut self, lane: usize, i: usize, q: u8) {
        self.0[i % 16 / 4][4 * lane + i % 4] |= if i < 16 { q } else { q << 4 };
    }
}

/// One bit of 32 inputs: bit v of byte j is that of input `4v + j`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(transparent)]
pub(in crate::matrix) struct Bits(pub(in crate::matrix) Vector);

impl Bits {
    /// The low bits with these as fifth ones.
    #[inline(always)]
    fn above<I: Isa>(&self, isa: I, low: [I::B; 8]) -> [I::B; 8] {
        let bits = isa.load_bytes(&self.0);
        eight!(V => {
            let bit = isa.and_bytes(bits, 1 << V);
            let fifth = if V < 4 { isa.shift_up(bit, 4 - V as u32) } else { isa.shift_down(bit, V as u32 - 4) };
            isa.or_bytes(low[V], fifth)
        })
    }

    /// That of input `i` alone, above the low ones.
    #[inline(always)]
    fn input<I: Isa>(&self, isa: I, i: usize, low: I::F) -> I::F {
        let at = 8 * (i % 4) + i / 4;
        let bit = isa.to_floats(isa.bits(&self.0, at as u32, 1));
        isa.mul_add(bit, isa.splat(16.0), low)
    }

    pub(in crate::matrix) fn set(&mut self, lane: usize, i: usize, bit: u8) {
        self.0[4 * lane + i % 4] |= bit << (i / 4);
    }
}

/// Two bits of 32 inputs: in vector h, bits 2v and 2v+1 of byte j are those of input `16h + 4v + j`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(transparent)]
pub(in crate::matrix) struct Crumbs(pub(in crate::matrix) [Vector; 2]);

impl Crumbs {
    /// The low bits with these as fifth and sixth ones.
    #[inline(always)]
    fn above<I: Isa>(&self, isa: I, low: [I::B; 8]) -> [I::B; 8] {
        let halves = [isa.load_bytes(&self.0[0]), isa.load_bytes(&self.0[1])];
        eight!(V => {
            let at = 2 * (V as u32 % 4);
            let bits = isa.and_bytes(halves[V / 4], 3 << at);
            let bits = if at < 4 { isa.shift_up(bits, 4 - at) } else { isa.shift_down(bits, at - 4) };
            isa.or_bytes(low[V], bits)
        })
    }

    /// Those of input `i` alone, above the low ones.
    #[inline(always)]
    fn input<I: Isa>(&self, isa: I, i: usize, low: I::F) -> I::F {
        let at = 8 * (i % 4) + 2 * (i % 16 / 4);
        let bits = isa.to_floats(isa.bits(&self.0[i / 16], at as u32, 3));
        isa.mul_add(bits, isa.splat(16.0), low)
    }

    pub(in crate::matrix) fn set(&mut self, lane: usize, i: usize, bits: u8) {
        self.0[i / 16][4 * lane + i % 4] |= bits << (2 * (i % 16 / 4));
    }
}

/// Q8_0: `d·(q - 128)`, the file's values + 128.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(in crate::matrix) struct Q8 {
    pub(in crate::matrix) d: Halves,
    /// Vector v has inputs `4v..`.
    pub(in crate::matrix) q: [Vector; 8],
}

impl Block for Q8 {
    const GROUPS: usize = 1;
    #[inline(always)]
    fn group<I: Isa>(&self, isa: I, _: usize) -> impl Group<I> {
        Symmetric::<I, 16, true> {
            q: eight!(V => isa.load_bytes(&self.q[V])),
            scale: isa.load_f16(&self.d),
        }
    }
    #[inline(always)]
    fn input<I: Isa>(&self, isa: I, i: usize) -> I::F {
        let q = isa.to_floats(isa.bits(&self.q[i / 4], 8 * (i as u32 % 4), 255));
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
        Symmetric::<I, 1, false> {
            q: self.low.unpack(isa),
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
            q: self.low.unpack(isa),
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
        Symmetric::<I, 2, false> {
            q: self.high.above(isa, self.low.unpack(isa)),
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
            q: self.high.above(isa, self.low.unpack(isa)),
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

/// What Q4_K and Q5_K have for eight groups: scales `d·s` and minima `-dmin·m`.
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
    fn group<I: Isa>(&self, isa: I, g: usize, q: [I::B; 8]) -> Affine<I> {
        let min = isa.mul(isa.load_f16(&self.dmin), isa.load_u8(&self.m[g]));
        Affine {
            q,
            scale: isa.mul(isa.load_f16(&self.d), isa.load_u8(&self.s[g])),
            min: isa.sub(isa.splat(0.0), min),
        }
    }

    /// What the bits of one input of group `g` stand for.
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
        self.scales.group(isa, g, self.low[g].unpack(isa))
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
        let q = self.high[g].above(isa, self.low[g].unpack(isa));
        self.scales.group(isa, g, q)
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
        Halved {
            q: self.high[g].above(isa, self.low[g].unpack(isa)),
            s: [isa.widen_i8(&self.s[2 * g]), isa.widen_i8(&self.s[2 * g + 1])],
            scale: isa.load_f16(&self.d),
        }
    }
    #[inline(always)]
    fn input<I: Isa>(&self, isa: I, i: usize) -> I::F {
        let (g, s, i) = (i / 32, isa.load_i8(&self.s[i / 16]), i % 32);
        let q = self.high[g].input(isa, i, self.low[g].input(isa, i));
        isa.mul(isa.mul(isa.load_f16(&self.d), s), isa.sub(q, isa.splat(32.0)))
    }
}

//! The packed layouts: what one *block* of a panel holds for each storage type.
//!
//! A block covers sixteen outputs × one or eight *groups* of 32 inputs. A vector holds four neighbouring
//! inputs of each output, an output to a 32-bit lane: the form that integer dot products take. A group is eight such
//! vectors. Sizes are those of the file but for Q4_K and Q5_K, whose six-bit scales and minima take a byte each
//! (+0.125 bits a weight).

use bytemuck::{Pod, Zeroable};

use super::rows::{OVER_SHIFT, Tile};
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

/// Sixteen outputs × 32 inputs, ready to be multiplied.
pub(in crate::matrix) trait Group<I: Isa> {
    /// `sums[t] += Σ_i w[i] · x[t][i]` for each row of a tile and each output. What has one scale is summed exactly.
    fn add_to<const T: usize>(&self, isa: I, sums: &mut [I::F; T], x: &Tile<T>);
}

/// An array of four, `$v` a constant in each element: built in a loop it would lie in memory and not in registers.
macro_rules! four {
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
        ]
    };
}

/// The packed `q` of a group: two halves of four vectors.
trait Packed<I: Isa>: Copy {
    /// A half's four vectors.
    fn half(self, isa: I, half: usize) -> [I::B; 4];

    /// All vectors in memory, where one can be chosen: where they lie, or in `room`.
    #[inline(always)]
    fn in_memory<'a>(self, isa: I, room: &'a mut Room) -> &'a Whole
    where
        Self: 'a,
    {
        for (half, to) in room.0.0.iter_mut().enumerate() {
            for (vector, to) in self.half(isa, half).into_iter().zip(to) {
                isa.store_bytes(vector, to);
            }
        }
        &room.0
    }
}

/// Room for a group's vectors. Each is a cache line: one that lay across two would take twice the time to store.
#[repr(align(64))]
struct Room(Whole);

impl Room {
    #[inline(always)]
    fn new() -> Self {
        Self(Whole([[[0; 4 * LANES]; 4]; 2]))
    }
}

/// `start` and the exact sums of products with what a half's inputs have over eight bits.
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
        // One chain of products would be as slow as its latency.
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
struct Symmetric<I: Isa, Q, const ZERO: i32, const WIDE: bool> {
    q: Q,
    scale: I::F,
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
struct Affine<I: Isa, Q> {
    q: Q,
    scale: I::F,
    min: I::F,
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
struct Halved<I: Isa, Q> {
    q: Q,
    scales: [I::F; 2],
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

/// Eight bits of 32 inputs: vector v of half h has inputs `16h + 4v..`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(transparent)]
pub(in crate::matrix) struct Whole(pub(in crate::matrix) [[Vector; 4]; 2]);

impl<I: Isa> Packed<I> for &Whole {
    #[inline(always)]
    fn half(self, isa: I, half: usize) -> [I::B; 4] {
        four!(V => isa.load_bytes(&self.0[half][V]))
    }
    #[inline(always)]
    fn in_memory<'a>(self, _: I, _: &'a mut Room) -> &'a Whole
    where
        Self: 'a,
    {
        self
    }
}

/// Four bits of 32 inputs: vector v has inputs `4v..` in its low and `16 + 4v..` in its high nibbles.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(transparent)]
pub(in crate::matrix) struct Nibbles(pub(in crate::matrix) [Vector; 4]);

impl Nibbles {
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

impl<I: Isa> Packed<I> for &Nibbles {
    #[inline(always)]
    fn half(self, isa: I, half: usize) -> [I::B; 4] {
        four!(V => {
            let both = isa.load_bytes(&self.0[V]);
            isa.and_bytes(if half == 0 { both } else { isa.shift_down(both, 4) }, 15)
        })
    }
}

/// One bit of 32 inputs: bit v of byte j is that of input `4v + j`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(transparent)]
pub(in crate::matrix) struct Bits(pub(in crate::matrix) Vector);

impl Bits {
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

/// A fifth bit above the low ones.
impl<I: Isa> Packed<I> for (&Nibbles, &Bits) {
    #[inline(always)]
    fn half(self, isa: I, half: usize) -> [I::B; 4] {
        let (low, bits) = (self.0.half(isa, half), isa.load_bytes(&self.1.0));
        four!(V => {
            let bit = isa.and_bytes(bits, 1 << (4 * half + V));
            let fifth = if half == 0 { isa.shift_up(bit, 4 - V as u32) } else { isa.shift_down(bit, V as u32) };
            isa.or_bytes(low[V], fifth)
        })
    }
}

/// Two bits of 32 inputs: in vector h, bits 2v and 2v+1 of byte j are those of input `16h + 4v + j`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(transparent)]
pub(in crate::matrix) struct Crumbs(pub(in crate::matrix) [Vector; 2]);

impl Crumbs {
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

/// A fifth and a sixth bit above the low ones.
impl<I: Isa> Packed<I> for (&Nibbles, &Crumbs) {
    #[inline(always)]
    fn half(self, isa: I, half: usize) -> [I::B; 4] {
        let (low, crumbs) = (self.0.half(isa, half), isa.load_bytes(&self.1.0[half]));
        four!(V => {
            let at = 2 * V as u32;
            let bits = isa.and_bytes(crumbs, 3 << at);
            let bits = if at < 4 { isa.shift_up(bits, 4 - at) } else { isa.shift_down(bits, at - 4) };
            isa.or_bytes(low[V], bits)
        })
    }
}

/// Q8_0: `d·(q - 128)`, the file's values + 128.
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
        let q = isa.to_floats(isa.bits(&self.q.0[i / 16][i % 16 / 4], 8 * (i as u32 % 4), 255));
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
    fn group<I: Isa, Q>(&self, isa: I, g: usize, q: Q) -> Affine<I, Q> {
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

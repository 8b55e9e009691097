//! The packed layouts: what one *block* of a panel holds for each storage type.
//!
//! A block covers sixteen outputs × [`Block::LEN`] inputs. Sizes are those of the file but for Q4_K and Q5_K,
//! whose six-bit scales and minima take a byte each (+0.125 bits a weight).

use bytemuck::{Pod, Zeroable};

use super::product::{Expand, Product, Rows};
use crate::isa::{InstructionSet, Isa, LANES, dispatch, dispatch_on};

/// Sixteen half floats or brain floats, one per output.
type Halves = [u16; LANES];
/// Sixteen bytes, one per output.
type Bytes = [u8; LANES];

/// Sixteen outputs × `LEN` inputs of one panel.
pub(super) trait Block: Pod + Send + Sync {
    /// Inputs.
    const LEN: usize;

    /// Walks a panel input by input and shows each input's weights to `visitor`.
    fn walk<I: Isa>(panel: &[Self], isa: I, visitor: &mut impl Visitor<I>);
}

/// Sees the weights of a panel. A trait and not a closure, because its methods must be `inline(always)`: code that is
/// left out of line is compiled without the instruction set.
///
/// Weights come in pairs, because sums alternate between two accumulators: a pair names both without an index, so that
/// they stay in registers.
pub(super) trait Visitor<I: Isa> {
    /// The sixteen outputs' weights for inputs `i` and `i + 1`, i even.
    fn pair(&mut self, isa: I, i: usize, even: I::F, odd: I::F);
    /// Those for the last input, if the number of inputs is odd.
    fn last(&mut self, isa: I, i: usize, weights: I::F);
}

/// Blocks of one input, decoded by a load.
macro_rules! plain_block {
    ($(#[$doc:meta])* $name:ident($lanes:ty), $load:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Pod, Zeroable)]
        #[repr(C)]
        pub(super) struct $name(pub(super) $lanes);

        impl Block for $name {
            const LEN: usize = 1;
            #[inline(always)]
            fn walk<I: Isa>(panel: &[Self], isa: I, visitor: &mut impl Visitor<I>) {
                let (pairs, rest) = panel.as_chunks::<2>();
                for (i, [even, odd]) in pairs.iter().enumerate() {
                    visitor.pair(isa, 2 * i, isa.$load(&even.0), isa.$load(&odd.0));
                }
                for block in rest {
                    visitor.last(isa, panel.len() - 1, isa.$load(&block.0));
                }
            }
        }
    };
}

plain_block! {
    /// Plain floats.
    F32([f32; LANES]), load
}
plain_block! {
    /// IEEE half floats.
    F16(Halves), load_f16
}
plain_block! {
    /// Brain floats.
    Bf16(Halves), load_bf16
}

/// Implements [`Block`] for a quantised block of an even number of inputs with a method `pairs`.
macro_rules! quantised_block {
    ($name:ident, $len:literal) => {
        impl Block for $name {
            const LEN: usize = $len;
            #[inline(always)]
            fn walk<I: Isa>(panel: &[Self], isa: I, visitor: &mut impl Visitor<I>) {
                for (b, block) in panel.iter().enumerate() {
                    block.pairs(isa, b * $len, visitor);
                }
            }
        }
    };
}

/// Q8_0: `d·q`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Q8 {
    pub(super) d: Halves,
    pub(super) q: [[i8; LANES]; 32],
}

quantised_block!(Q8, 32);

impl Q8 {
    #[inline(always)]
    fn pairs<I: Isa>(&self, isa: I, at: usize, visitor: &mut impl Visitor<I>) {
        let d = isa.load_f16(&self.d);
        for (i, [even, odd]) in self.q.as_chunks::<2>().0.iter().enumerate() {
            visitor.pair(
                isa,
                at + 2 * i,
                isa.mul(d, isa.load_i8(even)),
                isa.mul(d, isa.load_i8(odd)),
            );
        }
    }
}

/// Calls `f` with `scale·q + min` for pairs of inputs whose nibbles share a byte: the even one is the low nibble.
#[inline(always)]
fn nibbles<I: Isa, const N: usize>(
    isa: I,
    low: &[Bytes; N],
    high: Option<&[[u16; 2]; N]>,
    (scale, min): (I::F, I::F),
    at: usize,
    visitor: &mut impl Visitor<I>,
) {
    for (i, pair) in low.iter().enumerate() {
        let (mut even, mut odd) = isa.load_nibbles(pair);
        if let Some(high) = high {
            even = isa.add(even, isa.select(high[i][0], 16.0));
            odd = isa.add(odd, isa.select(high[i][1], 16.0));
        }
        visitor.pair(
            isa,
            at + 2 * i,
            isa.mul_add(scale, even, min),
            isa.mul_add(scale, odd, min),
        );
    }
}

/// Q4_0: `d·(q - 8)`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Q4 {
    pub(super) d: Halves,
    pub(super) low: [Bytes; 16],
}

quantised_block!(Q4, 32);

impl Q4 {
    #[inline(always)]
    fn pairs<I: Isa>(&self, isa: I, at: usize, visitor: &mut impl Visitor<I>) {
        let d = isa.load_f16(&self.d);
        nibbles(
            isa,
            &self.low,
            None,
            (d, isa.mul(d, isa.splat(-8.0))),
            at,
            visitor,
        );
    }
}

/// Q4_1: `d·q + m`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Q4Min {
    pub(super) d: Halves,
    pub(super) m: Halves,
    pub(super) low: [Bytes; 16],
}

quantised_block!(Q4Min, 32);

impl Q4Min {
    #[inline(always)]
    fn pairs<I: Isa>(&self, isa: I, at: usize, visitor: &mut impl Visitor<I>) {
        nibbles(
            isa,
            &self.low,
            None,
            (isa.load_f16(&self.d), isa.load_f16(&self.m)),
            at,
            visitor,
        );
    }
}

/// Q5_0: `d·(q - 16)`. `high[i]` has the fifth bits of inputs 2i and 2i+1, bit by output.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Q5 {
    pub(super) d: Halves,
    pub(super) high: [[u16; 2]; 16],
    pub(super) low: [Bytes; 16],
}

quantised_block!(Q5, 32);

impl Q5 {
    #[inline(always)]
    fn pairs<I: Isa>(&self, isa: I, at: usize, visitor: &mut impl Visitor<I>) {
        let d = isa.load_f16(&self.d);
        nibbles(
            isa,
            &self.low,
            Some(&self.high),
            (d, isa.mul(d, isa.splat(-16.0))),
            at,
            visitor,
        );
    }
}

/// Q5_1: `d·q + m`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Q5Min {
    pub(super) d: Halves,
    pub(super) m: Halves,
    pub(super) high: [[u16; 2]; 16],
    pub(super) low: [Bytes; 16],
}

quantised_block!(Q5Min, 32);

impl Q5Min {
    #[inline(always)]
    fn pairs<I: Isa>(&self, isa: I, at: usize, visitor: &mut impl Visitor<I>) {
        nibbles(
            isa,
            &self.low,
            Some(&self.high),
            (isa.load_f16(&self.d), isa.load_f16(&self.m)),
            at,
            visitor,
        );
    }
}

/// Scale `d·s` and minimum `-dmin·m` of one group of a K-quant.
#[inline(always)]
fn k_scale_min<I: Isa>(isa: I, d: I::F, dmin: I::F, s: &Bytes, m: &Bytes) -> (I::F, I::F) {
    let min = isa.mul(dmin, isa.load_u8(m));
    (isa.mul(d, isa.load_u8(s)), isa.sub(isa.splat(0.0), min))
}

/// Q4_K: eight groups of 32, `d·s·q - dmin·m`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Q4K {
    pub(super) d: Halves,
    pub(super) dmin: Halves,
    pub(super) s: [Bytes; 8],
    pub(super) m: [Bytes; 8],
    pub(super) low: [[Bytes; 16]; 8],
}

quantised_block!(Q4K, 256);

impl Q4K {
    #[inline(always)]
    fn pairs<I: Isa>(&self, isa: I, at: usize, visitor: &mut impl Visitor<I>) {
        let (d, dmin) = (isa.load_f16(&self.d), isa.load_f16(&self.dmin));
        for group in 0..8 {
            let scale_min = k_scale_min(isa, d, dmin, &self.s[group], &self.m[group]);
            nibbles(isa, &self.low[group], None, scale_min, at + group * 32, visitor);
        }
    }
}

/// Q5_K: as Q4_K with a fifth bit.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Q5K {
    pub(super) d: Halves,
    pub(super) dmin: Halves,
    pub(super) s: [Bytes; 8],
    pub(super) m: [Bytes; 8],
    pub(super) high: [[[u16; 2]; 16]; 8],
    pub(super) low: [[Bytes; 16]; 8],
}

quantised_block!(Q5K, 256);

impl Q5K {
    #[inline(always)]
    fn pairs<I: Isa>(&self, isa: I, at: usize, visitor: &mut impl Visitor<I>) {
        let (d, dmin) = (isa.load_f16(&self.d), isa.load_f16(&self.dmin));
        for group in 0..8 {
            let scale_min = k_scale_min(isa, d, dmin, &self.s[group], &self.m[group]);
            nibbles(
                isa,
                &self.low[group],
                Some(&self.high[group]),
                scale_min,
                at + group * 32,
                visitor,
            );
        }
    }
}

/// Q6_K: sixteen groups of 16, `d·s·(q - 32)`. `low[g][i]` has the low nibbles of inputs 2i and 2i+1 of group g.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Q6K {
    pub(super) d: Halves,
    pub(super) s: [[i8; LANES]; 16],
    pub(super) low: [[Bytes; 8]; 16],
    /// Byte i of a group: bits 0-1 input 4i, 2-3 input 4i+1, 4-5 input 4i+2, 6-7 input 4i+3.
    pub(super) high: [[Bytes; 4]; 16],
}

quantised_block!(Q6K, 256);

impl Q6K {
    #[inline(always)]
    fn pairs<I: Isa>(&self, isa: I, at: usize, visitor: &mut impl Visitor<I>) {
        let d = isa.load_f16(&self.d);
        for group in 0..16 {
            let scale = isa.mul(d, isa.load_i8(&self.s[group]));
            let min = isa.mul(scale, isa.splat(-32.0));
            for i in 0..4 {
                let [pair_a, pair_b] = split_pairs(isa, &self.high[group][i]);
                let (a, b) = isa.load_nibbles(&self.low[group][2 * i]);
                let (c, e) = isa.load_nibbles(&self.low[group][2 * i + 1]);
                let sixteen = isa.splat(16.0);
                let (a, b) = (
                    isa.mul_add(pair_a.0, sixteen, a),
                    isa.mul_add(pair_a.1, sixteen, b),
                );
                let (c, e) = (
                    isa.mul_add(pair_b.0, sixteen, c),
                    isa.mul_add(pair_b.1, sixteen, e),
                );
                let at = at + group * 16 + 4 * i;
                visitor.pair(isa, at, isa.mul_add(scale, a, min), isa.mul_add(scale, b, min));
                visitor.pair(
                    isa,
                    at + 2,
                    isa.mul_add(scale, c, min),
                    isa.mul_add(scale, e, min),
                );
            }
        }
    }
}

/// The four two-bit fields of each byte, as floats: inputs 0 and 1, 2 and 3.
#[inline(always)]
fn split_pairs<I: Isa>(isa: I, bytes: &Bytes) -> [(I::F, I::F); 2] {
    let mut fields = [[0; LANES]; 4];
    for (shift, field) in fields.iter_mut().enumerate() {
        for (to, byte) in field.iter_mut().zip(bytes) {
            *to = *byte >> (2 * shift) & 3;
        }
    }
    let [a, b, c, d] = &fields;
    [(isa.load_u8(a), isa.load_u8(b)), (isa.load_u8(c), isa.load_u8(d))]
}

/// All panels of a matrix, in one of the layouts.
pub(super) enum Panels {
    F32(Vec<F32>),
    F16(Vec<F16>),
    Bf16(Vec<Bf16>),
    Q8(Vec<Q8>),
    Q4(Vec<Q4>),
    Q4Min(Vec<Q4Min>),
    Q5(Vec<Q5>),
    Q5Min(Vec<Q5Min>),
    Q4K(Vec<Q4K>),
    Q5K(Vec<Q5K>),
    Q6K(Vec<Q6K>),
}

/// Runs `$body` with `$blocks` bound to the blocks of whichever layout it is.
macro_rules! with_blocks {
    ($panels:expr, $blocks:ident => $body:expr) => {
        match $panels {
            Panels::F32($blocks) => $body,
            Panels::F16($blocks) => $body,
            Panels::Bf16($blocks) => $body,
            Panels::Q8($blocks) => $body,
            Panels::Q4($blocks) => $body,
            Panels::Q4Min($blocks) => $body,
            Panels::Q5($blocks) => $body,
            Panels::Q5Min($blocks) => $body,
            Panels::Q4K($blocks) => $body,
            Panels::Q5K($blocks) => $body,
            Panels::Q6K($blocks) => $body,
        }
    };
}

impl Panels {
    pub(super) fn bytes(&self) -> usize {
        with_blocks!(self, blocks => size_of_val(blocks.as_slice()))
    }

    /// Decodes panel `index` into `to`, `[in, 16]`.
    pub(super) fn expand(&self, index: usize, to: &mut [[f32; LANES]]) {
        with_blocks!(self, blocks => dispatch(Expand { panel: panel(blocks, index, to.len()), to }));
    }

    /// Multiplies panel `index` with rows `x`, `[rows, inp]`; `emit` takes each row's sixteen sums.
    pub(super) fn multiply_on(
        &self,
        set: InstructionSet,
        index: usize,
        x: &[f32],
        inp: usize,
        emit: &mut dyn FnMut(usize, &[f32; LANES]),
    ) {
        let x = Rows { data: x, width: inp };
        with_blocks!(self, blocks => dispatch_on(set, Product { panel: panel(blocks, index, inp), x, emit }));
    }
}

impl std::fmt::Debug for Panels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.bytes())
    }
}

/// The blocks of one panel of a matrix with `inp` inputs.
fn panel<B: Block>(blocks: &[B], index: usize, inp: usize) -> &[B] {
    let per_panel = inp / B::LEN;
    &blocks[index * per_panel..(index + 1) * per_panel]
}

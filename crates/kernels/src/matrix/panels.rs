//! The panels of a matrix, in any of the layouts.

use std::ops::Range;

use super::activations::Wanted;
use super::int8::{self, Q4, Q4K, Q4Min, Q5, Q5K, Q5Min, Q6K, Q8};
use super::stretch::Stretch;
use super::{Activations, Prefetch, Target, bf16, float};
use crate::isa::{InstructionSet, LANES, dispatch_on};
use crate::scaled::ScaledInt8;

/// Panels of sixteen outputs, in order.
pub(super) enum Panels {
    F32(Vec<float::F32>),
    F16(Vec<float::F16>),
    Bf16(Vec<float::Bf16>),
    /// Eight bits, for activations in float32.
    ScaledInt8(Vec<ScaledInt8>),
    /// Brain floats, for activations in brain floats.
    Bf16Pairs(Vec<bf16::Pair>),
    Q8(Vec<Q8>),
    Q4(Vec<Q4>),
    Q4Min(Vec<Q4Min>),
    Q5(Vec<Q5>),
    Q5Min(Vec<Q5Min>),
    Q4K(Vec<Q4K>),
    Q5K(Vec<Q5K>),
    Q6K(Vec<Q6K>),
}

/// Runs one of the three bodies with `$blocks` bound to the blocks of the layout.
macro_rules! with_blocks {
    ($panels:expr, float $float:ident => $on_float:expr, bf16 $pairs:ident => $on_bf16:expr, int8 $int8:ident => $on_int8:expr) => {
        match $panels {
            Panels::F32($float) => $on_float,
            Panels::F16($float) => $on_float,
            Panels::Bf16($float) => $on_float,
            Panels::ScaledInt8($float) => $on_float,
            Panels::Bf16Pairs($pairs) => $on_bf16,
            Panels::Q8($int8) => $on_int8,
            Panels::Q4($int8) => $on_int8,
            Panels::Q4Min($int8) => $on_int8,
            Panels::Q5($int8) => $on_int8,
            Panels::Q5Min($int8) => $on_int8,
            Panels::Q4K($int8) => $on_int8,
            Panels::Q5K($int8) => $on_int8,
            Panels::Q6K($int8) => $on_int8,
        }
    };
}

impl Panels {
    pub(super) fn bytes(&self) -> usize {
        self.memory().len()
    }

    pub(super) fn memory(&self) -> &[u8] {
        with_blocks!(self,
            float b => bytemuck::cast_slice(b),
            bf16 b => bytemuck::cast_slice(b),
            int8 b => bytemuck::cast_slice(b))
    }

    pub(super) fn wanted(&self) -> Wanted {
        with_blocks!(self, float _b => Wanted::Float, bf16 _b => Wanted::Bf16, int8 _b => Wanted::Int8)
    }

    /// The weights of output `row`, `[in]`.
    pub(super) fn row(&self, row: usize, to: &mut [f32]) {
        let (index, lane, inp) = (row / LANES, row % LANES, to.len());
        with_blocks!(self,
            float b => to.iter_mut().zip(panel(b, index, inp)).for_each(|(to, b)| *to = float::Block::weight(b, lane)),
            bf16 b => {
                for (to, pair) in to.chunks_mut(2).zip(panel(b, index, inp.div_ceil(2))) {
                    for (to, bits) in to.iter_mut().zip(pair.0[lane]) {
                        *to = half::bf16::from_bits(bits).to_f32();
                    }
                }
            },
            int8 b => int8::decode_row(panel(b, index, int8_blocks(b, inp)), lane, to))
    }

    /// Multiplies some panels with all rows.
    pub(super) fn multiply_on(
        &self,
        set: InstructionSet,
        panels: Range<usize>,
        x: &Activations<'_>,
        to: Target<'_>,
        prefetch: Prefetch<'_>,
    ) {
        let inp = x.floats.width;
        with_blocks!(self,
        float b => {
            let panels = Stretch::new(b, inp, panels);
            dispatch_on(set, float::Product { panels, x: x.floats, to });
        },
        bf16 b => {
            let panels = Stretch::new(b, inp.div_ceil(2), panels);
            dispatch_on(set, bf16::Product { panels, x: &x.scratch.bf16, to, prefetch });
        },
        int8 b => {
            let panels = Stretch::new(b, int8_blocks(b, inp), panels);
            dispatch_on(set, int8::Product::new(panels, &x.scratch.int8, to, prefetch));
        })
    }
}

impl std::fmt::Debug for Panels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.bytes())
    }
}

/// Number of blocks of a panel of `inp` inputs.
fn int8_blocks<B: int8::Block>(_: &[B], inp: usize) -> usize {
    inp / (int8::INPUTS * B::GROUPS)
}

/// The blocks of panel `index`.
fn panel<B>(blocks: &[B], index: usize, per_panel: usize) -> &[B] {
    &blocks[index * per_panel..][..per_panel]
}

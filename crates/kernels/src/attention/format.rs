//! Storage formats of the KV cache.

use bytemuck::AnyBitPattern;
use half::bf16;

use crate::isa::{Isa, LANES};

/// How keys and values are stored. Attention computes in float32 in every case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvDtype {
    /// 16-bit brain floats: half the memory of float32, at the precision that most models are
    /// published in.
    #[default]
    Bf16,
    /// 32-bit floats, as computed.
    F32,
    /// 8-bit integers. Each head of each key and value is scaled by its largest magnitude.
    Int8,
}

/// A storage format. `SCALED` formats have one scale for each head of each position.
pub(super) trait Format: Copy + Send + Sync + 'static {
    type Raw: AnyBitPattern + Default + Send + Sync + std::fmt::Debug;
    const SCALED: bool;

    /// Widens sixteen numbers; scales are applied elsewhere.
    fn load<I: Isa>(isa: I, from: &[Self::Raw; LANES]) -> I::F;
    /// The scale of a head's numbers; 1 unless `SCALED`.
    fn scale(head: &[f32]) -> f32;
    /// Converts a number to its stored form, given the inverse of the scale.
    fn store(x: f32, inverse_scale: f32) -> Self::Raw;
}

#[derive(Clone, Copy, Debug)]
pub(super) struct F32;

impl Format for F32 {
    type Raw = f32;
    const SCALED: bool = false;

    #[inline(always)]
    fn load<I: Isa>(isa: I, from: &[f32; LANES]) -> I::F {
        isa.load(from)
    }
    #[inline(always)]
    fn scale(_: &[f32]) -> f32 {
        1.0
    }
    #[inline(always)]
    fn store(x: f32, _: f32) -> f32 {
        x
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Bf16;

impl Format for Bf16 {
    type Raw = u16;
    const SCALED: bool = false;

    #[inline(always)]
    fn load<I: Isa>(isa: I, from: &[u16; LANES]) -> I::F {
        isa.load_bf16(from)
    }
    #[inline(always)]
    fn scale(_: &[f32]) -> f32 {
        1.0
    }
    /// Rounds to nearest, ties to even. The `half` crate's conversion has a branch for NaN, which
    /// keeps loops from being vectorised.
    #[inline(always)]
    fn store(x: f32, _: f32) -> u16 {
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
        let nan = u32::from(bf16::NAN.to_bits());
        (if x.is_nan() { nan } else { rounded }) as u16
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Int8;

/// The largest magnitude that is stored: the range is symmetric.
const INT8_LARGEST: f32 = 127.0;

impl Format for Int8 {
    type Raw = i8;
    const SCALED: bool = true;

    #[inline(always)]
    fn load<I: Isa>(isa: I, from: &[i8; LANES]) -> I::F {
        isa.load_i8(from)
    }
    #[inline(always)]
    fn scale(head: &[f32]) -> f32 {
        let mut largest = 0f32;
        for x in head {
            largest = if x.abs() > largest { x.abs() } else { largest };
        }
        largest / INT8_LARGEST
    }
    #[inline(always)]
    fn store(x: f32, inverse_scale: f32) -> i8 {
        // `as` saturates, and makes 0 of NaN.
        (x * inverse_scale).round_ties_even() as i8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn bf16_rounds_as_the_half_crate(bits: u32) {
            let x = f32::from_bits(bits);
            let (ours, theirs) = (bf16::from_bits(Bf16::store(x, 1.0)), bf16::from_f32(x));
            proptest::prop_assert!(ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan());
        }

        #[test]
        fn int8_is_off_by_half_a_step_at_most(head in proptest::collection::vec(-50f32..50.0, 1..40)) {
            let scale = Int8::scale(&head);
            let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
            for x in head {
                let stored = f32::from(Int8::store(x, inverse)) * scale;
                proptest::prop_assert!((stored - x).abs() <= 0.5001 * scale);
            }
        }
    }
}

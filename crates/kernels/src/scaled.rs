//! The eight-bit format of adapters' low-rank matrices: sixteen weights with one scale.
//!
//! Sixteen weights are one load, in A (sixteen inputs of a rank) as in B (sixteen outputs of a
//! rank). One scale for a whole rank would take no memory, but the update of Gaussian A and B is
//! then 1.1 to 1.2 % off (root mean square); with blocks of 32 it is 0.8 % off, with blocks of
//! sixteen 0.7 %.

use bytemuck::{Pod, Zeroable};
use half::bf16;

use crate::isa::{Isa, LANES};

/// `scale · q` with q in -127..=127: nine bits per weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct ScaledInt8 {
    /// A brain float, whose exponent range includes every scale.
    scale: u16,
    q: [i8; LANES],
}

impl ScaledInt8 {
    /// Rounds to nearest. A weight that is not finite makes all sixteen NaN, so that the fault
    /// shows in the result.
    pub(crate) fn new(weights: &[f32; LANES]) -> Self {
        if weights.iter().any(|w| !w.is_finite()) {
            return Self {
                scale: bf16::NAN.to_bits(),
                q: [0; LANES],
            };
        }
        let largest = weights.iter().fold(0f32, |largest, w| largest.max(w.abs()));
        // Rounded up, so that the largest weight stays within 127.
        let bits = (largest / 127.0).to_bits().div_ceil(1 << 16);
        let scale = f32::from_bits(bits << 16);
        // In float64, because float32 would round the quotient of subnormal numbers. The scale is 0
        // only if all weights are.
        let q = |w: f32| (f64::from(w) / f64::from(scale)).round_ties_even() as i8;
        Self {
            scale: bits as u16,
            q: weights.map(q),
        }
    }

    /// The sixteen weights.
    #[inline(always)]
    pub(crate) fn load<I: Isa>(&self, isa: I) -> I::F {
        isa.mul(isa.load_i8(&self.q), isa.splat(self.scale()))
    }

    /// The weight of one lane.
    pub(crate) fn weight(&self, lane: usize) -> f32 {
        f32::from(self.q[lane]) * self.scale()
    }

    #[inline(always)]
    fn scale(&self) -> f32 {
        f32::from_bits(u32::from(self.scale) << 16)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::isa::{InstructionSet, Kernel, dispatch_on};

    struct Loaded(ScaledInt8);

    impl Kernel for Loaded {
        type Output = [u32; LANES];
        #[inline(always)]
        fn run<I: Isa>(self, isa: I) -> [u32; LANES] {
            let mut lanes = [0.0; LANES];
            isa.store(self.0.load(isa), &mut lanes);
            lanes.map(f32::to_bits)
        }
    }

    proptest! {
        #[test]
        fn weights_are_within_half_a_scale_on_every_instruction_set(
            weights in prop::array::uniform16(prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL | prop::num::f32::ZERO),
            small in prop::array::uniform16(-1e-3f32..1e-3),
        ) {
            for weights in [weights, small] {
                let packed = ScaledInt8::new(&weights);
                let scale = f64::from(packed.scale());
                let largest = weights.iter().fold(0f32, |largest, w| largest.max(w.abs()));
                // The scale is at most one brain float above the smallest one that suffices, or the
                // smallest subnormal.
                prop_assert!(scale <= f64::from(largest) / 127.0 * (1.0 + 1.0 / 128.0) + 1e-40);
                for (lane, w) in weights.into_iter().enumerate() {
                    let off = (f64::from(packed.weight(lane)) - f64::from(w)).abs();
                    prop_assert!(off <= scale * 0.500_001, "{} for {w}, scale {scale}", packed.weight(lane));
                }
                let expected: [u32; LANES] = std::array::from_fn(|lane| packed.weight(lane).to_bits());
                for set in InstructionSet::available() {
                    prop_assert_eq!(dispatch_on(set, Loaded(packed)), expected, "{}", set.name());
                }
            }
        }
    }

    #[test]
    fn nan_stays_visible() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut weights = [1.0; LANES];
            weights[3] = bad;
            let packed = ScaledInt8::new(&weights);
            assert!((0..LANES).all(|lane| packed.weight(lane).is_nan()), "{bad}");
        }
    }

    #[test]
    fn zeros_stay_zeros() {
        assert_eq!(ScaledInt8::new(&[0.0; LANES]), ScaledInt8::default());
    }
}

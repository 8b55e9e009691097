//! Exponentials for a whole vocabulary, in a form that the compiler vectorises. The standard
//! library's function, called once per token, would cost more than the rest of the sampler.

/// exp(-distance) for distances from 0 to ∞, with a relative error below 2e-7; 0 for distances
/// above 87.
///
/// Subtracts a multiple of ln 2, so that the remainder is small enough for a Taylor series to the
/// seventh power, whose error is then below 6e-9. The power of two goes into the exponent.
#[inline(always)]
pub(super) fn exp_of_minus(distance: f32) -> f32 {
    /// ln 2 in two parts. The first has so few digits that its products with n are exact.
    const LN_2_HIGH: f32 = 355.0 / 512.0;
    const LN_2_LOW: f32 = (std::f64::consts::LN_2 - 355.0 / 512.0) as f32;
    /// Adding 1.5·2²³ rounds to an integer, which is then in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const UNDERFLOW: f32 = 87.0;

    // Not `f32::min`, which handles NaN at extra cost.
    let x = -(if distance < UNDERFLOW { distance } else { UNDERFLOW });
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN_2_HIGH - n * LN_2_LOW;
    let series = 1.0 / 5040.0;
    let series = series * r + 1.0 / 720.0;
    let series = series * r + 1.0 / 120.0;
    let series = series * r + 1.0 / 24.0;
    let series = series * r + 1.0 / 6.0;
    let series = series * r + 0.5;
    let series = series * r + 1.0;
    let series = series * r + 1.0;
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127);
    let power = series * f32::from_bits(exponent << 23);
    if distance > UNDERFLOW { 0.0 } else { power }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ends_of_the_range_are_exact() {
        assert_eq!(exp_of_minus(0.0), 1.0);
        assert_eq!(exp_of_minus(f32::INFINITY), 0.0);
        assert_eq!(exp_of_minus(87.5), 0.0);
        assert!(exp_of_minus(87.0) > 0.0);
    }

    proptest! {
        #[test]
        fn it_is_the_exponential(distance in 0.0_f32..87.0) {
            let exact = (-f64::from(distance)).exp();
            let error = (f64::from(exp_of_minus(distance)) - exact).abs() / exact;
            prop_assert!(error < 2e-7, "{error} at {distance}");
        }
    }
}

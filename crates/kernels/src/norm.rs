//! Root-mean-square normalisation (Zhang and Sennrich 2019, arXiv 1910.07467).

use crate::isa::{Isa, Kernel, LANES, dispatch};

/// Replaces each piece of `weight.len()` neighbouring values by `x / √(mean(x²) + eps) · weight`.
///
/// A piece may be a row (layer norms) or a head (query and key norms).
///
/// # Panics
/// If `x` is not whole pieces.
pub fn rms_norm(x: &mut [f32], weight: &[f32], eps: f32) {
    assert!(
        x.len().is_multiple_of(weight.len()),
        "{} values in pieces of {}",
        x.len(),
        weight.len()
    );
    for piece in x.chunks_exact_mut(weight.len()) {
        let mean_square = dispatch(SumOfSquares(piece)) / piece.len() as f32;
        let scale = 1.0 / (mean_square + eps).sqrt();
        for (x, w) in piece.iter_mut().zip(weight) {
            *x = *x * scale * w;
        }
    }
}

/// Lane sums of squares in order, then the tree of [`Isa::sum`], then what is left over in order.
struct SumOfSquares<'a>(&'a [f32]);

impl Kernel for SumOfSquares<'_> {
    type Output = f32;
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> f32 {
        let (lanes, rest) = self.0.as_chunks::<LANES>();
        let mut sums = isa.splat(0.0);
        for lane in lanes {
            let x = isa.load(lane);
            sums = isa.mul_add(x, x, sums);
        }
        rest.iter().fold(isa.sum(sums), |sum, x| x.mul_add(*x, sum))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn rms_norm_is_its_formula(pieces in 1usize..4, width in 1usize..70, seed: u64) {
            let value = |i: usize| ((seed as f64 + i as f64 * 12.9898).sin() * 3.0) as f32;
            let mut x: Vec<f32> = (0..pieces * width).map(value).collect();
            let weight: Vec<f32> = (0..width).map(|i| value(i + 1000)).collect();
            let expected: Vec<f64> = x
                .chunks(width)
                .flat_map(|piece| {
                    let mean = piece.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / width as f64;
                    let scale = 1.0 / (mean + 1e-5).sqrt();
                    piece.iter().zip(&weight).map(move |(&x, &w)| f64::from(x) * scale * f64::from(w)).collect::<Vec<_>>()
                })
                .collect();
            rms_norm(&mut x, &weight, 1e-5);
            for (got, want) in x.iter().zip(expected) {
                proptest::prop_assert!((f64::from(*got) - want).abs() < 1e-5 * (1.0 + want.abs()));
            }
        }
    }
}

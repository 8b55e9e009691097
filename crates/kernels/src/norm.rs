//! Root-mean-square normalisation (Zhang and Sennrich 2019, arXiv 1910.07467), and sums with the
//! residual stream.

use crate::isa::{Isa, Kernel, LANES, dispatch};
use crate::pool::Pool;
use crate::shared::SharedRows;

/// Replaces each row of `weight.len()` values by `x / √(mean(x²) + eps) · weight`.
///
/// # Panics
/// If `x` is not whole rows.
pub fn rms_norm(pool: &Pool, x: &mut [f32], weight: &[f32], eps: f32) {
    each_row(pool, x, weight.len(), &|_, row| {
        dispatch(Norm { row, weight, eps });
    });
}

/// `x[r] += scale · h[r]` for each row of `width` values. With a `norm` (weight and eps), `h[r]` is
/// normalised first, as by [`rms_norm`].
///
/// # Panics
/// If the sizes do not fit.
pub fn add_residual(
    pool: &Pool,
    x: &mut [f32],
    h: &mut [f32],
    width: usize,
    norm: Option<(&[f32], f32)>,
    scale: f32,
) {
    assert_eq!(x.len(), h.len(), "the residual stream and what is added");
    if let Some((weight, _)) = norm {
        assert_eq!(weight.len(), width, "the norm's weight");
    }
    let h = SharedRows::new(h, width);
    each_row(pool, x, width, &|index, row| {
        let h = h.slice(index, 0, width);
        dispatch(Add { row, h, norm, scale });
    });
}

/// Calls `task` with each row and its index, on several threads if there is enough work.
fn each_row(pool: &Pool, x: &mut [f32], width: usize, task: &(dyn Fn(usize, &mut [f32]) + Sync)) {
    assert!(
        x.len().is_multiple_of(width),
        "{} values in rows of {width}",
        x.len()
    );
    if worth_sharing(x.len()) {
        let (rows, x) = (x.len() / width, SharedRows::new(x, width));
        pool.run_chunked(rows, |index| task(index, x.slice(index, 0, width)));
    } else {
        for (index, row) in x.chunks_exact_mut(width).enumerate() {
            task(index, row);
        }
    }
}

/// Whether a pass over this many floats, a few operations each, is worth a parallel region.
pub(crate) fn worth_sharing(floats: usize) -> bool {
    /// About two microseconds of work for one thread, which is what opening and closing a region
    /// costs.
    const LEAST: usize = 8192;
    floats >= LEAST
}

struct Norm<'a> {
    row: &'a mut [f32],
    weight: &'a [f32],
    eps: f32,
}

impl Kernel for Norm<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        in_place(isa, self.row, self.weight, self.eps);
    }
}

struct Add<'a> {
    row: &'a mut [f32],
    h: &'a mut [f32],
    norm: Option<(&'a [f32], f32)>,
    scale: f32,
}

impl Kernel for Add<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        if let Some((weight, eps)) = self.norm {
            in_place(isa, self.h, weight, eps);
        }
        for (x, h) in self.row.iter_mut().zip(self.h) {
            *x += self.scale * *h;
        }
    }
}

/// Normalises each piece of `weight.len()` values: a row, or a head.
#[inline(always)]
pub(crate) fn in_place<I: Isa>(isa: I, x: &mut [f32], weight: &[f32], eps: f32) {
    for piece in x.chunks_exact_mut(weight.len()) {
        let mean_square = sum_of_squares(isa, piece) / piece.len() as f32;
        let scale = 1.0 / (mean_square + eps).sqrt();
        for (x, w) in piece.iter_mut().zip(weight) {
            *x = *x * scale * w;
        }
    }
}

/// The sum of squares: lane sums in order, then the tree of [`Isa::sum`], then the remaining values
/// in order.
#[inline(always)]
fn sum_of_squares<I: Isa>(isa: I, x: &[f32]) -> f32 {
    let (lanes, rest) = x.as_chunks::<LANES>();
    let mut sums = isa.splat(0.0);
    for lane in lanes {
        let x = isa.load(lane);
        sums = isa.mul_add(x, x, sums);
    }
    let mut sum = isa.sum(sums);
    for x in rest {
        sum = x.mul_add(*x, sum);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{InstructionSet, dispatch_on};

    fn value(seed: u64, i: usize) -> f32 {
        ((seed as f64 + i as f64 * 12.9898).sin() * 3.0) as f32
    }

    proptest::proptest! {
        #[test]
        fn rms_norm_is_its_formula(rows in 1usize..4, width in 1usize..70, seed: u64) {
            let mut x: Vec<f32> = (0..rows * width).map(|i| value(seed, i)).collect();
            let weight: Vec<f32> = (0..width).map(|i| value(seed, i + 1000)).collect();
            let expected: Vec<f64> = x
                .chunks(width)
                .flat_map(|row| {
                    let mean = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / width as f64;
                    let scale = 1.0 / (mean + 1e-5).sqrt();
                    row.iter().zip(&weight).map(move |(&x, &w)| f64::from(x) * scale * f64::from(w)).collect::<Vec<_>>()
                })
                .collect();
            rms_norm(&Pool::new(1), &mut x, &weight, 1e-5);
            for (got, want) in x.iter().zip(expected) {
                proptest::prop_assert!((f64::from(*got) - want).abs() < 1e-5 * (1.0 + want.abs()));
            }
        }

        #[test]
        fn instruction_sets_agree_to_the_bit(width in 1usize..70, seed: u64) {
            let x: Vec<f32> = (0..width).map(|i| value(seed, i)).collect();
            let weight: Vec<f32> = (0..width).map(|i| value(seed, i + 1000)).collect();
            let run = |set| {
                let (mut x, mut h) = (x.clone(), weight.clone());
                dispatch_on(set, Add { row: &mut x, h: &mut h, norm: Some((&weight, 1e-5)), scale: 0.3 });
                x.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
            };
            for set in InstructionSet::available() {
                proptest::prop_assert_eq!(run(set), run(InstructionSet::Scalar));
            }
        }
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let (rows, width) = (40, 576);
        let weight: Vec<f32> = (0..width).map(|i| value(3, i)).collect();
        let run = |rows: std::ops::Range<usize>, threads| {
            let mut x: Vec<f32> = (rows.start * width..rows.end * width)
                .map(|i| value(1, i))
                .collect();
            let mut h: Vec<f32> = (rows.start * width..rows.end * width)
                .map(|i| value(2, i))
                .collect();
            let pool = Pool::new(threads);
            add_residual(&pool, &mut x, &mut h, width, Some((&weight, 1e-6)), 0.22);
            rms_norm(&pool, &mut x, &weight, 1e-6);
            x
        };
        let together = run(0..rows, 3);
        for row in 0..rows {
            assert_eq!(run(row..row + 1, 1), together[row * width..(row + 1) * width]);
        }
    }
}

//! Products of rows and matrices, split over the thread pool.

use std::ops::Range;

use super::prefetch::Prefetch;
use super::{Activations, PackedMatrix, Target};
use crate::pool::Pool;
use crate::shared::SharedRows;

/// A weight matrix and the output column at which its outputs start.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// `[out, in]`
    pub weight: &'a PackedMatrix,
    /// The first column.
    pub at: usize,
}

/// `out[r, at + o] = Σ_i w[o, i] · x[r, i]` for every row r and every output o of every part, in
/// one parallel region.
///
/// `x` is `[rows, in]`; `out` is `[rows, stride]`, of which each part's columns `at..at + out` are
/// written. The columns of the parts must not overlap.
///
/// `next` is memory that is read right after the product, such as adapters. Products of several
/// rows compute more than they read, so they prefetch it meanwhile.
///
/// # Panics
/// If the sizes do not fit.
pub fn matmul(
    pool: &Pool,
    parts: &[Part<'_>],
    x: &mut Activations<'_>,
    out: &mut [f32],
    stride: usize,
    next: &[&[u8]],
) {
    let rows = x.rows();
    assert_eq!(out.len(), rows * stride, "out is [{rows}, {stride}]");
    let mut panels = 0;
    for part in parts {
        assert_eq!(x.floats.width, part.weight.inp(), "x is [rows, in]");
        assert!(part.at + part.weight.out() <= stride, "columns from {}", part.at);
        x.prepare(pool, part.weight.panels.wanted());
        panels += part.weight.panels();
    }
    let out = SharedRows::new(out, stride);
    let x = &*x;
    pool.run_ranges(panels, |range| {
        let mut first = 0;
        for Part { weight, at } in parts {
            let panels_of_part = overlap(&range, first, weight.panels());
            first += weight.panels();
            if panels_of_part.is_empty() {
                continue;
            }
            let to = Target {
                out,
                row: 0,
                at: *at,
                width: weight.out(),
                adds: false,
            };
            let from = first - weight.panels();
            let prefetch = Prefetch::share(
                next,
                from + panels_of_part.start..from + panels_of_part.end,
                panels,
            );
            weight.multiply_panels(panels_of_part, x, to, prefetch);
        }
    });
}

/// The part of `range` within the `len` numbers from `first` on, relative to `first`.
pub(crate) fn overlap(range: &Range<usize>, first: usize, len: usize) -> Range<usize> {
    let start = range.start.saturating_sub(first);
    start..range.end.saturating_sub(first).min(len).max(start)
}

//! Rows × packed panels.

use std::cell::RefCell;

use super::PackedMatrix;
use super::layout::{Block, F32};
use crate::isa::{Isa, Kernel, LANES};
use crate::pool::Pool;
use crate::shared::SharedRows;

/// Rows from which a panel is decoded once into floats instead of once per tile of rows.
const EXPAND_FROM: usize = 32;

/// Rows of activations, `[rows, width]`, row-major and dense.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) data: &'a [f32],
    pub(super) width: usize,
}

/// `out[r, at + o] = Σ_i w[o, i] · x[r, i]` for every row r and output o, work split over `pool` by outputs.
///
/// `x` is `[rows, in]`; `out` is `[rows, stride]`, of which the columns `at..at + w.out()` are written.
///
/// # Panics
/// If the sizes do not fit.
pub fn matmul(pool: &Pool, w: &PackedMatrix, x: &[f32], out: &mut [f32], stride: usize, at: usize) {
    let rows = x.len() / w.inp();
    assert_eq!(x.len(), rows * w.inp(), "x is [rows, {}]", w.inp());
    assert!(
        at + w.out() <= stride && out.len() == rows * stride,
        "out is [{rows}, {stride}], columns from {at}"
    );
    let panels = w.out().div_ceil(LANES);
    let out = SharedRows::new(out, stride);
    let x = Rows {
        data: x,
        width: w.inp(),
    };
    pool.run_chunked(panels, |index| {
        let column = index * LANES;
        let width = LANES.min(w.out() - column);
        let mut emit = |row: usize, sums: &[f32; LANES]| {
            out.write(row, at + column, &sums[..width]);
        };
        if rows < EXPAND_FROM {
            w.multiply_panel(index, x.data, &mut emit);
        } else {
            thread_local!(static EXPANDED: RefCell<Vec<F32>> = const { RefCell::new(Vec::new()) });
            EXPANDED.with_borrow_mut(|expanded| {
                expanded.resize(w.inp(), F32([0.0; LANES]));
                w.expand(index, bytemuck::cast_slice_mut(expanded));
                crate::isa::dispatch(Product {
                    panel: expanded,
                    x,
                    emit: &mut emit,
                });
            });
        }
    });
}

/// Decodes a panel into floats, `[in, 16]`.
pub(super) struct Expand<'a, B> {
    pub(super) panel: &'a [B],
    pub(super) to: &'a mut [[f32; LANES]],
}

impl<B: Block> Kernel for Expand<'_, B> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let to = std::cell::RefCell::new(self.to);
        let pair = |i: usize, even, odd| {
            let mut to = to.borrow_mut();
            isa.store(even, &mut to[i]);
            isa.store(odd, &mut to[i + 1]);
        };
        B::walk(self.panel, isa, pair, |i, w| {
            isa.store(w, &mut to.borrow_mut()[i])
        });
    }
}

/// One panel times all rows; `emit` takes each row's sixteen sums.
pub(super) struct Product<'a, 'e, B> {
    pub(super) panel: &'a [B],
    pub(super) x: Rows<'a>,
    pub(super) emit: &'e mut dyn FnMut(usize, &[f32; LANES]),
}

impl<B: Block> Kernel for Product<'_, '_, B> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self { panel, x, emit } = self;
        let rows = x.data.len() / x.width;
        let mut row = 0;
        while row < rows {
            row += match rows - row {
                1 => tile::<I, B, 1>(isa, panel, x, row, emit),
                2..4 => tile::<I, B, 2>(isa, panel, x, row, emit),
                4..8 => tile::<I, B, 4>(isa, panel, x, row, emit),
                _ => tile::<I, B, 8>(isa, panel, x, row, emit),
            };
        }
    }
}

/// `T` rows at once: the weights are decoded once for all of them. Returns `T`.
#[inline(always)]
fn tile<I: Isa, B: Block, const T: usize>(
    isa: I,
    panel: &[B],
    x: Rows<'_>,
    first: usize,
    emit: &mut dyn FnMut(usize, &[f32; LANES]),
) -> usize {
    let rows: [&[f32]; T] = std::array::from_fn(|t| &x.data[(first + t) * x.width..][..x.width]);
    let mut even = [isa.splat(0.0); T];
    let mut odd = [isa.splat(0.0); T];
    let mut tail = [isa.splat(0.0); T];
    let pair = |i: usize, w_even, w_odd| {
        for t in 0..T {
            even[t] = isa.mul_add(w_even, isa.splat(rows[t][i]), even[t]);
            odd[t] = isa.mul_add(w_odd, isa.splat(rows[t][i + 1]), odd[t]);
        }
    };
    let last = |i: usize, w| {
        for t in 0..T {
            tail[t] = isa.mul(w, isa.splat(rows[t][i]));
        }
    };
    B::walk(panel, isa, pair, last);
    for t in 0..T {
        let mut sums = [0.0; LANES];
        isa.store(isa.add(isa.add(even[t], odd[t]), tail[t]), &mut sums);
        emit(first + t, &sums);
    }
    T
}

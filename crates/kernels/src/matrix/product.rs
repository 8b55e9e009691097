//! Rows × packed panels.

use std::cell::RefCell;

use super::PackedMatrix;
use super::layout::{Block, F32, Visitor};
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
        B::walk(self.panel, isa, &mut Store(self.to));
    }
}

/// Keeps the weights as they come.
struct Store<'a>(&'a mut [[f32; LANES]]);

impl<I: Isa> Visitor<I> for Store<'_> {
    #[inline(always)]
    fn pair(&mut self, isa: I, i: usize, even: I::F, odd: I::F) {
        isa.store(even, &mut self.0[i]);
        isa.store(odd, &mut self.0[i + 1]);
    }
    #[inline(always)]
    fn last(&mut self, isa: I, i: usize, weights: I::F) {
        isa.store(weights, &mut self.0[i]);
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
    let zeros = [isa.splat(0.0); T];
    let rows = std::array::from_fn(|t| &x.data[(first + t) * x.width..][..x.width]);
    let mut tile = Tile::<I, T> {
        rows,
        even: zeros,
        odd: zeros,
        last: zeros,
    };
    B::walk(panel, isa, &mut tile);
    for t in 0..T {
        let mut sums = [0.0; LANES];
        isa.store(
            isa.add(isa.add(tile.even[t], tile.odd[t]), tile.last[t]),
            &mut sums,
        );
        emit(first + t, &sums);
    }
    T
}

/// The running sums of `T` rows × sixteen outputs.
struct Tile<'a, I: Isa, const T: usize> {
    rows: [&'a [f32]; T],
    even: [I::F; T],
    odd: [I::F; T],
    last: [I::F; T],
}

impl<I: Isa, const T: usize> Visitor<I> for Tile<'_, I, T> {
    #[inline(always)]
    fn pair(&mut self, isa: I, i: usize, even: I::F, odd: I::F) {
        for t in 0..T {
            self.even[t] = isa.mul_add(even, isa.splat(self.rows[t][i]), self.even[t]);
            self.odd[t] = isa.mul_add(odd, isa.splat(self.rows[t][i + 1]), self.odd[t]);
        }
    }
    #[inline(always)]
    fn last(&mut self, isa: I, i: usize, weights: I::F) {
        for t in 0..T {
            self.last[t] = isa.mul(weights, isa.splat(self.rows[t][i]));
        }
    }
}

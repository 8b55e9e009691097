//! Tiles of rows × one panel.

use super::layout::{Block, Group};
use super::rows::{INPUTS, Outlier, Rows, TILE, Tile, tile_rows};
use crate::isa::{Isa, Kernel, LANES, dispatch};
use crate::matrix::panels::Stretch;
use crate::matrix::{Ahead, Target};

/// Rows that all panels are multiplied with before the next ones: so many stay in a core's second-level cache.
const ROWS_IN_CACHE: usize = 128;

/// Panels times all rows.
///
/// A row's sum is `(Σ blocks) + (Σ outliers)`, each taken in order. Within a block the sum is an exact integer.
pub(in crate::matrix) struct Product<'a, B> {
    panels: Stretch<'a, B>,
    x: &'a Rows,
    to: Target<'a>,
    ahead: Ahead<'a>,
    /// Lines of it to ask for with each group of weights.
    lines: usize,
}

impl<'a, B> Product<'a, B> {
    pub(in crate::matrix) fn new(
        panels: Stretch<'a, B>,
        x: &'a Rows,
        to: Target<'a>,
        ahead: Ahead<'a>,
    ) -> Self {
        Self {
            panels,
            x,
            to,
            ahead,
            lines: 0,
        }
    }
}

impl<B: Block> Kernel for Product<'_, B> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let rows = self.x.rows;
        let groups = self.x.blocks * rows.div_ceil(TILE) * self.panels.iter().count();
        self.lines = self.ahead.per_step(groups);
        for start in (0..rows).step_by(ROWS_IN_CACHE) {
            for (index, panel) in self.panels.iter() {
                let (mut row, end) = (start, rows.min(start + ROWS_IN_CACHE));
                while row < end {
                    match tile_rows(end - row) {
                        1 => self.tile::<I, 1>(isa, index, panel, row),
                        2 => self.tile::<I, 2>(isa, index, panel, row),
                        4 => self.tile::<I, 4>(isa, index, panel, row),
                        _ => self.tile::<I, 8>(isa, index, panel, row),
                    }
                    row += tile_rows(end - row);
                }
            }
        }
    }
}

impl<B: Block> Product<'_, B> {
    /// `T` rows at once: the weights are unpacked once for all of them.
    #[inline(always)]
    fn tile<I: Isa, const T: usize>(&mut self, isa: I, index: usize, panel: &[B], first: usize) {
        let blocks: &[Tile<T>] = self.x.tile(first);
        let mut sums = [isa.splat(0.0); T];
        for (block, x) in panel.iter().zip(blocks.chunks_exact(B::GROUPS)) {
            for (g, x) in x.iter().enumerate() {
                self.ahead.ask(isa, self.lines);
                block.group(isa, g).add_to(isa, &mut sums, x);
            }
        }
        // In memory, for which row is next is only known as it comes.
        let mut apart = [[0.0; LANES]; T];
        for &Outlier { input, row, x } in self.x.outliers(first) {
            let (input, sum) = (input as usize, &mut apart[row as usize % T]);
            let inputs = INPUTS * B::GROUPS;
            let weights = panel[input / inputs].input(isa, input % inputs);
            isa.store(isa.mul_add(weights, isa.splat(x), isa.load(sum)), sum);
        }
        each_row!(T, |T_| {
            let sum = isa.add(sums[T_], isa.load(&apart[T_]));
            self.to.put(isa, index, first + T_, sum);
        });
    }
}

/// Decodes the weights of output `lane` of a panel.
pub(in crate::matrix) fn decode_row<B: Block>(panel: &[B], lane: usize, to: &mut [f32]) {
    dispatch(DecodeRow { panel, lane, to });
}

struct DecodeRow<'a, B> {
    panel: &'a [B],
    lane: usize,
    to: &'a mut [f32],
}

impl<B: Block> Kernel for DecodeRow<'_, B> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let blocks = self.to.chunks_exact_mut(INPUTS * B::GROUPS);
        for (block, to) in self.panel.iter().zip(blocks) {
            for (i, to) in to.iter_mut().enumerate() {
                let mut lanes = [0.0; LANES];
                isa.store(block.input(isa, i), &mut lanes);
                *to = lanes[self.lane];
            }
        }
    }
}

//! Products of tiles of rows and panels.

use super::group::Group;
use super::layout::Block;
use super::rows::{INPUTS, Rows, TILE, Tile, tile_rows};
use crate::isa::{Isa, Kernel, LANES, dispatch};
use crate::matrix::prefetch::LINE;
use crate::matrix::stretch::Stretch;
use crate::matrix::{Prefetch, Target};

/// Rows that are multiplied with all panels before the next rows: as many as stay in a core's
/// second-level cache.
const ROWS_IN_CACHE: usize = 128;

/// The product of panels and all rows.
///
/// A row's sum is taken over its blocks in order. Products with the same scale within a block are
/// summed exactly, as integers.
pub(in crate::matrix) struct Product<'a, B> {
    panels: Stretch<'a, B>,
    x: &'a Rows,
    to: Target<'a>,
    prefetch: Prefetch<'a>,
    /// Cache lines to prefetch with each group of weights.
    lines: usize,
}

impl<'a, B> Product<'a, B> {
    pub(in crate::matrix) fn new(
        panels: Stretch<'a, B>,
        x: &'a Rows,
        to: Target<'a>,
        prefetch: Prefetch<'a>,
    ) -> Self {
        Self {
            panels,
            x,
            to,
            prefetch,
            lines: 0,
        }
    }
}

impl<B: Block> Kernel for Product<'_, B> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let rows = self.x.rows;
        let steps = self.x.blocks * rows.div_ceil(TILE);
        self.lines = self.prefetch.per_step(steps * self.panels.len());
        for start in (0..rows).step_by(ROWS_IN_CACHE) {
            let end = rows.min(start + ROWS_IN_CACHE);
            for (index, panel) in self.panels.iter() {
                let (mut row, mut next) = (start, self.panels.after(index));
                while row < end {
                    let tile = TilePosition {
                        index,
                        panel,
                        next,
                        row,
                    };
                    let height = tile_rows(end - row);
                    match height {
                        1 => self.tile::<I, 1>(isa, tile),
                        2 => self.tile::<I, 2>(isa, tile),
                        4 => self.tile::<I, 4>(isa, tile),
                        _ => self.tile::<I, TILE>(isa, tile),
                    }
                    row += height;
                    next = &[];
                }
            }
        }
    }
}

/// A tile of the product.
#[derive(Clone, Copy)]
struct TilePosition<'a, B> {
    index: usize,
    panel: &'a [B],
    /// The panel to prefetch meanwhile; empty if that was done.
    next: &'a [B],
    row: usize,
}

impl<B: Block> Product<'_, B> {
    /// Computes `T` rows at once, for which the weights are unpacked once.
    #[inline(always)]
    fn tile<I: Isa, const T: usize>(&mut self, isa: I, tile: TilePosition<'_, B>) {
        let TilePosition {
            index,
            panel,
            next,
            row,
        } = tile;
        let x: &[Tile<T>] = self.x.tile(row);
        let mut sums = [isa.splat(0.0); T];
        for (b, (block, x)) in panel.iter().zip(x.chunks_exact(B::GROUPS)).enumerate() {
            for (g, x) in x.iter().enumerate() {
                if let Some(next) = next.get(b) {
                    ask_for(isa, next, g);
                }
                self.prefetch.issue(isa, self.lines);
                block.group(isa, g).add_to(isa, &mut sums, x);
            }
        }
        each_row!(T, |T_| self.to.put(isa, index, row + T_, sums[T_]));
    }
}

/// Prefetches group `g`'s share of a block's cache lines. The processor's own prefetcher follows a
/// panel too late: each page begins with misses.
#[inline(always)]
fn ask_for<I: Isa, B: Block>(isa: I, block: &B, g: usize) {
    let bytes: &[u8] = bytemuck::bytes_of(block);
    let share = bytes.len().div_ceil(B::GROUPS);
    for line in 0..share.div_ceil(LINE) {
        if let Some(byte) = bytes.get(g * share + line * LINE) {
            isa.prefetch(byte);
        }
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

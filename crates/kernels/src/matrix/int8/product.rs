//! Tiles of rows × one panel.

use super::group::Group;
use super::layout::Block;
use super::rows::{INPUTS, Rows, TILE, Tile, tile_rows};
use crate::isa::{Isa, Kernel, LANES, dispatch};
use crate::matrix::panels::Stretch;
use crate::matrix::prefetch::LINE;
use crate::matrix::{Prefetch, Target};

/// Rows that all panels are multiplied with before the next ones: so many stay in a core's
/// second-level cache.
const ROWS_IN_CACHE: usize = 128;

/// Panels times all rows.
///
/// A row's sum is that of its blocks in order. What has one scale within a block is summed as
/// integers, exactly.
pub(in crate::matrix) struct Product<'a, B> {
    panels: Stretch<'a, B>,
    x: &'a Rows,
    to: Target<'a>,
    prefetch: Prefetch<'a>,
    /// Lines of it to ask for with each group of weights.
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
                    let place = Place {
                        index,
                        panel,
                        next,
                        row,
                    };
                    let height = tile_rows(end - row);
                    match height {
                        1 => self.tile::<I, 1>(isa, place),
                        2 => self.tile::<I, 2>(isa, place),
                        4 => self.tile::<I, 4>(isa, place),
                        _ => self.tile::<I, TILE>(isa, place),
                    }
                    row += height;
                    next = &[];
                }
            }
        }
    }
}

/// Where a tile lies.
#[derive(Clone, Copy)]
struct Place<'a, B> {
    index: usize,
    panel: &'a [B],
    /// The panel to ask for meanwhile; empty if it was.
    next: &'a [B],
    row: usize,
}

impl<B: Block> Product<'_, B> {
    /// `T` rows at once: weights are unpacked once for all of them.
    #[inline(always)]
    fn tile<I: Isa, const T: usize>(&mut self, isa: I, place: Place<'_, B>) {
        let Place {
            index,
            panel,
            next,
            row,
        } = place;
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

/// Asks for group `g`'s share of a block's cache lines. The processor sees a panel coming by
/// itself, but not in time: each page begins with misses.
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

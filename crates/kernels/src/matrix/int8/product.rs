//! Tiles of rows × one panel.

use super::layout::{Block, Group};
use super::quantise::{GROUP, Quantised, Rows};
use crate::isa::{Isa, Kernel, LANES};
use crate::matrix::Emit;
use crate::matrix::panels::Stretch;

/// Panels times all rows; `emit` takes each panel's and row's sixteen sums.
///
/// A row's sum is `(Σ coarse blocks) + (Σ fine blocks)`, each taken in order of the blocks. Within a block the sum is
/// an exact integer.
pub(in crate::matrix) struct Product<'a, 'e, B> {
    pub(in crate::matrix) panels: Stretch<'a, B>,
    pub(in crate::matrix) x: &'a Rows,
    pub(in crate::matrix) emit: &'e mut Emit<'e>,
}

impl<B: Block> Kernel for Product<'_, '_, B> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self { panels, x, emit } = self;
        for (index, panel) in panels.iter() {
            let rows = x.rows;
            let mut row = 0;
            while row < rows {
                row += match rows - row {
                    1 => tile::<I, B, 1>(isa, panel, x, row, (index, emit)),
                    2..4 => tile::<I, B, 2>(isa, panel, x, row, (index, emit)),
                    4..8 => tile::<I, B, 4>(isa, panel, x, row, (index, emit)),
                    _ => tile::<I, B, 8>(isa, panel, x, row, (index, emit)),
                };
            }
        }
    }
}

/// Does `$body` for row `$t` of a tile, a constant in each: in a loop the sums would lie in memory.
macro_rules! each_row {
    ($tile:ident, |$t:ident| $body:expr) => {
        each_row!($tile, $t, $body, 0, 1, 2, 3, 4, 5, 6, 7)
    };
    ($tile:ident, $t:ident, $body:expr, $($index:literal),+) => {
        $(if $index < $tile {
            const $t: usize = $index;
            $body;
        })+
    };
}

/// `T` rows at once: the weights are unpacked once for all of them. Returns `T`.
#[inline(always)]
fn tile<I: Isa, B: Block, const T: usize>(
    isa: I,
    panel: &[B],
    x: &Rows,
    first: usize,
    (index, emit): (usize, &mut Emit<'_>),
) -> usize {
    let n = panel.len() * B::GROUPS;
    let coarse: [&[Quantised]; T] = std::array::from_fn(|t| &x.coarse[(first + t) * n..][..n]);
    let fine: [&[Quantised]; T] = std::array::from_fn(|t| &x.fine[(first + t) * n..][..n]);
    let masks = &x.masks[first / GROUP * n..][..n];
    let mut sums = [isa.splat(0.0); T];
    // In memory, for which rows have a fine block is only known as it comes; apart, so that the others need not be.
    let mut fine_sums = [[0.0; LANES]; T];
    for (b, block) in panel.iter().enumerate() {
        for g in 0..B::GROUPS {
            let at = b * B::GROUPS + g;
            let group = block.group(isa, g);
            each_row!(T, |T_| sums[T_] = group.add_to(isa, sums[T_], &coarse[T_][at]));
            let mut mask = u32::from(masks[at]) >> (first % GROUP) & ((1 << T) - 1);
            while mask != 0 {
                let t = mask.trailing_zeros() as usize;
                mask &= mask - 1;
                let sum = isa.load(&fine_sums[t]);
                isa.store(group.add_to(isa, sum, &fine[t][at]), &mut fine_sums[t]);
            }
        }
    }
    for t in 0..T {
        let mut lanes = [0.0; LANES];
        isa.store(isa.add(sums[t], isa.load(&fine_sums[t])), &mut lanes);
        emit(index, first + t, &lanes);
    }
    T
}

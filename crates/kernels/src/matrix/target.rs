//! The destination of a product's sums.

use crate::isa::{Isa, LANES};
use crate::shared::SharedRows;

/// The columns of an output `[rows, stride]` that a matrix writes.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) out: SharedRows<'a>,
    /// The output row of the product's row 0.
    pub(crate) row: usize,
    /// The first column.
    pub(crate) at: usize,
    /// Number of columns: the outputs of the matrix. The last panel may have more.
    pub(crate) width: usize,
    /// Whether sums are added to the output instead of replacing it.
    pub(crate) adds: bool,
}

impl Target<'_> {
    /// Writes the sums of a panel's sixteen outputs for one row.
    #[inline(always)]
    pub(super) fn put<I: Isa>(&self, isa: I, panel: usize, row: usize, sums: I::F) {
        let column = panel * LANES;
        let width = LANES.min(self.width - column);
        let to = self.out.slice(self.row + row, self.at + column, width);
        match to.as_mut_array::<LANES>() {
            Some(to) if self.adds => isa.store(isa.add(isa.load(to), sums), to),
            Some(to) => isa.store(sums, to),
            None => {
                let mut lanes = [0.0; LANES];
                if self.adds {
                    lanes[..width].copy_from_slice(to);
                }
                let sums = if self.adds {
                    isa.add(isa.load(&lanes), sums)
                } else {
                    sums
                };
                isa.store(sums, &mut lanes);
                to.copy_from_slice(&lanes[..width]);
            }
        }
    }
}

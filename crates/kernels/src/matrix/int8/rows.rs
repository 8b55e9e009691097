//! Storage of quantised activations, in tiles of the rows that a product computes at once.

use bytemuck::{Pod, Zeroable};

/// Inputs per block.
pub(in crate::matrix) const INPUTS: usize = 32;

/// Rows of the largest tile.
pub(super) const TILE: usize = 8;

/// A unit of [`Tile::over`] is `2^OVER_SHIFT` units of [`Tile::q`].
pub(super) const OVER_SHIFT: u32 = 3;

/// `T` rows × 32 inputs, `scale · (q + 8 · over)`. All parts are at constant offsets from one
/// address, and a tile's blocks are read in order.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(in crate::matrix) struct Tile<const T: usize> {
    /// In ±127.
    pub(super) q: [[i8; INPUTS]; T],
    /// In each half, the excess of four neighbouring inputs over `q`, in units of eight; the excess
    /// of all others is 0.
    pub(super) over: [[[i8; 4]; T]; 2],
    /// Index, 0 to 3, of these four inputs in each half.
    pub(super) over_at: [[u32; T]; 2],
    pub(super) scale: [f32; T],
    /// `scale · Σ (q + 8 · over)`
    pub(super) sum: [f32; T],
    /// `-Σ (q + 8 · over)`: an eighth of the correction of an integer dot product for a zero point
    /// of 8.
    pub(super) minus_sum: [i32; T],
    /// The same over the first sixteen inputs.
    pub(super) minus_low_sum: [i32; T],
}

/// The unit of a tile's storage.
pub(super) type Unit = [u32; 4];

/// Units of storage per row of a tile.
pub(super) const ROW_UNITS: usize = size_of::<Tile<1>>() / size_of::<Unit>();

#[expect(unsafe_code, reason = "derives take no structures with constants")]
mod plain {
    use super::{Pod, Tile, Zeroable};

    // SAFETY: arrays of integers and floats, for which zeros are values.
    unsafe impl<const T: usize> Zeroable for Tile<T> {}
    // SAFETY: arrays of integers and floats in C's order: any bytes are values, and there is no
    // padding, as all sizes are multiples of four bytes, the alignment.
    unsafe impl<const T: usize> Pod for Tile<T> {}
}

/// Quantised rows, in tiles of eight rows as far as possible, then of four, two and one.
#[derive(Debug, Default)]
pub(in crate::matrix) struct Rows {
    pub(super) rows: usize,
    /// Number of blocks of a row.
    pub(super) blocks: usize,
    /// The tiles in order, each `[blocks]` of [`Tile`].
    pub(super) tiles: Vec<Unit>,
}

impl Rows {
    /// The blocks of the tile whose first row is `first`.
    #[inline(always)]
    pub(super) fn tile<const T: usize>(&self, first: usize) -> &[Tile<T>] {
        let row = self.blocks * ROW_UNITS;
        bytemuck::cast_slice(&self.tiles[first * row..(first + T) * row])
    }
}

/// Number of rows of the next tile when `left` rows remain.
#[inline(always)]
pub(super) fn tile_rows(left: usize) -> usize {
    match left {
        1 => 1,
        2..4 => 2,
        4..TILE => 4,
        _ => TILE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tile_is_its_rows_without_gaps() {
        assert_eq!(size_of::<Tile<1>>(), 64);
        assert_eq!(size_of::<Tile<TILE>>(), TILE * 64);
        assert_eq!(align_of::<Tile<TILE>>(), align_of::<Unit>());
        assert_eq!(ROW_UNITS, 4);
    }
}

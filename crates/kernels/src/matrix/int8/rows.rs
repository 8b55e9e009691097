//! Where quantised activations lie: in tiles of the rows that a product takes at once.

use bytemuck::{Pod, Zeroable};

/// Inputs of a block.
pub(in crate::matrix) const INPUTS: usize = 32;

/// Rows of the largest tile.
pub(super) const TILE: usize = 8;

/// What a unit of [`Tile::over`] stands for, as a power of two of [`Tile::q`]'s.
pub(super) const OVER_SHIFT: u32 = 3;

/// `T` rows × 32 inputs, `scale · (q + 8 · over)`. One address and constants reach all of it, and a
/// tile's blocks are read in order.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(in crate::matrix) struct Tile<const T: usize> {
    /// In ±127.
    pub(super) q: [[i8; INPUTS]; T],
    /// In each half, what four neighbouring inputs have beyond `q`, in units of eight; all others
    /// have nothing.
    pub(super) over: [[[i8; 4]; T]; 2],
    /// Which four of each half, 0 to 3.
    pub(super) over_at: [[u32; T]; 2],
    pub(super) scale: [f32; T],
    /// `scale · Σ (q + 8 · over)`
    pub(super) sum: [f32; T],
    /// `-Σ (q + 8 · over)`: an eighth of what a weight's zero point of 8 takes off an integer dot
    /// product.
    pub(super) minus_sum: [i32; T],
    /// The same over the first sixteen inputs.
    pub(super) minus_low_sum: [i32; T],
}

/// What a tile's storage is counted in.
pub(super) type Unit = [u32; 4];

/// Units of one row's share of a tile.
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

/// Quantised rows, and which tiles they are in: as many of eight as there are, then of four, two
/// and one.
#[derive(Debug, Default)]
pub(in crate::matrix) struct Rows {
    pub(super) rows: usize,
    /// Blocks of a row.
    pub(super) blocks: usize,
    /// Tiles one after the other, each `[blocks]` of [`Tile`].
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

/// Rows of the tile that begins when `left` rows are left.
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

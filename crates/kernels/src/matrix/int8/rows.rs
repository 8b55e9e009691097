//! Where quantised activations lie: in tiles of the rows that a product takes at once.

use bytemuck::{Pod, Zeroable};

/// Inputs of a block.
pub(in crate::matrix) const INPUTS: usize = 32;

/// Rows of the largest tile.
pub(super) const TILE: usize = 8;

/// The most outliers of a block.
pub(super) const OUTLIERS: usize = 4;

/// `T` rows × 32 inputs, `scale · q`. One address and constants reach all of it, and a tile's blocks are read in order.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(in crate::matrix) struct Tile<const T: usize> {
    /// In ±127.
    pub(super) q: [[i8; INPUTS]; T],
    pub(super) scale: [f32; T],
    /// `scale · Σ q`
    pub(super) sum: [f32; T],
    /// `-8 · Σ q`: what a weight's zero point of 8 takes off an integer dot product.
    pub(super) minus_eight: [i32; T],
    /// The same over the first sixteen inputs.
    pub(super) minus_eight_low: [i32; T],
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
    // SAFETY: arrays of integers and floats in C's order: any bytes are values, and there is no padding, as all sizes
    // are multiples of four bytes, the alignment.
    unsafe impl<const T: usize> Pod for Tile<T> {}
}

/// An input that is left out of its block, because the others would be rounded too coarsely beside it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Outlier {
    pub(super) input: u32,
    /// Of its tile.
    pub(super) row: u32,
    pub(super) x: f32,
}

/// Quantised rows, and which tiles they are in: as many of eight as there are, then of four, two and one.
#[derive(Debug, Default)]
pub(in crate::matrix) struct Rows {
    pub(super) rows: usize,
    /// Blocks of a row.
    pub(super) blocks: usize,
    /// Tiles one after the other, each `[blocks]` of [`Tile`].
    pub(super) tiles: Vec<Unit>,
    /// `[rows, blocks · OUTLIERS]`: those of a tile begin at its first row.
    pub(super) outliers: Vec<Outlier>,
    /// How many a tile has, at its first row.
    pub(super) counts: Vec<u32>,
}

impl Rows {
    /// The blocks of the tile whose first row is `first`.
    #[inline(always)]
    pub(super) fn tile<const T: usize>(&self, first: usize) -> &[Tile<T>] {
        let row = self.blocks * ROW_UNITS;
        bytemuck::cast_slice(&self.tiles[first * row..(first + T) * row])
    }

    /// The outliers of that tile, in an order in which neighbours are of different rows.
    #[inline(always)]
    pub(super) fn outliers(&self, first: usize) -> &[Outlier] {
        &self.outliers[first * self.blocks * OUTLIERS..][..self.counts[first] as usize]
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
        assert_eq!(size_of::<Tile<1>>(), 48);
        assert_eq!(size_of::<Tile<8>>(), 8 * 48);
        assert_eq!(align_of::<Tile<8>>(), align_of::<Unit>());
        assert_eq!(ROW_UNITS, 3);
    }
}

//! The plan of a step's attention: which rows attend together, and how the work is split into
//! tasks. Made once per step.

use std::ops::Range;

use super::cache::BLOCK_POSITIONS;

/// Blocks of a partial: long enough that adding partials costs little, short enough that a
/// partial's keys and values stay in the second cache level, and that a context of a few thousand
/// positions keeps several threads busy.
pub(super) const PARTIAL_BLOCKS: usize = 16;

/// Positions of a partial.
pub(super) const PARTIAL_POSITIONS: usize = PARTIAL_BLOCKS * BLOCK_POSITIONS;

/// One row that attends.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// Its position. It sees positions up to and including its own.
    pub position: usize,
    /// The block table of its sequence.
    pub blocks: &'a [u32],
}

/// The minimum number of tasks per thread if contexts are long enough to be split, so that a late
/// thread does not delay the others for long.
const TASKS_PER_THREAD: usize = 4;

/// The rows of a step, and how they are split into tasks. The split never affects the results.
#[derive(Debug)]
pub struct AttentionPlan<'a> {
    pub(super) rows: usize,
    pub(super) tiles: Vec<Tile<'a>>,
    pub(super) spans: Vec<Span>,
    /// Tiles whose context is split into several spans.
    pub(super) cut: Vec<usize>,
    /// Number of slots for partials, over all tiles that are split.
    pub(super) slots: usize,
}

/// Neighbouring rows of one sequence whose positions lie in one block. They read the same keys and
/// values, and store theirs in that block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tile<'a> {
    pub(super) first_row: usize,
    pub(super) rows: usize,
    /// Position of the first row.
    pub(super) position: usize,
    pub(super) blocks: &'a [u32],
    /// The first of its `[rows, partials]` slots, if its context is split.
    pub(super) slot: Option<usize>,
}

impl Tile<'_> {
    /// The block that the rows' own keys and values are in.
    pub(super) fn own_block(&self) -> usize {
        self.blocks[self.position / BLOCK_POSITIONS] as usize
    }

    /// Number of partials from position 0 to the last row's.
    pub(super) fn partials(&self) -> usize {
        (self.position + self.rows).div_ceil(PARTIAL_POSITIONS)
    }
}

/// Some or all partials of a tile; a task for each key and value head.
#[derive(Clone, Debug)]
pub(super) struct Span {
    pub(super) tile: usize,
    pub(super) partials: Range<usize>,
}

impl<'a> AttentionPlan<'a> {
    /// Plans the attention of `rows`, in which the rows of one sequence are neighbours in order of
    /// position.
    ///
    /// # Panics
    /// If a block table is too short, or two sequences are to store in one block.
    pub fn new(rows: &[Query<'a>], kv_heads: usize, threads: usize) -> Self {
        let mut tiles: Vec<Tile<'a>> = Vec::new();
        for (index, row) in rows.iter().enumerate() {
            assert!(
                row.position / BLOCK_POSITIONS < row.blocks.len(),
                "a block table of {} blocks has no position {}",
                row.blocks.len(),
                row.position
            );
            match tiles.last_mut() {
                Some(tile)
                    if std::ptr::eq(tile.blocks, row.blocks)
                        && row.position == tile.position + tile.rows
                        && !row.position.is_multiple_of(BLOCK_POSITIONS) =>
                {
                    tile.rows += 1;
                }
                _ => tiles.push(Tile {
                    first_row: index,
                    rows: 1,
                    position: row.position,
                    blocks: row.blocks,
                    slot: None,
                }),
            }
        }
        // Several threads store tiles at once, which is sound only because of this.
        let mut written: Vec<usize> = tiles.iter().map(Tile::own_block).collect();
        written.sort_unstable();
        assert!(
            written.windows(2).all(|pair| pair[0] != pair[1]),
            "two sequences store in one block"
        );

        let work = |tile: &Tile<'_>| tile.rows * tile.partials();
        let all: usize = tiles.iter().map(work).sum();
        let share = (all * kv_heads).div_ceil(threads * TASKS_PER_THREAD);
        let (mut spans, mut cut, mut slots) = (Vec::with_capacity(tiles.len()), Vec::new(), 0);
        for (index, tile) in tiles.iter_mut().enumerate() {
            let partials = tile.partials();
            let mut step = partials;
            if threads > 1 && work(tile) > share && partials > 1 {
                step = (share / tile.rows).max(1);
                tile.slot = Some(slots);
                slots += tile.rows * partials;
                cut.push(index);
            }
            spans.extend((0..partials).step_by(step).map(|start| Span {
                tile: index,
                partials: start..partials.min(start + step),
            }));
        }
        Self {
            rows: rows.len(),
            tiles,
            spans,
            cut,
            slots,
        }
    }
}

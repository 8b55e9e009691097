//! Which rows attend together, and how a step's attention is cut into tasks. Made once for a step.

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
    /// Its position; it sees positions up to and with its own.
    pub position: usize,
    /// The block table of its sequence.
    pub blocks: &'a [u32],
}

/// Tasks per thread that a step's attention is cut into, at least, where contexts are long enough
/// to be cut: so that a late thread does not hold up the others for long.
const TASKS_PER_THREAD: usize = 4;

/// The rows of a step, and how they are cut into tasks. The cut decides who computes what when,
/// never what is computed.
#[derive(Debug)]
pub struct AttentionPlan<'a> {
    pub(super) rows: usize,
    pub(super) tiles: Vec<Tile<'a>>,
    pub(super) spans: Vec<Span>,
    /// Tiles that are cut into several spans.
    pub(super) cut: Vec<usize>,
    /// Results of single partials that spans leave, over all tiles that are cut.
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
    /// The first of its slots, if its context is cut: `[rows, partials]` of them.
    pub(super) slot: Option<usize>,
}

impl Tile<'_> {
    /// The block that the rows' own keys and values are in.
    pub(super) fn own_block(&self) -> usize {
        self.blocks[self.position / BLOCK_POSITIONS] as usize
    }

    /// Partials from position 0 to the last row's.
    pub(super) fn partials(&self) -> usize {
        (self.position + self.rows).div_ceil(PARTIAL_POSITIONS)
    }
}

/// A task for each key and value head: some or all partials of a tile.
#[derive(Clone, Debug)]
pub(super) struct Span {
    pub(super) tile: usize,
    pub(super) partials: Range<usize>,
}

impl<'a> AttentionPlan<'a> {
    /// Plans for rows of which those of one sequence are neighbours in order of position.
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
        // Tiles are stored by several threads at once: this is what makes that sound.
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

//! Neighbouring panels of one layout, which a product goes through in order.

use std::ops::Range;

/// Some neighbouring panels of a matrix.
#[derive(Clone, Copy)]
pub(super) struct Stretch<'a, B> {
    /// All panels of the matrix.
    blocks: &'a [B],
    per_panel: usize,
    first: usize,
    end: usize,
}

impl<'a, B> Stretch<'a, B> {
    /// The panels `panels` of a matrix whose panels have `per_panel` blocks each.
    ///
    /// # Panics
    /// If the matrix has fewer panels.
    pub(super) fn new(blocks: &'a [B], per_panel: usize, panels: Range<usize>) -> Self {
        assert!(panels.end * per_panel <= blocks.len(), "panels {panels:?}");
        Self {
            blocks,
            per_panel,
            first: panels.start,
            end: panels.end,
        }
    }

    /// Number of panels.
    pub(super) fn len(&self) -> usize {
        self.end - self.first
    }

    /// Index and blocks of each panel.
    #[inline(always)]
    pub(super) fn iter(self) -> impl Iterator<Item = (usize, &'a [B])> {
        let blocks = &self.blocks[self.first * self.per_panel..self.end * self.per_panel];
        (self.first..).zip(blocks.chunks_exact(self.per_panel))
    }

    /// The panel after panel `index` of the matrix, even if it lies outside this range, because
    /// this thread or another reads it next. Empty after the last panel.
    #[inline(always)]
    pub(super) fn after(&self, index: usize) -> &'a [B] {
        let start = (index + 1) * self.per_panel;
        self.blocks.get(start..start + self.per_panel).unwrap_or(&[])
    }
}

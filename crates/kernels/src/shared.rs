//! A matrix of which each task of a parallel region writes its own part.
#![expect(
    unsafe_code,
    reason = "disjoint writes from several threads, which slices cannot express"
)]

use std::marker::PhantomData;

/// Rows `[rows, stride]` that tasks of a parallel region write in disjoint pieces.
///
/// The kernels of this crate guarantee disjointness: each splits its output by columns or by rows
/// over its tasks, and the pool runs every task once.
#[derive(Clone, Copy)]
pub(crate) struct SharedRows<'a, T = f32> {
    start: *mut T,
    len: usize,
    stride: usize,
    exclusive: PhantomData<&'a mut [T]>,
}

// SAFETY: the pointer stands for an exclusive borrow of plain numbers; tasks write disjoint pieces
// of it (see the type), and the borrow ends after the region.
unsafe impl<T: Send> Send for SharedRows<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SharedRows<'_, T> {}

impl<'a, T: Copy> SharedRows<'a, T> {
    pub(crate) fn new(data: &'a mut [T], stride: usize) -> Self {
        Self {
            start: data.as_mut_ptr(),
            len: data.len(),
            stride,
            exclusive: PhantomData,
        }
    }

    /// All columns of `rows` rows from `first` on, for the one task of the region that owns them.
    #[expect(
        clippy::mut_from_ref,
        reason = "the owner of the rows is one task, see the type"
    )]
    pub(crate) fn rows(&self, first: usize, rows: usize) -> &mut [T] {
        let (from, len) = (first * self.stride, rows * self.stride);
        assert!(from + len <= self.len, "rows {first}..{}", first + rows);
        // SAFETY: in bounds by the assertion; exclusive because the tasks of a region own disjoint
        // rows.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(from), len) }
    }

    /// Copies `values` to columns `at..` of a row. No other task may touch these elements in this
    /// region.
    #[inline(always)]
    pub(crate) fn write(&self, row: usize, at: usize, values: &[T]) {
        self.slice(row, at, values.len()).copy_from_slice(values);
    }

    /// Columns `at..at + len` of a row, for the one task of the region that owns them.
    #[inline(always)]
    #[expect(
        clippy::mut_from_ref,
        reason = "the owner of the columns is one task, see the type"
    )]
    pub(crate) fn slice(&self, row: usize, at: usize, len: usize) -> &mut [T] {
        let from = row * self.stride + at;
        assert!(
            at + len <= self.stride && from + len <= self.len,
            "columns {at}..{} of row {row}",
            at + len
        );
        // SAFETY: in bounds by the assertion; exclusive because the tasks of a region own disjoint
        // columns.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(from), len) }
    }
}

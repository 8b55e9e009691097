//! A matrix that the threads of one parallel region write together, each its own part.
#![expect(
    unsafe_code,
    reason = "disjoint writes from several threads, which slices cannot express"
)]

use std::marker::PhantomData;

/// Rows `[rows, stride]` that tasks of a parallel region write in disjoint pieces.
///
/// Disjointness is the promise of the kernels in this crate: each splits its output by columns or by rows over
/// its tasks, and the pool runs every task once.
#[derive(Clone, Copy)]
pub(crate) struct SharedRows<'a> {
    start: *mut f32,
    len: usize,
    stride: usize,
    exclusive: PhantomData<&'a mut [f32]>,
}

// SAFETY: the pointer stands for an exclusive borrow of plain floats; tasks write disjoint pieces of it (see the
// type), and the borrow ends after the region.
unsafe impl Send for SharedRows<'_> {}
// SAFETY: as above.
unsafe impl Sync for SharedRows<'_> {}

impl<'a> SharedRows<'a> {
    pub(crate) fn new(data: &'a mut [f32], stride: usize) -> Self {
        Self {
            start: data.as_mut_ptr(),
            len: data.len(),
            stride,
            exclusive: PhantomData,
        }
    }

    /// Copies `values` to columns `at..` of a row. No other task may touch these elements in this region.
    #[inline(always)]
    pub(crate) fn write(&self, row: usize, at: usize, values: &[f32]) {
        self.slice(row, at, values.len()).copy_from_slice(values);
    }

    /// Columns `at..at + len` of a row, for the one task of the region that owns them.
    #[inline(always)]
    #[expect(
        clippy::mut_from_ref,
        reason = "the owner of the columns is one task, see the type"
    )]
    pub(crate) fn slice(&self, row: usize, at: usize, len: usize) -> &mut [f32] {
        let from = row * self.stride + at;
        assert!(
            at + len <= self.stride && from + len <= self.len,
            "columns {at}..{} of row {row}",
            at + len
        );
        // SAFETY: in bounds by the assertion; exclusive because the tasks of a region own disjoint columns.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(from), len) }
    }
}

//! Packed weight matrices and their product with rows of activations.
//!
//! A weight `[out, in]` is stored in *panels* of sixteen outputs, so that vector lanes are outputs
//! and no sum ever crosses lanes. The layout of a panel, and the format of the activations that it
//! is multiplied with, depend on the storage type:
//!
//! | storage | activations | sums |
//! | --- | --- | --- |
//! | F32, F16 | float32 ([`float`]) | float32 |
//! | BF16 | brain floats ([`bf16`]) | float32 |
//! | eight bits of adapters ([`crate::scaled`]) | float32 | float32 |
//! | Q4_0 to Q6_K | eight bits, per row and 32 inputs ([`int8`]) | exact in a block, then float32 |
//!
//! With [`Precision::Exact`], activations and sums are float32 throughout. Quantised weights keep
//! the bits of the file, re-ordered.
//!
//! Each output's sum is taken in a fixed order, which does not depend on the number of rows or
//! threads or on the instruction set. A row's result is the same to the bit in any batch.

mod activations;
mod bf16;
mod float;
mod int8;
mod pack;
mod panels;
mod prefetch;
mod product;
mod stretch;
mod target;
#[cfg(test)]
mod tests;

pub use activations::{ActivationScratch, Activations};
pub use pack::{PackError, Precision, RowOrder};
pub(crate) use prefetch::Prefetch;
pub(crate) use product::overlap;
pub use product::{Part, matmul};
pub(crate) use target::Target;

use std::ops::Range;

use crate::isa::{InstructionSet, LANES};
use panels::Panels;

/// A weight matrix `[out, in]`, packed for [`matmul`].
#[derive(Debug)]
pub struct PackedMatrix {
    out: usize,
    inp: usize,
    panels: Panels,
}

impl PackedMatrix {
    /// Number of outputs, which are rows of the weight.
    pub fn out(&self) -> usize {
        self.out
    }

    /// Number of inputs, which are columns of the weight.
    pub fn inp(&self) -> usize {
        self.inp
    }

    /// Memory, in bytes.
    pub fn bytes(&self) -> usize {
        self.panels.bytes()
    }

    /// The packed weights as bytes.
    pub(crate) fn memory(&self) -> &[u8] {
        self.panels.memory()
    }

    /// Decodes the weights of output `row` into `to`, `[in]`.
    ///
    /// # Panics
    /// If `row` is not below `out` or `to` is not `in` long.
    pub fn row(&self, row: usize, to: &mut [f32]) {
        assert!(row < self.out, "row {row} of {}", self.out);
        assert_eq!(to.len(), self.inp, "length of a row");
        self.panels.row(row, to);
    }

    /// Number of panels of sixteen outputs.
    pub(crate) fn panels(&self) -> usize {
        self.out.div_ceil(LANES)
    }

    /// Multiplies some panels with all rows of `x`, which is prepared for this matrix. Meanwhile it
    /// issues `prefetch`, except for layouts in float32.
    pub(crate) fn multiply_panels(
        &self,
        panels: Range<usize>,
        x: &Activations<'_>,
        to: Target<'_>,
        prefetch: Prefetch<'_>,
    ) {
        self.panels
            .multiply_on(InstructionSet::current(), panels, x, to, prefetch);
    }
}

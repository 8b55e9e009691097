//! Packed weight matrices and their product with rows of activations.
//!
//! A weight `[out, in]` is stored in *panels* of sixteen outputs. Inside a panel the weights lie input by input,
//! the sixteen outputs side by side, so that one vector holds the weights of sixteen outputs for one input: lanes
//! are outputs, and no sum ever crosses lanes. Quantised weights keep their file's bits, re-ordered (see
//! [`layout`]); a weight is decoded in a register to exactly the value that [`crate::BlockType::decode`] gives,
//! but for the rounding of one fused multiply-add.
//!
//! Each output is `(Σ even inputs) + (Σ odd inputs) + (the last of an odd number)`, each sum taken in order with fused
//! multiply-adds. That
//! order depends on neither the number of rows nor threads nor the instruction set: a row's result is the same to
//! the bit in any batch.

mod layout;
mod pack;
mod product;
#[cfg(test)]
mod tests;

pub use pack::{PackError, RowOrder};
pub use product::matmul;

use crate::isa::{InstructionSet, LANES};
use layout::Panels;

/// A weight matrix `[out, in]`, packed for [`matmul`].
#[derive(Debug)]
pub struct PackedMatrix {
    out: usize,
    inp: usize,
    panels: Panels,
}

impl PackedMatrix {
    /// Outputs: rows of the weight.
    pub fn out(&self) -> usize {
        self.out
    }

    /// Inputs: columns of the weight.
    pub fn inp(&self) -> usize {
        self.inp
    }

    /// Memory, in bytes.
    pub fn bytes(&self) -> usize {
        self.panels.bytes()
    }

    /// Decodes the weights of output `row` into `to`, `[in]`.
    ///
    /// # Panics
    /// If `row` is not below `out` or `to` is not `in` long.
    pub fn row(&self, row: usize, to: &mut [f32]) {
        assert!(row < self.out, "row {row} of {}", self.out);
        assert_eq!(to.len(), self.inp, "length of a row");
        let mut panel = vec![[0.0; LANES]; self.inp];
        self.panels.expand(row / LANES, &mut panel);
        for (to, lanes) in to.iter_mut().zip(&panel) {
            *to = lanes[row % LANES];
        }
    }

    /// The sums of panel `index` for each row of `x`, `[rows, in]`.
    pub(crate) fn multiply_panel(&self, index: usize, x: &[f32], emit: &mut dyn FnMut(usize, &[f32; LANES])) {
        self.panels
            .multiply_on(InstructionSet::current(), index, x, self.inp, emit);
    }

    /// Decodes panel `index` into `to`, `[in, 16]`: the weights of outputs `16·index..`, padded with zeros.
    fn expand(&self, index: usize, to: &mut [[f32; LANES]]) {
        self.panels.expand(index, to);
    }
}

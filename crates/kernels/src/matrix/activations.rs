//! The input of a product, in the formats that packed weights are multiplied with.

use super::bf16;
use super::float::Rows;
use super::int8;
use crate::pool::Pool;
use crate::shared::SharedRows;

/// The format of activations that a layout needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Float,
    Bf16,
    Int8,
}

/// Buffers of [`Activations`], kept from product to product.
#[derive(Debug, Default)]
pub struct ActivationScratch {
    pub(super) bf16: Vec<bf16::Inputs>,
    pub(super) int8: int8::Rows,
}

/// Rows of activations, `[rows, width]`, for all matrices that share the input. Each format is
/// converted when the first matrix needs it.
#[derive(Debug)]
pub struct Activations<'a> {
    pub(super) floats: Rows<'a>,
    pub(super) scratch: &'a mut ActivationScratch,
    has_bf16: bool,
    has_int8: bool,
}

impl<'a> Activations<'a> {
    /// Wraps `x`, `[rows, width]`, row-major.
    ///
    /// # Panics
    /// If `x` is not whole rows.
    pub fn new(x: &'a [f32], width: usize, scratch: &'a mut ActivationScratch) -> Self {
        assert!(
            x.len().is_multiple_of(width),
            "{} values in rows of {width}",
            x.len()
        );
        Self {
            floats: Rows { data: x, width },
            scratch,
            has_bf16: false,
            has_int8: false,
        }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.floats.data.len() / self.floats.width
    }

    /// Converts to the format that a layout needs, if that is not done yet.
    pub(super) fn prepare(&mut self, pool: &Pool, wanted: Wanted) {
        let Rows { data, width } = self.floats;
        match wanted {
            Wanted::Bf16 if !self.has_bf16 => {
                self.has_bf16 = true;
                let pairs = width.div_ceil(2);
                let rows = self.rows();
                self.scratch.bf16.resize(rows * pairs, [0; 2]);
                let to = SharedRows::new(&mut self.scratch.bf16, pairs);
                pool.run_chunked(rows, |row| {
                    crate::isa::dispatch(bf16::Round {
                        x: &data[row * width..][..width],
                        to: to.slice(row, 0, pairs),
                    });
                });
            }
            Wanted::Int8 if !self.has_int8 => {
                self.has_int8 = true;
                self.scratch.int8.quantise(pool, data, width);
            }
            Wanted::Float | Wanted::Bf16 | Wanted::Int8 => {}
        }
    }
}

//! What all tasks of one layer's attention read and write.

use super::Attention;
use super::cache::{Shape, Store};
use super::format::Format;
use crate::shared::SharedRows;

/// The attention of a step's rows in one layer, shared by its tasks.
#[derive(Clone, Copy)]
pub(super) struct Work<'a, F: Format> {
    pub(super) store: &'a Store<F>,
    pub(super) shape: Shape,
    pub(super) settings: Attention,
    /// `[rows, q_stride]`, heads first.
    pub(super) q: &'a [f32],
    pub(super) q_stride: usize,
    /// `[rows, heads · head_dim]`
    pub(super) out: SharedRows<'a>,
    /// `[rows, heads · 2]`: largest score and sum of weights of the rows of tiles that are not cut.
    pub(super) sums: SharedRows<'a>,
    /// `[slots, heads · (head_dim + 2)]`: the partials of the tiles that are, each head's values
    /// and sums.
    pub(super) slots: SharedRows<'a>,
}

//! Tensors of an adapter that is read from another format than PEFT's LoRA, under the names that
//! PEFT would give them.

use std::borrow::Cow;

use multigraft_model::Matrix;
use multigraft_weights::{BlockType, Tensor};

use crate::tensors::Named;

/// A tensor as PEFT would have saved it.
pub(crate) struct Made<'a> {
    /// The name that PEFT gives such a tensor.
    place: String,
    /// What messages call it: the tensor of the file that it was made from.
    name: Cow<'a, str>,
    /// Outermost first.
    pub(crate) shape: Vec<usize>,
    pub(crate) block_type: BlockType,
    pub(crate) bytes: Cow<'a, [u8]>,
}

impl<'a> Made<'a> {
    /// A tensor of the file as it is.
    pub(crate) fn borrowed(tensor: Tensor<'a>) -> Self {
        Self {
            place: tensor.name.to_owned(),
            name: Cow::Borrowed(tensor.name),
            shape: tensor.shape.to_vec(),
            block_type: tensor.block_type,
            bytes: Cow::Borrowed(tensor.bytes),
        }
    }

    /// A matrix that was made from the tensor `name` and others.
    pub(crate) fn of(matrix: &Matrix, place: String, name: &'a str) -> Self {
        Self {
            place,
            name: Cow::Borrowed(name),
            shape: vec![matrix.rows, matrix.cols],
            block_type: BlockType::F32,
            bytes: Cow::Owned(
                matrix
                    .values
                    .iter()
                    .flat_map(|value| value.to_le_bytes())
                    .collect(),
            ),
        }
    }

    /// The same under another name of PEFT's.
    pub(crate) fn at(mut self, place: String) -> Self {
        self.place = place;
        self
    }

    /// As those read it that read PEFT's own.
    pub(crate) fn named(&self) -> Named<'_> {
        Named {
            place: &self.place,
            tensor: Tensor {
                name: &self.name,
                shape: &self.shape,
                block_type: self.block_type,
                bytes: &self.bytes,
            },
        }
    }
}

//! Tensors that were derived from another format, under the names that PEFT would give them.

use std::borrow::Cow;

use multigraft_model::Matrix;
use multigraft_weights::{BlockType, Tensor};

use crate::tensors::NamedTensor;

/// A tensor in the form in which PEFT would have saved it.
pub(crate) struct Derived<'a> {
    /// PEFT's name for such a tensor.
    peft_name: String,
    /// The name for messages: that of the tensor in the file that it was derived from.
    name: Cow<'a, str>,
    /// Dimensions, outermost first.
    pub(crate) shape: Vec<usize>,
    pub(crate) block_type: BlockType,
    pub(crate) bytes: Cow<'a, [u8]>,
}

impl<'a> Derived<'a> {
    /// A tensor of the file, unchanged.
    pub(crate) fn borrowed(tensor: Tensor<'a>) -> Self {
        Self {
            peft_name: tensor.name.to_owned(),
            name: Cow::Borrowed(tensor.name),
            shape: tensor.shape.to_vec(),
            block_type: tensor.block_type,
            bytes: Cow::Borrowed(tensor.bytes),
        }
    }

    /// A matrix that was derived from the tensor `name` and others.
    pub(crate) fn from_matrix(matrix: &Matrix, peft_name: String, name: &'a str) -> Self {
        Self {
            peft_name,
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

    /// The same tensor under another of PEFT's names.
    pub(crate) fn renamed(mut self, peft_name: String) -> Self {
        self.peft_name = peft_name;
        self
    }

    /// The tensor as [`crate::tensors`] takes it.
    pub(crate) fn named(&self) -> NamedTensor<'_> {
        NamedTensor {
            peft_name: &self.peft_name,
            tensor: Tensor {
                name: &self.name,
                shape: &self.shape,
                block_type: self.block_type,
                bytes: &self.bytes,
            },
        }
    }
}

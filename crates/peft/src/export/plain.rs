//! Tensors to export, in the smallest float type that is lossless.

use half::{bf16, f16};
use multigraft_model::Matrix;
use multigraft_weights::BlockType;

/// A tensor to export.
pub(super) struct Plain {
    pub(super) name: String,
    /// Dimensions, outermost first.
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<f32>,
}

impl Plain {
    pub(super) fn matrix(name: String, matrix: &Matrix) -> Self {
        Self {
            name,
            shape: vec![matrix.rows, matrix.cols],
            values: matrix.values.clone(),
        }
    }

    pub(super) fn vector(name: String, values: &[f32]) -> Self {
        Self {
            name,
            shape: vec![values.len()],
            values: values.to_vec(),
        }
    }
}

/// The smallest float type that represents all values of all tensors exactly.
pub(super) fn smallest(tensors: &[Plain]) -> BlockType {
    let holds = |rounded: fn(f32) -> f32| {
        let mut values = tensors.iter().flat_map(|tensor| &tensor.values);
        values.all(|&value| rounded(value).to_bits() == value.to_bits())
    };
    if holds(|value| bf16::from_f32(value).to_f32()) {
        BlockType::Bf16
    } else if holds(|value| f16::from_f32(value).to_f32()) {
        BlockType::F16
    } else {
        BlockType::F32
    }
}

/// Encodes values in a float type, with rounding.
pub(super) fn encode(values: impl Iterator<Item = f32>, block_type: BlockType) -> Vec<u8> {
    match block_type {
        BlockType::F16 => values
            .flat_map(|value| f16::from_f32(value).to_le_bytes())
            .collect(),
        BlockType::Bf16 => values
            .flat_map(|value| bf16::from_f32(value).to_le_bytes())
            .collect(),
        _ => values.flat_map(f32::to_le_bytes).collect(),
    }
}

/// The safetensors library's name of a float type.
pub(super) fn dtype(block_type: BlockType) -> safetensors::Dtype {
    match block_type {
        BlockType::F16 => safetensors::Dtype::F16,
        BlockType::Bf16 => safetensors::Dtype::BF16,
        _ => safetensors::Dtype::F32,
    }
}

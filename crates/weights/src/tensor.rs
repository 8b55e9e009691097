//! A tensor of a file.

use multigraft_kernels::BlockType;

/// A view of one tensor in an open file. `bytes` is exactly the storage of [`Tensor::len`] weights:
/// this is checked when the file is opened.
#[derive(Clone, Copy)]
pub struct Tensor<'a> {
    /// The name in the file.
    pub name: &'a str,
    /// Row-major, outermost dimension first (for GGUF, the file's dimensions reversed): a linear
    /// layer's weight is `[outputs, inputs]` in both formats.
    pub shape: &'a [usize],
    /// How the weights are stored.
    pub block_type: BlockType,
    /// The weights, little-endian, rows one after another.
    pub bytes: &'a [u8],
}

impl Tensor<'_> {
    /// Number of weights.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no weights (a dimension is 0).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The length of a row: the last dimension (1 for a scalar).
    pub fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// How many rows of [`Tensor::cols`] weights there are: 1 for a vector, the first dimension for
    /// a matrix, the product of all but the last dimension for more.
    pub fn rows(&self) -> usize {
        self.shape
            .split_last()
            .map_or(1, |(_, outer)| outer.iter().product())
    }

    /// The weights as floats, decoded and in the file's order. Takes `4·len` bytes.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.len()];
        self.block_type.decode(self.bytes, &mut out);
        out
    }
}

impl std::fmt::Debug for Tensor<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tensor")
            .field("name", &self.name)
            .field("shape", &self.shape)
            .field("block_type", &self.block_type)
            .finish_non_exhaustive()
    }
}

//! The types that adapter weights can be stored in.

use crate::isa::LANES;
use crate::scaled::ScaledInt8;

/// How adapter weights are stored in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoraDtype {
    /// 32-bit floats.
    F32,
    /// Brain floats: half the memory of float32, at the precision that most adapters are trained
    /// in.
    Bf16,
    /// Eight-bit integers with a scale for every sixteen weights: 56 % of the memory of brain
    /// floats. Updates of Gaussian A and B are 0.7 % off (root mean square).
    Int8,
}

impl LoraDtype {
    /// Memory of sixteen weights, in bytes.
    pub(crate) fn lanes_bytes(self) -> usize {
        match self {
            Self::F32 => size_of::<[f32; LANES]>(),
            Self::Bf16 => size_of::<[half::bf16; LANES]>(),
            Self::Int8 => size_of::<ScaledInt8>(),
        }
    }
}

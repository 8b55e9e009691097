//! Memory of an adapter once it is packed.

use multigraft_kernels::{LoraDtype, PackedLora, PackedMatrix};
use multigraft_model::{AdapterWeights, EmbeddingDelta, LinearDelta, LinearId};

use crate::adapter::is_copy;
use crate::model::CpuBase;

const FLOAT: usize = size_of::<f32>();

impl CpuBase {
    /// Memory of an adapter once it is packed, in bytes: `PackedAdapter::bytes` before any of it is
    /// taken.
    pub(crate) fn adapter_bytes(&self, weights: &AdapterWeights, dtype: LoraDtype) -> usize {
        let linears = weights
            .linears
            .iter()
            .map(|(id, delta)| self.linear_bytes(*id, delta, dtype));
        let embedding = weights.embedding.as_ref();
        linears.sum::<usize>() + embedding.map_or(0, |delta| self.embedding_bytes(delta))
    }

    fn linear_bytes(&self, id: LinearId, delta: &LinearDelta, dtype: LoraDtype) -> usize {
        // A change that does not fit the base is refused when it is packed.
        let Some((base, base_bias)) = self.linear(id) else {
            return 0;
        };
        let (out, inp) = (base.out(), base.inp());
        let whole = match dtype {
            LoraDtype::Int8 => LoraDtype::Bf16,
            dtype => dtype,
        };
        let low_rank = delta.low_rank.as_ref();
        let gained_bias = delta.gain.is_some() && base_bias.is_some();
        let vectors = [
            delta.magnitude.is_some() || delta.gain.is_some(),
            low_rank.is_some_and(|low_rank| low_rank.bias.is_some()),
            delta.base_bias.is_some() || gained_bias,
        ];
        let replaced = delta.replaced.as_ref().filter(|matrix| !is_copy(matrix, base));
        low_rank.map_or(0, |low_rank| PackedLora::size(low_rank.a.rows, inp, out, dtype))
            + vectors.into_iter().filter(|has| *has).count() * out * FLOAT
            + replaced.map_or(0, |_| PackedMatrix::float_size(out, inp, whole))
            + PackedMatrix::float_size(delta.rows.len(), inp, whole)
    }

    fn embedding_bytes(&self, delta: &EmbeddingDelta) -> usize {
        let rows: usize = delta.rows.iter().map(|(_, row)| row.len()).sum();
        let low_rank = delta.low_rank.as_ref();
        let low_rank = low_rank.map_or(0, |low_rank| low_rank.a.values.len() + low_rank.b.values.len());
        let replaced = delta.replaced.as_ref();
        let replaced = replaced.filter(|matrix| !is_copy(matrix, &self.embedding));
        (rows + low_rank) * FLOAT
            + replaced.map_or(0, |matrix| {
                PackedMatrix::float_size(matrix.rows, matrix.cols, LoraDtype::F32)
            })
    }
}

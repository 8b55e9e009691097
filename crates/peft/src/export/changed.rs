//! Merges an adapter into the base's weights, row by row in float64. Both merged forms use this.

use std::collections::HashMap;

use multigraft_model::{EmbeddingDelta, LinearDelta, LinearId, LowRank, Module, ModuleKind};
use multigraft_weights::{BlockType, Tensor};

use super::ExportError;
use super::plain::encode;
use crate::base::BaseShape;
use crate::info::AdapterFile;

/// The changes of linear maps, by map.
pub(super) type Linears<'a> = HashMap<LinearId, &'a LinearDelta>;

pub(super) fn linears(adapter: &AdapterFile) -> Linears<'_> {
    let linears = adapter.weights.linears.iter();
    linears.map(|(id, delta)| (*id, delta)).collect()
}

/// Checks that the base has a bias, according to `has`, wherever the adapter changes one.
pub(super) fn biases(
    linears: &Linears<'_>,
    shape: &BaseShape,
    has: impl Fn(&Module) -> bool,
) -> Result<(), ExportError> {
    for module in shape.modules() {
        let ModuleKind::Linear(id) = module.kind else {
            continue;
        };
        if linears.get(&id).is_some_and(|delta| delta.adds_bias()) && !has(module) {
            return Err(cannot(format!(
                "it adds a bias to {}, which has none in the base",
                module.path
            )));
        }
    }
    Ok(())
}

/// Checks that a tensor of the base has the shape that the adapter was checked against.
pub(super) fn check(tensor: &Tensor<'_>, module: &Module, change: &Change<'_>) -> Result<(), ExportError> {
    let expected: &[usize] = match change {
        Change::Bias(_) => &[module.out],
        _ => &[module.out, module.inp],
    };
    match tensor.shape == expected {
        true => Ok(()),
        false => Err(cannot(format!(
            "tensor `{}` of the base has shape {:?}, not {expected:?}",
            tensor.name, tensor.shape
        ))),
    }
}

pub(super) fn cannot(reason: impl Into<String>) -> ExportError {
    ExportError::Cannot {
        form: "a merged model",
        reason: reason.into(),
    }
}

/// How the adapter changes a tensor of the base.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change<'a> {
    Linear(&'a LinearDelta),
    Embedding(&'a EmbeddingDelta),
    /// The bias of a linear map.
    Bias(&'a LinearDelta),
}

impl Change<'_> {
    /// The changed tensor's bytes in `block_type`, which is a float type. `row_of` maps a row of
    /// the tensor to the model's row. `None` if a value exceeds the range of the type.
    pub(super) fn apply(
        &self,
        tensor: &Tensor<'_>,
        block_type: BlockType,
        row_of: impl Fn(usize) -> usize,
    ) -> Option<Vec<u8>> {
        let values = tensor.to_f32();
        let mut bytes = Vec::new();
        if let Self::Bias(delta) = self {
            let rows = values.iter().enumerate();
            let new = rows.map(|(row, value)| bias(delta, row_of(row), *value));
            bytes = encode(new, block_type);
        } else {
            for (row, values) in values.chunks_exact(tensor.cols()).enumerate() {
                let new = match self {
                    Self::Linear(delta) => linear_row(delta, row_of(row), values),
                    Self::Embedding(delta) => embedding_row(delta, row_of(row), values),
                    Self::Bias(_) => continue,
                };
                bytes.extend(encode(new.into_iter().map(|value| value as f32), block_type));
            }
        }
        let mut written = vec![0.0; values.len()];
        block_type.decode(&bytes, &mut written);
        written.iter().all(|value| value.is_finite()).then_some(bytes)
    }
}

/// The weights of one output.
fn linear_row(delta: &LinearDelta, row: usize, base: &[f32]) -> Vec<f64> {
    let replaced = delta
        .replaced
        .as_ref()
        .map(|table| &table.values[row * table.cols..][..table.cols]);
    let mut values: Vec<f64> = replaced.unwrap_or(base).iter().copied().map(f64::from).collect();
    if let Some(LowRank { a, b, scaling, .. }) = &delta.low_rank {
        for (b, a) in b.values[row * b.cols..][..b.cols]
            .iter()
            .zip(a.values.chunks_exact(a.cols))
        {
            let factor = f64::from(*scaling) * f64::from(*b);
            values
                .iter_mut()
                .zip(a)
                .for_each(|(value, a)| *value += factor * f64::from(*a));
        }
    }
    if let Some((_, row)) = delta.rows.iter().find(|(token, _)| *token as usize == row) {
        values = row.iter().copied().map(f64::from).collect();
    }
    let mut gain = delta.gain.as_ref().map_or(1.0, |gain| f64::from(gain[row]));
    if let Some(magnitude) = &delta.magnitude {
        let norm = values.iter().map(|value| value * value).sum::<f64>().sqrt();
        gain *= f64::from(magnitude[row]) / norm;
    }
    values.iter_mut().for_each(|value| *value *= gain);
    values
}

/// The embedding of one token.
fn embedding_row(delta: &EmbeddingDelta, row: usize, base: &[f32]) -> Vec<f64> {
    let replaced = delta
        .replaced
        .as_ref()
        .map(|table| &table.values[row * table.cols..][..table.cols]);
    let trained = delta
        .rows
        .iter()
        .find(|(token, _)| *token as usize == row)
        .map(|(_, row)| row.as_slice());
    let mut values: Vec<f64> = trained
        .or(replaced)
        .unwrap_or(base)
        .iter()
        .copied()
        .map(f64::from)
        .collect();
    if let Some(LowRank { a, b, scaling, .. }) = &delta.low_rank {
        for (value, b) in values.iter_mut().zip(b.values.chunks_exact(b.cols)) {
            let column = a.values[row..].iter().step_by(a.cols);
            let sum: f64 = column.zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            *value += f64::from(*scaling) * sum;
        }
    }
    values
}

/// The bias of one output.
fn bias(delta: &LinearDelta, row: usize, base: f32) -> f32 {
    let bias = delta.base_bias.as_ref().map_or(base, |bias| bias[row]);
    let own = delta
        .low_rank
        .as_ref()
        .and_then(|update| Some((update.bias.as_ref()?, update.scaling)));
    let own = own.map_or(0.0, |(own, scaling)| f64::from(scaling) * f64::from(own[row]));
    let gain = delta.gain.as_ref().map_or(1.0, |gain| f64::from(gain[row]));
    ((f64::from(bias) + own) * gain) as f32
}

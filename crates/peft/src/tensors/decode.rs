//! Decodes single tensors and the update of a module.

use multigraft_model::{LinearDelta, LowRank, Matrix};
use multigraft_weights::Tensor;

use super::name::{Part, halves};
use super::slots::Slot;
use crate::config::PeftConfig;
use crate::refusal::Refusal;

/// The change of a linear map, without replaced weights and rows.
pub(crate) fn linear(slot: &Slot<'_>, config: &PeftConfig) -> Result<LinearDelta, Refusal> {
    Ok(LinearDelta {
        low_rank: low_rank(slot, config)?,
        magnitude: slot.get(Part::Magnitude).map(finite).transpose()?,
        base_bias: slot.get(Part::Bias).map(finite).transpose()?,
        gain: None,
        replaced: None,
        rows: Vec::new(),
    })
}

/// The low-rank update of a module, if it has one.
pub(crate) fn low_rank(slot: &Slot<'_>, config: &PeftConfig) -> Result<Option<LowRank>, Refusal> {
    let (a, b) = halves(slot.module.kind);
    let (Some(a), Some(b)) = (slot.get(a), slot.get(b)) else {
        return Ok(None);
    };
    Ok(Some(LowRank {
        a: matrix(a)?,
        b: matrix(b)?,
        scaling: config.scaling(&slot.path)?,
        bias: slot.get(Part::LoraBias).map(finite).transpose()?,
        stacked: None,
    }))
}

/// Decodes a tensor as a matrix.
pub(crate) fn matrix(tensor: Tensor<'_>) -> Result<Matrix, Refusal> {
    Ok(Matrix {
        rows: tensor.rows(),
        cols: tensor.cols(),
        values: finite(tensor)?,
    })
}

/// Decodes a tensor. NaN and infinity are refused.
pub(crate) fn finite(tensor: Tensor<'_>) -> Result<Vec<f32>, Refusal> {
    let values = tensor.to_f32();
    // Without branches, because almost always all values are finite.
    if values.iter().fold(true, |all, value| all & value.is_finite()) {
        return Ok(values);
    }
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(values),
        Some(index) => Err(Refusal::NotFinite {
            tensor: tensor.name.to_owned(),
            value: values[index],
            index,
        }),
    }
}

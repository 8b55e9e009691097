//! The two tables of `[vocab, hidden]`: the embedding and the lm_head, which in a base with tied
//! embeddings are one.
//!
//! | in the file | embedding | lm_head |
//! |---|---|---|
//! | `modules_to_save` | replaced, if named | replaced, if named, tied or not |
//! | a copy of the base's weight (`base_layer.weight`) | replaced | replaced (tied: both) |
//! | a low-rank update | added | added, if it has its own, tied or not |
//! | DoRA | recomputed with the copy | with a copy recomputed, else as linear maps |
//! | trained token rows | replaced | replaced if tied, or if it has its own |
//!
//! PEFT saves a copy of the base's weight beside the update of an embedding or lm_head, and loads
//! it over the base's own.

use multigraft_model::{EmbeddingDelta, LinearDelta, LinearId, LowRank, Matrix, ModuleKind};

use super::decode::{finite, linear, low_rank, matrix};
use super::name::Part;
use super::slots::{Slot, Slots};
use super::tokens::{HeadRows, TokenRows};
use crate::base::BaseShape;
use crate::config::PeftConfig;
use crate::refusal::Refusal;

/// The changes of the two tables.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) embedding: Option<EmbeddingDelta>,
    pub(crate) head: Option<LinearDelta>,
    pub(crate) warning: Option<String>,
}

/// Reads the changes of both tables.
pub(crate) fn read(
    slots: &Slots<'_>,
    tokens: &TokenRows,
    config: &PeftConfig,
    base: &BaseShape,
) -> Result<Tables, Refusal> {
    let embedding_slot = slots.of_kind(ModuleKind::Embedding);
    let head_slot = slots.of_kind(ModuleKind::Linear(LinearId::LmHead));
    let (embedding_copy, head_copy) = copies(embedding_slot, head_slot, base.tied())?;
    let warning = warning(&embedding_copy, &head_copy);

    let mut embedding = embedding_delta(embedding_slot, embedding_copy, config)?;
    let mut head = head_delta(head_slot, head_copy, config)?;
    if let Some(tokens) = &tokens.embedding {
        embedding.rows = rows(tokens, embedding_slot)?;
    }
    match &tokens.head {
        HeadRows::None => {}
        HeadRows::Embeddings => head.rows.clone_from(&embedding.rows),
        HeadRows::Own(tokens) => head.rows = rows(tokens, head_slot)?,
    }
    let no_embedding = EmbeddingDelta::default();
    let no_head = LinearDelta::default();
    Ok(Tables {
        embedding: (embedding != no_embedding).then_some(embedding),
        head: (head != no_head).then_some(head),
        warning,
    })
}

/// The change of the embedding, without trained rows.
fn embedding_delta(
    slot: Option<&Slot<'_>>,
    copy: Option<Matrix>,
    config: &PeftConfig,
) -> Result<EmbeddingDelta, Refusal> {
    let mut delta = EmbeddingDelta {
        low_rank: None,
        replaced: copy,
        rows: Vec::new(),
    };
    let Some(slot) = slot else {
        return Ok(delta);
    };
    delta.low_rank = low_rank(slot, config)?;
    if let Some(saved) = slot.get(Part::Saved) {
        delta.replaced = Some(matrix(saved)?);
    }
    if let Some(magnitude) = slot.get(Part::Magnitude) {
        let (Some(table), Some(update)) = (delta.replaced.take(), delta.low_rank.take()) else {
            return Err(Refusal::DoraNeedsTable {
                module: slot.module.path.clone(),
            });
        };
        delta.replaced = Some(checked(
            dora_embedding(table, &update, &finite(magnitude)?),
            slot,
        )?);
    }
    Ok(delta)
}

/// The change of the lm_head, without trained rows.
fn head_delta(
    slot: Option<&Slot<'_>>,
    copy: Option<Matrix>,
    config: &PeftConfig,
) -> Result<LinearDelta, Refusal> {
    let Some(slot) = slot else {
        return Ok(LinearDelta {
            replaced: copy,
            ..LinearDelta::default()
        });
    };
    let mut delta = linear(slot, config)?;
    delta.replaced = match slot.get(Part::Saved) {
        Some(saved) => Some(matrix(saved)?),
        None => copy,
    };
    // For DoRA's norm, packing would use the base's own weight; PEFT uses the copy.
    delta = match delta {
        LinearDelta {
            low_rank: Some(update),
            magnitude: Some(magnitude),
            replaced: Some(table),
            ..
        } => {
            let replaced = Some(checked(dora_head(table, &update, &magnitude), slot)?);
            LinearDelta {
                replaced,
                ..LinearDelta::default()
            }
        }
        other => other,
    };
    Ok(delta)
}

/// The copies of the base's tables.
fn copies(
    embedding: Option<&Slot<'_>>,
    head: Option<&Slot<'_>>,
    tied: bool,
) -> Result<(Option<Matrix>, Option<Matrix>), Refusal> {
    let read = |slot: Option<&Slot<'_>>| {
        slot.and_then(|slot| slot.get(Part::BaseWeight))
            .map(matrix)
            .transpose()
    };
    let (embedding, head) = (read(embedding)?, read(head)?);
    match (embedding, head) {
        (Some(embedding), Some(head)) if tied && embedding != head => Err(Refusal::TablesDiffer),
        (Some(one), None) | (None, Some(one)) if tied => Ok((Some(one.clone()), Some(one))),
        copies => Ok(copies),
    }
}

fn warning(embedding: &Option<Matrix>, head: &Option<Matrix>) -> Option<String> {
    let copy = embedding.as_ref().or(head.as_ref())?;
    Some(format!(
        "it holds a copy of the base's embedding or lm_head ({}x{}), which is used in place of the base's own, as in PEFT; if \
         the base's vocabulary was not changed, saving it with save_embedding_layers=False leaves the copy out",
        copy.rows, copy.cols
    ))
}

/// The rows of `tokens`, from the tensor that holds one row for each.
fn rows(tokens: &[u32], slot: Option<&Slot<'_>>) -> Result<Vec<(u32, Vec<f32>)>, Refusal> {
    let Some(tensor) = slot.and_then(|slot| slot.get(Part::TokenRows)) else {
        return Ok(Vec::new());
    };
    let values = finite(tensor)?;
    let rows = values.chunks_exact(tensor.cols().max(1)).map(<[f32]>::to_vec);
    Ok(tokens.iter().copied().zip(rows).collect())
}

/// DoRA on an embedding: `m/‖W + s·(B·A)ᵀ‖ · (W + s·(B·A)ᵀ)`, with `m` and the norms by column
/// (hidden feature).
fn dora_embedding(mut table: Matrix, update: &LowRank, magnitude: &[f32]) -> Matrix {
    let LowRank { a, b, scaling, .. } = update;
    let mut squares = vec![0.0f64; table.cols];
    for (token, row) in table.values.chunks_exact_mut(table.cols).enumerate() {
        for (rank, weights) in a.values.chunks_exact(a.cols).enumerate() {
            let weight = scaling * weights[token];
            let column = b.values.iter().skip(rank).step_by(b.cols);
            row.iter_mut()
                .zip(column)
                .for_each(|(value, b)| *value += weight * b);
        }
        squares
            .iter_mut()
            .zip(&*row)
            .for_each(|(sum, &value)| *sum += square(value));
    }
    let gains: Vec<f32> = magnitude
        .iter()
        .zip(&squares)
        .map(|(&m, &sum)| gain(m, sum))
        .collect();
    for row in table.values.chunks_exact_mut(table.cols) {
        row.iter_mut()
            .zip(&gains)
            .for_each(|(value, gain)| *value *= gain);
    }
    table
}

/// DoRA on the lm_head: `m/‖W + s·B·A‖ · (W + s·B·A)`, with `m` and the norms by row (token).
fn dora_head(mut table: Matrix, update: &LowRank, magnitude: &[f32]) -> Matrix {
    let LowRank { a, b, scaling, .. } = update;
    let rows = table
        .values
        .chunks_exact_mut(table.cols)
        .zip(b.values.chunks_exact(b.cols));
    for ((row, weights), &magnitude) in rows.zip(magnitude) {
        for (weight, a) in weights.iter().zip(a.values.chunks_exact(a.cols)) {
            let weight = scaling * weight;
            row.iter_mut().zip(a).for_each(|(value, a)| *value += weight * a);
        }
        let gain = gain(magnitude, row.iter().map(|&value| square(value)).sum());
        row.iter_mut().for_each(|value| *value *= gain);
    }
    table
}

fn square(value: f32) -> f64 {
    f64::from(value) * f64::from(value)
}

fn gain(magnitude: f32, sum_of_squares: f64) -> f32 {
    (f64::from(magnitude) / sum_of_squares.sqrt()) as f32
}

/// Refuses tables with values that are not finite, which a norm of zero causes.
fn checked(table: Matrix, slot: &Slot<'_>) -> Result<Matrix, Refusal> {
    match table.values.iter().all(|value| value.is_finite()) {
        true => Ok(table),
        false => Err(Refusal::DoraNorm {
            module: slot.module.path.clone(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dora_gives_each_column_of_an_embedding_its_magnitude() {
        let table = Matrix {
            rows: 3,
            cols: 2,
            values: vec![1.0, 2.0, -3.0, 0.5, 0.25, 4.0],
        };
        let update = LowRank {
            a: Matrix {
                rows: 1,
                cols: 3,
                values: vec![1.0, -2.0, 0.5],
            },
            b: Matrix {
                rows: 2,
                cols: 1,
                values: vec![0.5, -1.0],
            },
            scaling: 2.0,
            bias: None,
            stacked: None,
        };
        let new = dora_embedding(table, &update, &[5.0, 0.5]);
        for (column, magnitude) in [5.0, 0.5].into_iter().enumerate() {
            let values: Vec<f32> = new.values.iter().skip(column).step_by(2).copied().collect();
            let norm = values.iter().map(|v| v * v).sum::<f32>().sqrt();
            assert!((norm - magnitude).abs() < 1e-6, "column {column}: {norm}");
        }
        // W + s·(B·A)ᵀ is [2, 0; -5, 4.5; 0.75, 3].
        assert!((new.values[2] / new.values[0] - -2.5).abs() < 1e-6);
        assert!((new.values[5] / new.values[3] - 3.0 / 4.5).abs() < 1e-6);
    }

    #[test]
    fn dora_gives_each_row_of_a_head_its_magnitude() {
        let table = Matrix {
            rows: 3,
            cols: 2,
            values: vec![1.0, 2.0, -3.0, 0.5, 0.25, 4.0],
        };
        let update = LowRank {
            a: Matrix {
                rows: 1,
                cols: 2,
                values: vec![0.5, -1.0],
            },
            b: Matrix {
                rows: 3,
                cols: 1,
                values: vec![1.0, -2.0, 0.5],
            },
            scaling: 2.0,
            bias: None,
            stacked: None,
        };
        let new = dora_head(table, &update, &[5.0, 0.5, 1.0]);
        for (row, magnitude) in new.values.chunks(2).zip([5.0, 0.5, 1.0]) {
            let norm = row[0].hypot(row[1]);
            assert!((norm - magnitude).abs() < 1e-6, "{row:?}: {norm}");
        }
        // W + s·B·A is [2, 0; -5, 4.5; 0.75, 3].
        assert!((new.values[3] / new.values[2] - 4.5 / -5.0).abs() < 1e-6);
        assert!((new.values[5] / new.values[4] - 4.0).abs() < 1e-6);
    }
}

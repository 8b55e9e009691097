//! VeRA: `W + diag(b) · B · diag(d) · A`, where A is the first columns and B the first rows of two
//! matrices that all modules share.

use std::collections::BTreeMap;

use multigraft_model::Matrix;
use multigraft_weights::Tensor;

use super::parts::{Factors, Parts};
use crate::refusal::Refusal;
use crate::tensors::{finite, matrix};

pub(super) const PARTS: [&str; 4] = ["vera_lambda_b", "vera_lambda_d", "vera_A", "vera_B"];

/// The matrices that all modules share.
pub(super) struct Shared {
    /// `[rank, widest in]`
    a: (String, Matrix),
    /// `[widest out, rank]`
    b: (String, Matrix),
}

impl Shared {
    /// Removes the shared matrices from the tensors that were grouped by module.
    pub(super) fn take<'a>(
        modules: &mut BTreeMap<&'a str, Vec<(&'a str, Tensor<'a>)>>,
    ) -> Result<Self, Refusal> {
        let mut take = |wanted: &'static str| {
            let mut found = Vec::new();
            for tensors in modules.values_mut() {
                found.extend(
                    tensors
                        .extract_if(.., |(part, _)| *part == wanted)
                        .map(|(_, tensor)| tensor),
                );
            }
            match found[..] {
                [] => Err(Refusal::NoProjection(wanted)),
                [tensor] if tensor.shape.len() == 2 => Ok((tensor.name.to_owned(), matrix(tensor)?)),
                [tensor, ..] => Err(Refusal::UnknownPart(tensor.name.to_owned())),
            }
        };
        let (a, b) = (take("vera_A")?, take("vera_B")?);
        modules.retain(|_, tensors| !tensors.is_empty());
        Ok(Self { a, b })
    }

    pub(super) fn factors(&self, parts: &Parts<'_>, rank: usize) -> Result<Factors, Refusal> {
        let (out, inp) = (parts.module.out, parts.module.inp);
        let wrong = |(name, found): &(String, Matrix), expected: [usize; 2]| Refusal::Shape {
            tensor: name.clone(),
            found: vec![found.rows, found.cols],
            expected: expected.to_vec(),
        };
        let ((_, a), (_, b)) = (&self.a, &self.b);
        if a.rows != rank || a.cols < inp {
            return Err(wrong(&self.a, [rank, inp]));
        }
        if b.rows < out || b.cols != rank {
            return Err(wrong(&self.b, [out, rank]));
        }
        let (scales_a, scales_b) = (
            vector(parts, "vera_lambda_d", "vera_lambda_b", rank)?,
            vector(parts, "vera_lambda_b", "vera_lambda_d", out)?,
        );
        let scaled = |matrix: &Matrix, cols: usize, scales: &[f32]| {
            let rows = matrix.values.chunks_exact(matrix.cols).zip(scales);
            let values = rows
                .flat_map(|(row, scale)| row[..cols].iter().map(move |value| value * scale))
                .collect();
            Matrix {
                rows: scales.len(),
                cols,
                values,
            }
        };
        Ok(Factors {
            a: scaled(a, inp, &scales_a),
            b: scaled(b, rank, &scales_b),
        })
    }
}

fn vector(
    parts: &Parts<'_>,
    part: &'static str,
    beside: &'static str,
    len: usize,
) -> Result<Vec<f32>, Refusal> {
    let tensor = parts.tensor(part, beside)?;
    if tensor.shape == [len] {
        return finite(tensor);
    }
    Err(Refusal::Shape {
        tensor: tensor.name.to_owned(),
        found: tensor.shape.to_vec(),
        expected: vec![len],
    })
}

//! A variant's tensors of one module.

use multigraft_model::{Matrix, Module};
use multigraft_weights::Tensor;

use crate::refusal::Refusal;
use crate::tensors::matrix;

/// The two matrices of a LoRA.
pub(super) struct Factors {
    /// `[rank, in]`
    pub(super) a: Matrix,
    /// `[out, rank]`
    pub(super) b: Matrix,
}

/// A module, and its tensors by PEFT's names of the parts.
pub(super) struct Parts<'a> {
    pub(super) module: &'a Module,
    found: Vec<(&'a str, Tensor<'a>)>,
}

impl<'a> Parts<'a> {
    /// Groups the tensors of a module.
    ///
    /// # Errors
    /// If a part occurs twice, as in a file of two adapters.
    pub(super) fn new(module: &'a Module, found: Vec<(&'a str, Tensor<'a>)>) -> Result<Self, Refusal> {
        for (i, (part, tensor)) in found.iter().enumerate() {
            if let Some((_, first)) = found[..i].iter().find(|(other, _)| other == part) {
                return Err(Refusal::TwoAdapters {
                    first: first.name.to_owned(),
                    second: tensor.name.to_owned(),
                });
            }
        }
        Ok(Self { module, found })
    }

    /// The tensor of `part`, if it is present.
    pub(super) fn get(&self, part: &str) -> Option<Tensor<'a>> {
        self.found
            .iter()
            .find(|(name, _)| *name == part)
            .map(|(_, tensor)| *tensor)
    }

    /// The tensor of `part`.
    ///
    /// # Errors
    /// If it is missing. The message names `beside` as present.
    pub(super) fn tensor(&self, part: &'static str, beside: &'static str) -> Result<Tensor<'a>, Refusal> {
        self.get(part).ok_or_else(|| Refusal::MissingPart {
            module: self.module.path.clone(),
            has: beside,
            lacks: part,
        })
    }

    /// The tensor of `part` as a `[rows, cols]` matrix.
    pub(super) fn matrix(
        &self,
        part: &'static str,
        beside: &'static str,
        rows: usize,
        cols: usize,
    ) -> Result<Matrix, Refusal> {
        shaped(self.tensor(part, beside)?, rows, cols)
    }
}

/// Checks that no side of a matrix exceeds the module's.
pub(super) fn fits(tensor: Tensor<'_>, module: &Module, rows: usize, cols: usize) -> Result<(), Refusal> {
    if rows <= module.out && cols <= module.inp {
        return Ok(());
    }
    Err(Refusal::Shape {
        tensor: tensor.name.to_owned(),
        found: vec![rows, cols],
        expected: vec![rows.min(module.out), cols.min(module.inp)],
    })
}

/// A tensor as a `[rows, cols]` matrix.
pub(super) fn shaped(tensor: Tensor<'_>, rows: usize, cols: usize) -> Result<Matrix, Refusal> {
    if tensor.shape == [rows, cols] {
        return matrix(tensor);
    }
    Err(Refusal::Shape {
        tensor: tensor.name.to_owned(),
        found: tensor.shape.to_vec(),
        expected: vec![rows, cols],
    })
}

/// Splits a tensor's name into the module's path and one of `parts`, which an adapter's name may
/// follow.
pub(super) fn split<'a>(name: &'a str, parts: &[&'static str]) -> Option<(&'a str, &'a str)> {
    let mut start = 0;
    for segment in name.split('.') {
        if start > 0 && parts.contains(&segment) {
            let tail = &name[start + segment.len()..];
            let tail = tail.strip_suffix(".weight").unwrap_or(tail);
            return (tail.matches('.').count() <= 1).then_some((&name[..start - 1], segment));
        }
        start += segment.len() + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_end_with_a_part_and_perhaps_an_adapters_name() {
        let parts = ["lokr_w1", "lokr_w2_a"];
        for end in [
            "lokr_w1",
            "lokr_w1.default",
            "lokr_w1.weight",
            "lokr_w1.default.weight",
        ] {
            assert_eq!(
                split(&format!("a.b.{end}"), &parts),
                Some(("a.b", "lokr_w1")),
                "{end}"
            );
        }
        for name in ["lokr_w1", "a.lokr_w1_a", "a.lokr_w1.x.y.z", "a.bias", ""] {
            assert_eq!(split(name, &parts), None, "{name}");
        }
    }
}

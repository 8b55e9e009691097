//! LoKr: `W + alpha/r · w1 ⊗ w2`, where each factor is a whole matrix or a product `a·b`.
//!
//! With `w1 = l1·r1` and `w2 = l2·r2`, `w1 ⊗ w2 = (l1 ⊗ l2)·(r1 ⊗ r2)`. A whole matrix is its
//! product with the identity of its narrower side.

use multigraft_model::Matrix;

use super::check_rank;
use super::parts::{Factors, Parts, fits, shaped};
use crate::config::Kind;
use crate::refusal::Refusal;
use crate::tensors::matrix;

pub(super) const PARTS: [&str; 7] = [
    "lokr_w1",
    "lokr_w1_a",
    "lokr_w1_b",
    "lokr_w2",
    "lokr_w2_a",
    "lokr_w2_b",
    "lokr_t2",
];

pub(super) fn factors(parts: &Parts<'_>, rank: usize) -> Result<Factors, Refusal> {
    if let Some(tensor) = parts.get("lokr_t2") {
        // Only convolutions have this.
        return Err(Refusal::UnknownPart(tensor.name.to_owned()));
    }
    let (out, inp) = (parts.module.out, parts.module.inp);
    let first = Factor::read(parts, ["lokr_w1", "lokr_w1_a", "lokr_w1_b"], rank)?;
    let second = Factor::read(parts, ["lokr_w2", "lokr_w2_a", "lokr_w2_b"], rank)?;
    let product = |one: usize, other: usize| one.saturating_mul(other);
    let found = [
        product(first.out(), second.out()),
        product(first.inp(), second.inp()),
    ];
    if found != [out, inp] {
        return Err(Refusal::Shape {
            tensor: second.name,
            found: vec![second.left.rows, second.right.cols],
            expected: vec![out / first.left.rows.max(1), inp / first.right.cols.max(1)],
        });
    }
    // At the full rank of the matrix, a product of two saves nothing.
    check_rank(
        Kind::Lokr,
        parts.module,
        product(first.rank(), second.rank()),
        out.min(inp).saturating_sub(1),
    )?;
    Ok(Factors {
        a: kronecker(&first.right, &second.right),
        b: kronecker(&first.left, &second.left),
    })
}

/// One factor of the Kronecker product, as a product `left · right`.
struct Factor {
    /// The name of one of its tensors, for messages.
    name: String,
    left: Matrix,
    right: Matrix,
}

impl Factor {
    fn read(parts: &Parts<'_>, [whole, a, b]: [&'static str; 3], rank: usize) -> Result<Self, Refusal> {
        if let Some(tensor) = parts.get(whole) {
            if let Some(other) = parts.get(a).or(parts.get(b)) {
                return Err(Refusal::UnknownPart(other.name.to_owned()));
            }
            let &[rows, cols] = tensor.shape else {
                return Err(Refusal::Shape {
                    tensor: tensor.name.to_owned(),
                    found: tensor.shape.to_vec(),
                    expected: vec![tensor.rows(), tensor.cols()],
                });
            };
            // No side may exceed the module's. This is checked before an identity of that size is
            // allocated.
            fits(tensor, parts.module, rows, cols)?;
            let values = matrix(tensor)?;
            let (left, right) = if cols <= rows {
                (values, identity(cols))
            } else {
                (identity(rows), values)
            };
            let name = tensor.name.to_owned();
            return Ok(Self { name, left, right });
        }
        let (left, right) = (parts.tensor(a, b)?, parts.tensor(b, a)?);
        let (rows, cols) = (left.rows(), right.cols());
        Ok(Self {
            name: left.name.to_owned(),
            left: shaped(left, rows, rank)?,
            right: shaped(right, rank, cols)?,
        })
    }

    fn rank(&self) -> usize {
        self.right.rows
    }

    fn out(&self) -> usize {
        self.left.rows
    }

    fn inp(&self) -> usize {
        self.right.cols
    }
}

fn identity(size: usize) -> Matrix {
    let mut values = vec![0.0; size * size];
    values.iter_mut().step_by(size + 1).for_each(|value| *value = 1.0);
    Matrix {
        rows: size,
        cols: size,
        values,
    }
}

fn kronecker(one: &Matrix, other: &Matrix) -> Matrix {
    let mut values = Vec::with_capacity(one.values.len() * other.values.len());
    for row in one.values.chunks_exact(one.cols) {
        for other in other.values.chunks_exact(other.cols) {
            for value in row {
                values.extend(other.iter().map(|other| value * other));
            }
        }
    }
    Matrix {
        rows: one.rows * other.rows,
        cols: one.cols * other.cols,
        values,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kronecker_product_is_as_numpy_has_it() {
        let one = Matrix {
            rows: 1,
            cols: 2,
            values: vec![1.0, 2.0],
        };
        let other = Matrix {
            rows: 2,
            cols: 2,
            values: vec![0.0, 3.0, 4.0, 5.0],
        };
        // numpy.kron([[1, 2]], [[0, 3], [4, 5]])
        let expected = vec![0.0, 3.0, 0.0, 6.0, 4.0, 5.0, 8.0, 10.0];
        assert_eq!(
            kronecker(&one, &other),
            Matrix {
                rows: 2,
                cols: 4,
                values: expected
            }
        );
        assert_eq!(kronecker(&identity(2), &identity(3)), identity(6));
    }
}

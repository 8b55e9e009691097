//! LoHa: `W + alpha/r · (w1a·w1b) ∘ (w2a·w2b)`.
//!
//! The Hadamard product of two products is one product of rank r²: the rows of A are the
//! elementwise products of each row of w1b with each row of w2b, and likewise the columns of B (the
//! face-splitting product).

use multigraft_model::Matrix;

use super::check_rank;
use super::parts::{Factors, Parts};
use crate::config::Kind;
use crate::refusal::Refusal;

pub(super) const PARTS: [&str; 6] = [
    "hada_w1_a",
    "hada_w1_b",
    "hada_w2_a",
    "hada_w2_b",
    "hada_t1",
    "hada_t2",
];

pub(super) fn factors(parts: &Parts<'_>, rank: usize) -> Result<Factors, Refusal> {
    if let Some(tensor) = parts.get("hada_t1").or(parts.get("hada_t2")) {
        // Only convolutions have these.
        return Err(Refusal::UnknownPart(tensor.name.to_owned()));
    }
    let (out, inp) = (parts.module.out, parts.module.inp);
    check_rank(Kind::Loha, parts.module, rank * rank, out.min(inp))?;
    let w1_a = parts.matrix("hada_w1_a", "hada_w1_b", out, rank)?;
    let w1_b = parts.matrix("hada_w1_b", "hada_w1_a", rank, inp)?;
    let w2_a = parts.matrix("hada_w2_a", "hada_w1_a", out, rank)?;
    let w2_b = parts.matrix("hada_w2_b", "hada_w1_a", rank, inp)?;
    let mut a = Vec::with_capacity(rank * rank * inp);
    for one in w1_b.values.chunks_exact(inp) {
        for other in w2_b.values.chunks_exact(inp) {
            a.extend(one.iter().zip(other).map(|(one, other)| one * other));
        }
    }
    let mut b = Vec::with_capacity(out * rank * rank);
    for (ones, others) in w1_a.values.chunks_exact(rank).zip(w2_a.values.chunks_exact(rank)) {
        for one in ones {
            b.extend(others.iter().map(|other| one * other));
        }
    }
    Ok(Factors {
        a: Matrix {
            rows: rank * rank,
            cols: inp,
            values: a,
        },
        b: Matrix {
            rows: out,
            cols: rank * rank,
            values: b,
        },
    })
}

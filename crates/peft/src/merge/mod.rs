//! Merges several adapters into one: the exact weighted sum of their updates, or what PEFT's
//! `add_weighted_adapter` computes.
//!
//! The result is an adapter of its own. Its hash is derived from its parts and the method, so the
//! same request always yields the same weights.

mod tensors;

use std::collections::BTreeMap;

use multigraft_model::{
    AdapterHash, AdapterWeights, EmbeddingDelta, LinearDelta, LinearId, LowRank, Throttle,
};
use sha2::{Digest, Sha256};

use tensors::Random;

/// The largest number of adapters in a merge.
pub const MERGE_LIMIT: usize = 16;

/// Prefix of the hashed data, so that the hash never equals that of an adapter's files.
const HASH_DOMAIN: &[u8] = b"multigraft merge 1\0";

/// A merge method.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MergeMethod {
    /// The weighted sum of the updates. Ranks are stacked, so the sum is exact. PEFT calls this
    /// `cat`.
    Sum,
    /// PEFT's `linear`: A and B are summed separately, each weighted with the square root of weight
    /// times scaling. This is not the sum of the updates. Ranks must be equal, as for all methods
    /// below.
    Linear,
    /// TIES (Yadav et al. 2023, arXiv 2306.01708), of A and B separately, as in PEFT.
    Ties {
        /// Fraction of each tensor's values that is kept, the largest ones; above 0, at most 1.
        density: f64,
        /// How the sign is elected.
        majority: MajoritySign,
    },
    /// DARE (Yu et al. 2023, arXiv 2311.03099), then `Linear`. The random numbers are derived from
    /// the merge's hash.
    DareLinear {
        /// Fraction of the values that is kept at random; above 0, at most 1.
        density: f64,
    },
    /// DARE, then `Ties`.
    DareTies {
        /// Fraction of the values that is kept at random; above 0, at most 1.
        density: f64,
        /// How the sign is elected.
        majority: MajoritySign,
    },
}

/// How TIES elects the sign of a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MajoritySign {
    /// The sign of the sum.
    #[default]
    Total,
    /// The sign that more values have.
    Frequency,
}

impl MergeMethod {
    /// LoRAX's name of the method, and its density and majority for the hash.
    fn parts(self) -> (&'static str, f64, MajoritySign) {
        match self {
            Self::Sum => ("sum", 1.0, MajoritySign::Total),
            Self::Linear => ("linear", 1.0, MajoritySign::Total),
            Self::Ties { density, majority } => ("ties", density, majority),
            Self::DareLinear { density } => ("dare_linear", density, MajoritySign::Total),
            Self::DareTies { density, majority } => ("dare_ties", density, majority),
        }
    }

    /// LoRAX's name of the method.
    pub fn name(self) -> &'static str {
        self.parts().0
    }

    /// The hash of a merge of parts with these hashes and weights.
    pub fn hash(self, parts: impl Iterator<Item = (AdapterHash, f64)>) -> AdapterHash {
        let (name, density, majority) = self.parts();
        let mut hasher = Sha256::new();
        hasher.update(HASH_DOMAIN);
        hasher.update((name.len() as u64).to_le_bytes());
        hasher.update(name);
        hasher.update(density.to_le_bytes());
        hasher.update([majority as u8]);
        for (hash, weight) in parts {
            hasher.update(hash.0);
            hasher.update(weight.to_le_bytes());
        }
        AdapterHash(hasher.finalize().into())
    }
}

/// Why adapters cannot be merged.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MergeError {
    /// An adapter has changes besides low-rank updates.
    #[error("adapter `{name}` cannot be merged with others: it has {what}, and only updates are merged")]
    NotUpdates {
        /// The adapter.
        name: String,
        /// The change.
        what: &'static str,
    },
    /// Two adapters have different ranks.
    #[error("{method} needs equal ranks, but of {module} `{first}` has rank {rank} and `{second}` {other}")]
    Ranks {
        /// The method.
        method: &'static str,
        /// The module.
        module: String,
        /// The first adapter.
        first: String,
        /// Its rank.
        rank: usize,
        /// The second adapter.
        second: String,
        /// Its rank.
        other: usize,
    },
    /// An adapter was trained with `lora_bias`.
    #[error("{method} does not merge adapters with lora_bias, which `{name}` has")]
    Bias {
        /// The method.
        method: &'static str,
        /// The adapter.
        name: String,
    },
}

/// A part of a merge.
#[derive(Debug)]
pub struct MergeInput {
    /// Its name in errors.
    pub name: String,
    /// Its weight.
    pub weight: f64,
    /// Its changes.
    pub weights: AdapterWeights,
}

/// The update of one module, and the adapter that it belongs to.
type Update<'a> = (&'a MergeInput, &'a LowRank);

/// Merges adapters that hold low-rank updates only; tables in them are copies of the base's. `hash`
/// is [`MergeMethod::hash`] of the parts.
///
/// # Errors
/// If the method cannot merge the parts.
pub fn merge(
    method: MergeMethod,
    hash: AdapterHash,
    parts: &[MergeInput],
    throttle: &Throttle,
) -> Result<AdapterWeights, MergeError> {
    let mut linears: BTreeMap<LinearId, Vec<Update<'_>>> = BTreeMap::new();
    let mut embedding: Vec<Update<'_>> = Vec::new();
    for part in parts {
        for (id, delta) in &part.weights.linears {
            if let Some(update) = &delta.low_rank {
                linears.entry(*id).or_default().push((part, update));
            }
        }
        let table = part.weights.embedding.as_ref();
        embedding.extend(table.and_then(|delta| Some((part, delta.low_rank.as_ref()?))));
    }
    // PEFT merges a single adapter with this method, whichever is requested.
    let method = match (method, parts.len()) {
        (MergeMethod::Sum, _) => MergeMethod::Sum,
        (_, 1) => MergeMethod::Linear,
        (method, _) => method,
    };
    let merge_module = |module: &str, updates: &[Update<'_>]| {
        throttle.pause();
        match method {
            MergeMethod::Sum => Ok(sum(updates)),
            _ => combined(method, hash, module, updates),
        }
    };
    let merged_linears = linears.iter().map(|(id, updates)| {
        let low_rank = Some(merge_module(&format!("{id:?}"), updates)?);
        let delta = LinearDelta {
            low_rank,
            ..LinearDelta::default()
        };
        Ok((*id, delta))
    });
    let linears = merged_linears.collect::<Result<_, MergeError>>()?;
    let embedding = match embedding.is_empty() {
        true => None,
        false => Some(EmbeddingDelta {
            low_rank: Some(merge_module("embed_tokens", &embedding)?),
            ..EmbeddingDelta::default()
        }),
    };
    Ok(AdapterWeights {
        hash,
        linears,
        embedding,
        invocation: Vec::new(),
    })
}

/// Stacks updates into one: A by rows, B by columns.
fn sum(updates: &[Update<'_>]) -> LowRank {
    let (first, rank) = (
        updates[0].1,
        updates.iter().map(|(_, update)| update.a.rows).sum(),
    );
    let mut a = Vec::with_capacity(rank * first.a.cols);
    let mut b = Vec::with_capacity(rank * first.b.rows);
    let mut scalings = Vec::with_capacity(rank);
    let mut bias: Option<Vec<f32>> = None;
    for (part, update) in updates {
        let scaling = update.scaling * part.weight as f32;
        a.extend(&update.a.values);
        scalings.extend(std::iter::repeat_n(scaling, update.a.rows));
        if let Some(update_bias) = &update.bias {
            let bias = bias.get_or_insert_with(|| vec![0.0; update_bias.len()]);
            bias.iter_mut()
                .zip(update_bias)
                .for_each(|(sum, b)| *sum += scaling * b);
        }
    }
    for out in 0..first.b.rows {
        for (_, LowRank { b: part_b, .. }) in updates {
            b.extend(&part_b.values[out * part_b.cols..][..part_b.cols]);
        }
    }
    LowRank {
        a: tensors::matrix(rank, first.a.cols, a),
        b: tensors::matrix(first.b.rows, rank, b),
        scaling: 1.0,
        bias,
        stacked: Some(scalings),
    }
}

/// Merges A and B separately, weighted with square roots. The sign of a negative weight goes to A.
fn combined(
    method: MergeMethod,
    hash: AdapterHash,
    module: &str,
    updates: &[Update<'_>],
) -> Result<LowRank, MergeError> {
    let (of, first) = updates[0];
    for (part, update) in updates {
        if update.a.rows != first.a.rows {
            return Err(MergeError::Ranks {
                method: method.name(),
                module: module.to_owned(),
                first: of.name.clone(),
                rank: first.a.rows,
                second: part.name.clone(),
                other: update.a.rows,
            });
        }
        if update.bias.is_some() {
            return Err(MergeError::Bias {
                method: method.name(),
                name: part.name.clone(),
            });
        }
    }
    let weighted = updates
        .iter()
        .map(|(part, update)| part.weight * f64::from(update.scaling));
    let roots: Vec<f32> = weighted
        .clone()
        .map(|weight| weight.abs().sqrt() as f32)
        .collect();
    let signed: Vec<f32> = weighted
        .zip(&roots)
        .map(|(weight, root)| if weight >= 0.0 { *root } else { -root })
        .collect();
    let random = |half: &str| Random::new(hash, module, half);
    let a: Vec<&[f32]> = updates
        .iter()
        .map(|(_, update)| update.a.values.as_slice())
        .collect();
    let b: Vec<&[f32]> = updates
        .iter()
        .map(|(_, update)| update.b.values.as_slice())
        .collect();
    let a = tensors::combine(method, &a, &signed, &mut random("A"));
    let b = tensors::combine(method, &b, &roots, &mut random("B"));
    Ok(LowRank {
        a: tensors::matrix(first.a.rows, first.a.cols, a),
        b: tensors::matrix(first.b.rows, first.b.cols, b),
        scaling: 1.0,
        bias: None,
        stacked: None,
    })
}

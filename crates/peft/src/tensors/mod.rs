//! From an adapter's tensors to what they change.
//!
//! ```text
//! names ─ slots (tensors by module) ─ agree (with config and base) ─ delta (numbers, judged)
//! ```
//!
//! Everything that can be told from names and shapes is checked before a weight is decoded.

mod agree;
mod decode;
mod delta;
mod name;
mod scales;
mod slots;
mod tables;
mod tokens;

pub(crate) use decode::{finite, matrix};

use multigraft_model::{EmbeddingDelta, LinearDelta, LinearId, Throttle};
use multigraft_weights::Tensor;

use crate::base::BaseShape;
use crate::config::PeftConfig;
use crate::refusal::Refusal;
use slots::Slots;

/// What an adapter changes, and what `inspect` shows of it.
#[derive(Debug)]
pub(crate) struct Changes {
    /// Changes of linear maps, ordered by [`LinearId`].
    pub(crate) linears: Vec<(LinearId, LinearDelta)>,
    /// Change of the embedding.
    pub(crate) embedding: Option<EmbeddingDelta>,
    /// Modules with a low-rank update and its rank, in the base's order.
    pub(crate) updates: Vec<(String, usize)>,
    /// Sentences about what may surprise.
    pub(crate) warnings: Vec<String>,
}

/// A tensor of an adapter, and where it belongs.
#[derive(Clone, Copy)]
pub(crate) struct Named<'a> {
    /// The name that PEFT gives such a tensor. The tensor's own is its name in the file, which
    /// messages show.
    pub(crate) place: &'a str,
    /// The tensor.
    pub(crate) tensor: Tensor<'a>,
}

/// Reads all tensors of an adapter.
///
/// # Errors
/// If they do not fit the base or the config, or hold numbers that are none.
pub(crate) fn read<'a>(
    tensors: impl Iterator<Item = Named<'a>>,
    config: &PeftConfig,
    base: &'a BaseShape,
    throttle: &Throttle,
) -> Result<Changes, Refusal> {
    let mut slots = Slots::collect(tensors, base)?;
    let agreed = agree::agree(&mut slots, config, base)?;
    delta::changes(&slots, &agreed, config, base, throttle)
}

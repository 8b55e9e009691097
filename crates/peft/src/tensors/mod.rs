//! Turns an adapter's tensors into changes of the base.
//!
//! ```text
//! names ─ slots (tensors by module) ─ agree (with config and base) ─ delta (decoded values)
//! ```
//!
//! Everything that names and shapes can tell is checked before a weight is decoded.

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

/// The changes that an adapter makes, and the facts that `inspect` shows about them.
#[derive(Debug)]
pub(crate) struct Changes {
    /// Changes of linear maps, ordered by [`LinearId`].
    pub(crate) linears: Vec<(LinearId, LinearDelta)>,
    /// Change of the embedding.
    pub(crate) embedding: Option<EmbeddingDelta>,
    /// Modules with a low-rank update and its rank, in the base's order.
    pub(crate) updates: Vec<(String, usize)>,
    /// Warnings, as sentences.
    pub(crate) warnings: Vec<String>,
}

/// A tensor of an adapter under PEFT's name.
#[derive(Clone, Copy)]
pub(crate) struct NamedTensor<'a> {
    /// PEFT's name for the tensor. [`Tensor::name`] is the name in the file, for messages.
    pub(crate) peft_name: &'a str,
    /// The tensor.
    pub(crate) tensor: Tensor<'a>,
}

/// Reads all tensors of an adapter.
///
/// # Errors
/// If the tensors do not fit the base or the config, or hold NaN or infinity.
pub(crate) fn read<'a>(
    tensors: impl Iterator<Item = NamedTensor<'a>>,
    config: &PeftConfig,
    base: &'a BaseShape,
    throttle: &Throttle,
) -> Result<Changes, Refusal> {
    let mut slots = Slots::collect(tensors, base)?;
    let agreed = agree::agree(&mut slots, config, base)?;
    delta::changes(&slots, &agreed, config, base, throttle)
}

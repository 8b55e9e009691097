//! From the tensors of `adapter_model.safetensors` to what they change.
//!
//! ```text
//! names ─ slots (tensors by module) ─ agree (with the config and the base) ─ delta (numbers, judged)
//! ```
//!
//! Everything that can be told from names and shapes is checked before a weight is decoded.

mod agree;
mod delta;
mod name;
mod slots;
mod tables;
mod tokens;

use multigraft_model::{EmbeddingDelta, LinearDelta, LinearId};
use multigraft_weights::safetensors::Checkpoint;

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

/// Reads all tensors of an adapter.
///
/// # Errors
/// If they do not fit the base or the config, or hold numbers that are none.
pub(crate) fn read(
    checkpoint: &Checkpoint,
    config: &PeftConfig,
    base: &BaseShape,
) -> Result<Changes, Refusal> {
    let mut slots = Slots::collect(checkpoint, base)?;
    let agreed = agree::agree(&mut slots, config, base)?;
    delta::changes(&slots, &agreed, config, base)
}

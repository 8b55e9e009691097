//! From a row of logits to a token.
//!
//! The draw for the n-th token of an output takes its random number from position n of the request's own ChaCha
//! stream: what it gets depends on seed and n, not on what else was computed or how often.

mod filters;
pub(crate) mod logprobs;
mod penalties;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::request::Sampling;
use filters::Candidate;
use penalties::Penalties;

/// Logits that no token can be chosen from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadLogits {
    #[error("the logit of token {0} is not a number")]
    NotANumber(usize),
    #[error("the logit of token {0} is infinite")]
    Infinite(usize),
    #[error("no token has a finite logit")]
    Nothing,
}

/// Whether the logits are a distribution: finite, or -∞ for tokens that cannot be, but not for all.
pub(crate) fn check(logits: &[f32]) -> Result<(), BadLogits> {
    // One pass without branches for the case that always holds.
    let largest = logits.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    let nan = logits.iter().fold(false, |nan, logit| nan | logit.is_nan());
    if nan {
        return Err(BadLogits::NotANumber(
            logits.iter().position(|logit| logit.is_nan()).unwrap_or(0),
        ));
    }
    match largest {
        f32::INFINITY => Err(BadLogits::Infinite(argmax(logits) as usize)),
        f32::NEG_INFINITY => Err(BadLogits::Nothing),
        _ => Ok(()),
    }
}

/// The likeliest token, of equals the lowest id.
fn argmax(logits: &[f32]) -> u32 {
    let (mut best, mut largest) = (0, f32::NEG_INFINITY);
    for (id, &logit) in (0..).zip(logits) {
        if logit > largest {
            (best, largest) = (id, logit);
        }
    }
    best
}

/// Buffers as wide as the vocabulary, shared by all samplers.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    logits: Vec<f32>,
    candidates: Vec<Candidate>,
    order: Vec<Candidate>,
}

/// One sequence's way of choosing tokens.
#[derive(Debug)]
pub(crate) struct Sampler {
    sampling: Sampling,
    penalties: Penalties,
    seed: u64,
}

impl Sampler {
    pub(crate) fn new(sampling: Sampling, seed: u64, prompt: &[u32]) -> Self {
        Self {
            penalties: Penalties::new(&sampling, prompt),
            sampling,
            seed,
        }
    }

    /// The seed of its draws.
    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// Chooses the `nth` token of the output, from 0, given logits that passed [`check`].
    pub(crate) fn choose(&self, nth: usize, logits: &[f32], scratch: &mut Scratch) -> u32 {
        let Scratch {
            logits: changed,
            candidates,
            order,
        } = scratch;
        let logits = if self.penalties.change_nothing() {
            logits
        } else {
            changed.clear();
            changed.extend_from_slice(logits);
            self.penalties.apply(changed);
            changed
        };
        if self.sampling.temperature == 0.0 {
            return argmax(logits);
        }
        filters::candidates(logits, &self.sampling, candidates, order);
        draw(candidates, self.uniform(nth))
    }

    /// Takes note of a token of the output.
    pub(crate) fn note(&mut self, id: u32) {
        self.penalties.note(id);
    }

    /// The random number of the `nth` draw, in [0, 1).
    fn uniform(&self, nth: usize) -> f64 {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        random.set_stream(nth as u64);
        random.random()
    }
}

/// The candidate at `uniform` of the way through the cumulative distribution, in the order of ids.
fn draw(candidates: &[Candidate], uniform: f64) -> u32 {
    let target = uniform * filters::total(candidates);
    let mut sum = 0.0;
    let mut last = 0;
    for candidate in candidates.iter().filter(|candidate| candidate.weight > 0.0) {
        sum += f64::from(candidate.weight);
        last = candidate.id;
        if sum > target {
            break;
        }
    }
    last
}

#[cfg(test)]
mod tests;

//! From a row of logits to a token.
//!
//! The draw for the n-th token of an output takes its random number from position n of the request's own ChaCha
//! stream: what it gets depends on seed and n, not on what else was computed or how often.

mod candidates;
mod exp;
mod filters;
pub(crate) mod logprobs;
mod penalties;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::request::Sampling;
use candidates::Candidates;
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
    // Without branches inside: almost always there is nothing to find.
    let nan = logits.iter().fold(false, |nan, logit| nan | logit.is_nan());
    if nan {
        return Err(BadLogits::NotANumber(
            logits.iter().position(|logit| logit.is_nan()).unwrap_or(0),
        ));
    }
    match largest(logits) {
        f32::INFINITY => Err(BadLogits::Infinite(argmax(logits) as usize)),
        f32::NEG_INFINITY => Err(BadLogits::Nothing),
        _ => Ok(()),
    }
}

/// The largest logit; -∞ if there is none.
fn largest(logits: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let (chunks, rest) = logits.as_chunks::<16>();
    let mut lanes = [f32::NEG_INFINITY; 16];
    for chunk in chunks {
        for (lane, &logit) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, logit);
        }
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, larger)
}

/// The likeliest token, of equals the lowest id.
fn argmax(logits: &[f32]) -> u32 {
    let largest = largest(logits);
    (0..)
        .zip(logits)
        .find(|&(_, &logit)| logit == largest)
        .map_or(0, |(id, _)| id)
}

/// Buffers as wide as the vocabulary, shared by all samplers.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    logits: Vec<f32>,
    candidates: Candidates,
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
        filters::apply(logits, &self.sampling, candidates);
        candidates.draw(self.uniform(nth))
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

#[cfg(test)]
mod tests;

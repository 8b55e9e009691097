//! From a row of logits to a token.
//!
//! The draw for the n-th token of an output takes its random number from position n of the request's own ChaCha
//! stream: what it gets depends on seed and n, not on what else was computed or how often.

mod candidates;
mod exp;
mod filters;
pub(crate) mod logprobs;
mod penalties;
mod row;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::request::Sampling;
use candidates::{Candidates, draw_from_all};
use penalties::Penalties;
pub(crate) use row::Row;

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

/// Buffers as wide as the vocabulary, shared by all samplers.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    logits: Vec<f32>,
    candidates: Candidates,
    masses: Vec<f64>,
    buffer: Vec<f32>,
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

    /// Chooses the `nth` token of the output, from 0. Does no more than the request asks for: greedy is in the survey of
    /// the row already, only penalties and bias copy it, and without filters nothing is written down.
    pub(crate) fn choose(&self, nth: usize, row: &Row<'_>, scratch: &mut Scratch) -> u32 {
        let Scratch {
            logits,
            candidates,
            masses,
            buffer,
        } = scratch;
        let changed;
        let row = if self.penalties.change_nothing() {
            row
        } else {
            logits.clear();
            logits.extend_from_slice(row.logits());
            self.penalties.apply(logits);
            changed = row.changed(logits, self.penalties.tokens());
            &changed
        };
        if self.sampling.temperature == 0.0 {
            row.argmax()
        } else if filters::keep_all(&self.sampling) {
            draw_from_all(row, filters::scale(&self.sampling), self.uniform(nth), masses)
        } else {
            filters::apply(row, &self.sampling, candidates, buffer);
            candidates.draw(self.uniform(nth))
        }
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

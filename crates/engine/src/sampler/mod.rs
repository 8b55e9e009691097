//! From a row of logits to a token.
//!
//! The draw of the n-th token of an output takes its random number from position n of the request's
//! own ChaCha stream. It depends on the seed and n alone, not on what else was computed or how
//! often.

mod candidates;
mod exp;
mod filters;
pub(crate) mod logprobs;
mod penalties;
mod row;

use multigraft_grammar::TokenSet;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::request::Sampling;
use candidates::{Candidates, draw_from_all};
use penalties::Penalties;
pub(crate) use row::Row;

/// Why no token can be chosen from a row of logits.
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

/// Chooses the tokens of one sequence.
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

    /// The seed of the draws.
    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// Chooses the `nth` token of the output, from 0. It does only the work that the request needs:
    /// the scan of the row has found the greedy token already, only penalties and bias copy the
    /// row, and without filters no candidates are stored.
    pub(crate) fn choose(&self, nth: usize, row: &Row<'_>, scratch: &mut Scratch) -> u32 {
        if self.penalties.change_nothing() {
            return self.choose_from(nth, row, scratch);
        }
        let mut logits = std::mem::take(&mut scratch.logits);
        logits.clear();
        logits.extend_from_slice(row.logits());
        self.penalties.apply(&mut logits);
        let changed = row.changed(&logits, self.penalties.tokens());
        let token = self.choose_from(nth, &changed, scratch);
        scratch.logits = logits;
        token
    }

    /// The same among the allowed tokens (`None`: all) that are not barred, or among the barred
    /// ones if no other token is allowed. `None` if no token can be chosen.
    pub(crate) fn choose_within(
        &self,
        allowed: Option<&TokenSet>,
        barred: &[u32],
        nth: usize,
        row: &Row<'_>,
        scratch: &mut Scratch,
    ) -> Option<u32> {
        match (allowed, barred) {
            (None, []) => Some(self.choose(nth, row, scratch)),
            _ => self
                .choose_among(allowed, barred, nth, row, scratch)
                .or_else(|| self.choose_among(allowed, &[], nth, row, scratch)),
        }
    }

    fn choose_among(
        &self,
        allowed: Option<&TokenSet>,
        barred: &[u32],
        nth: usize,
        row: &Row<'_>,
        scratch: &mut Scratch,
    ) -> Option<u32> {
        let mut logits = std::mem::take(&mut scratch.logits);
        logits.clear();
        logits.extend_from_slice(row.logits());
        self.penalties.apply(&mut logits);
        if let Some(allowed) = allowed {
            allowed.keep_only(&mut logits);
        }
        for &id in barred {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit = f32::NEG_INFINITY;
            }
        }
        let token = Row::new(&logits)
            .ok()
            .map(|row| self.choose_from(nth, &row, scratch));
        scratch.logits = logits;
        token
    }

    /// Chooses from logits to which penalties and bias are applied.
    fn choose_from(&self, nth: usize, row: &Row<'_>, scratch: &mut Scratch) -> u32 {
        let Scratch {
            candidates,
            masses,
            buffer,
            ..
        } = scratch;
        if self.sampling.temperature == 0.0 {
            row.argmax()
        } else if filters::keep_all(&self.sampling) {
            draw_from_all(row, filters::scale(&self.sampling), self.uniform(nth), masses)
        } else {
            filters::apply(row, &self.sampling, candidates, buffer);
            candidates.draw(self.uniform(nth))
        }
    }

    /// Counts a token of the output for penalties.
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

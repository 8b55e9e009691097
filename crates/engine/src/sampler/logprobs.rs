//! Log-probabilities of the model's own distribution: before penalties, bias, temperature and filters.

use super::exp::{exp_of_minus, sum};
use super::largest;

/// The log-softmax of a row of logits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Logprobs<'a> {
    logits: &'a [f32],
    /// ln Σ exp(logit).
    normaliser: f64,
}

impl<'a> Logprobs<'a> {
    /// Of logits that passed [`check`](super::check).
    pub(crate) fn new(logits: &'a [f32]) -> Self {
        let largest = largest(logits);
        let sum = sum(logits, |logit| exp_of_minus(largest - logit));
        Self {
            logits,
            normaliser: f64::from(largest) + sum.ln(),
        }
    }

    /// Of one token.
    pub(crate) fn of(&self, id: u32) -> f32 {
        (f64::from(self.logits[id as usize]) - self.normaliser) as f32
    }

    /// The `n` likeliest tokens with theirs, likeliest first, of equals the lowest id.
    pub(crate) fn top(&self, n: usize) -> Vec<(u32, f32)> {
        let mut best: Vec<(u32, f32)> = Vec::with_capacity(n.min(self.logits.len()) + 1);
        for (id, &logit) in (0..).zip(self.logits) {
            // Most tokens fail this test against the last of the best, so keeping a sorted list is cheap.
            if best.len() < n || best.last().is_some_and(|&(_, least)| logit > least) {
                let place = best.partition_point(|&(_, other)| other >= logit);
                best.insert(place, (id, logit));
                best.truncate(n);
            }
        }
        best.into_iter().map(|(id, _)| (id, self.of(id))).collect()
    }
}

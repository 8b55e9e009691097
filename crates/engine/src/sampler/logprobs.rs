//! Log-probabilities of the model's own distribution: before penalties, bias, temperature and
//! filters.

use std::cmp::Ordering;

use super::row::Row;

/// The log-softmax of a row of logits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Logprobs<'a> {
    row: &'a Row<'a>,
    /// ln Σ exp(logit).
    normaliser: f64,
}

impl<'a> Logprobs<'a> {
    /// Takes a pass over the whole row, so it is computed only for requests that want it.
    pub(crate) fn new(row: &'a Row<'a>) -> Self {
        let sum: f64 = row.masses(1.0).sum();
        Self {
            row,
            normaliser: f64::from(row.largest()) + sum.ln(),
        }
    }

    /// The log-probability of a token.
    pub(crate) fn logprob(&self, id: u32) -> f32 {
        self.of_logit(self.row.logits()[id as usize])
    }

    fn of_logit(&self, logit: f32) -> f32 {
        (f64::from(logit) - self.normaliser) as f32
    }

    /// The token's rank among all tokens, from 1, in the order of [`top`](Self::top).
    pub(crate) fn rank(&self, id: u32) -> usize {
        let logit_of_id = self.row.logits()[id as usize];
        let mut before = 0;
        self.row.at_least(logit_of_id, |ids, logits| {
            let is_before = |&(&other, &logit): &(&u32, &f32)| logit > logit_of_id || other < id;
            before += ids.iter().zip(logits).filter(is_before).count();
        });
        before + 1
    }

    /// The `n` likeliest tokens with their log-probabilities, likeliest first; of equals the lowest
    /// id first.
    pub(crate) fn top(&self, n: usize) -> Vec<(u32, f32)> {
        if n == 0 {
            return Vec::new();
        }
        let mut best: Vec<(u32, f32)> = Vec::new();
        let limit = self.row.kth_largest(n, &mut Vec::new());
        self.row.at_least(limit, |ids, logits| {
            best.extend(ids.iter().copied().zip(logits.iter().copied()));
        });
        // The sort is stable: equals stay in the order of ids.
        best.sort_by(|a, b| b.1.partial_cmp(&a.1).unwrap_or(Ordering::Equal));
        best.truncate(n);
        best.into_iter()
            .map(|(id, logit)| (id, self.of_logit(logit)))
            .collect()
    }
}

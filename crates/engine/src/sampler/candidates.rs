//! Tokens that may be drawn.

use super::exp::exp_of_minus;
use super::row::{RUN, Row, distance};

/// Tokens that may be drawn, in the order of their ids. Never empty once filled, because the
/// likeliest token always stays.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    pub(super) ids: Vec<u32>,
    /// The distance of each logit from the largest, divided by the temperature: 0 to ∞.
    pub(super) distances: Vec<f32>,
    /// exp(-distance), proportional to the probability; 1 for the likeliest token.
    pub(super) weights: Vec<f32>,
}

impl Candidates {
    /// Takes the tokens whose logit is at least `limit`, which is at most the largest logit.
    pub(super) fn fill(&mut self, row: &Row<'_>, limit: f32, scale: f32) {
        let Self {
            ids,
            distances,
            weights,
        } = self;
        ids.clear();
        distances.clear();
        row.at_least(limit, |large, logits| {
            ids.extend_from_slice(large);
            distances.extend(logits.iter().map(|&logit| distance(logit, row.largest(), scale)));
        });
        weights.clear();
        weights.extend(distances.iter().map(|&distance| exp_of_minus(distance)));
    }

    /// Keeps the tokens for which `keep` holds, given id, distance and weight.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(u32, f32, f32) -> bool) {
        let mut kept = 0;
        for index in 0..self.ids.len() {
            let (id, distance, weight) = (self.ids[index], self.distances[index], self.weights[index]);
            self.ids[kept] = id;
            self.distances[kept] = distance;
            self.weights[kept] = weight;
            kept += usize::from(keep(id, distance, weight));
        }
        self.ids.truncate(kept);
        self.distances.truncate(kept);
        self.weights.truncate(kept);
    }

    /// Sum of the weights.
    pub(super) fn total(&self) -> f64 {
        self.weights.iter().map(|&weight| f64::from(weight)).sum()
    }

    /// The token at `uniform`, in [0, 1), of the cumulative distribution in the order of ids.
    pub(super) fn draw(&self, uniform: f64) -> u32 {
        let weighted = self.ids.iter().copied().zip(self.weights.iter().copied());
        walk(weighted, uniform * self.total())
    }
}

/// Draws from all tokens without storing candidates: only the run into which the draw falls is
/// walked token by token. `masses` is scratch memory.
pub(super) fn draw_from_all(row: &Row<'_>, scale: f32, uniform: f64, masses: &mut Vec<f64>) -> u32 {
    masses.clear();
    masses.extend(row.masses(scale));
    let target = uniform * masses.iter().sum::<f64>();
    let (mut reached, mut before, mut drawn) = (0.0, 0.0, 0);
    for (run, &mass) in masses.iter().enumerate().filter(|(_, mass)| **mass > 0.0) {
        (before, drawn) = (reached, run);
        reached += mass;
        if reached > target {
            break;
        }
    }
    let run = row.logits()[drawn * RUN..].iter().take(RUN);
    let weights = run.map(|&logit| exp_of_minus(distance(logit, row.largest(), scale)));
    walk((drawn as u32 * RUN as u32..).zip(weights), target - before)
}

/// The token at which the sum of weights first exceeds `target`; the last token with any weight, if
/// the sum never does.
fn walk(weighted: impl Iterator<Item = (u32, f32)>, target: f64) -> u32 {
    let mut reached = 0.0;
    let mut last = 0;
    for (id, weight) in weighted.filter(|&(_, weight)| weight > 0.0) {
        reached += f64::from(weight);
        last = id;
        if reached > target {
            break;
        }
    }
    last
}

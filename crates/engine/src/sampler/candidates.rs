//! Tokens that may be drawn.

use super::exp::{exp_of_minus, sum};
use super::largest;

/// Tokens that may be drawn, in the order of their ids. Never empty once filled: the likeliest always stays.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    pub(super) ids: Vec<u32>,
    /// How far each one's logit, divided by the temperature, is below that of the likeliest: 0 to ∞.
    pub(super) distances: Vec<f32>,
    /// exp(-distance): proportional to the probability; 1 for the likeliest. Empty until [`weigh`](Self::weigh).
    pub(super) weights: Vec<f32>,
}

impl Candidates {
    /// All tokens.
    pub(super) fn fill(&mut self, logits: &[f32], temperature: f32) {
        let largest = largest(logits);
        self.ids.clear();
        self.ids.extend((0..).zip(logits).map(|(id, _): (u32, _)| id));
        self.distances.clear();
        self.distances
            .extend(logits.iter().map(|logit| (largest - logit) / temperature));
        self.weights.clear();
    }

    /// Computes the weights of those that are left.
    pub(super) fn weigh(&mut self) {
        self.weights.clear();
        self.weights
            .extend(self.distances.iter().map(|&distance| exp_of_minus(distance)));
    }

    /// Keeps those of which `keep` holds, given id, distance and weight (0 before weights are computed).
    pub(super) fn retain(&mut self, mut keep: impl FnMut(u32, f32, f32) -> bool) {
        let mut kept = 0;
        for index in 0..self.ids.len() {
            let (id, distance) = (self.ids[index], self.distances[index]);
            let weight = self.weights.get(index).copied().unwrap_or_default();
            if keep(id, distance, weight) {
                self.ids[kept] = id;
                self.distances[kept] = distance;
                if let Some(place) = self.weights.get_mut(kept) {
                    *place = weight;
                }
                kept += 1;
            }
        }
        self.ids.truncate(kept);
        self.distances.truncate(kept);
        self.weights.truncate(kept);
    }

    /// Sum of the weights.
    pub(super) fn total(&self) -> f64 {
        sum(&self.weights, |weight| weight)
    }

    /// The one at `uniform` of the way, from 0 to 1, through the cumulative distribution in the order of ids.
    pub(super) fn draw(&self, uniform: f64) -> u32 {
        let target = uniform * self.total();
        let mut reached = 0.0;
        let mut last = 0;
        for (&id, &weight) in self.ids.iter().zip(&self.weights) {
            if weight > 0.0 {
                reached += f64::from(weight);
                last = id;
                if reached > target {
                    break;
                }
            }
        }
        last
    }
}

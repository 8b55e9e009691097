//! Which tokens may be drawn: temperature, then `top_k`, `top_p`, `min_p` and `typical_p`, each on what the one before
//! has left, as in Hugging Face transformers.
//!
//! Nothing is sorted. Each filter keeps what is within some limit; `top_k` finds its by partial selection, `top_p` and
//! `typical_p` theirs by bisection over the bit patterns of floats, one pass over the candidates for each of at most
//! 31 attempts.

use super::candidates::Candidates;
use crate::request::Sampling;

/// Fills `candidates` with the tokens that `sampling` leaves, weighed; at least one.
pub(super) fn apply(logits: &[f32], sampling: &Sampling, candidates: &mut Candidates) {
    candidates.fill(logits, sampling.temperature);
    if let Some(k) = sampling.top_k {
        top_k(candidates, k);
    }
    // Exponentials come after the filter that needs none.
    candidates.weigh();
    if sampling.top_p < 1.0 {
        top_p(candidates, f64::from(sampling.top_p));
    }
    if sampling.min_p > 0.0 {
        candidates.retain(|_, _, weight| weight >= sampling.min_p);
    }
    if sampling.typical_p < 1.0 {
        typical_p(candidates, f64::from(sampling.typical_p));
    }
}

/// Keeps the `k` likeliest, and those as likely as the last of them.
fn top_k(candidates: &mut Candidates, k: usize) {
    if k >= candidates.ids.len() {
        return;
    }
    // The bit patterns of floats that are not negative have the order of their values, and integers sort faster.
    let mut patterns: Vec<u32> = candidates
        .distances
        .iter()
        .map(|distance| distance.to_bits())
        .collect();
    let (_, kth, _) = patterns.select_nth_unstable(k - 1);
    let limit = f32::from_bits(*kth);
    candidates.retain(|_, distance, _| distance <= limit);
}

/// Keeps the likeliest that together have probability `p`, of equals the lowest ids (Holtzman et al. 2020, arXiv
/// 1904.09751).
fn top_p(candidates: &mut Candidates, p: f64) {
    let total = candidates.total();
    let target = p * total;
    // Tokens less likely than this cannot make up 1 - p even together, so the others reach p: usually few.
    let negligible = ((1.0 - p) * total / candidates.ids.len() as f64) as f32;
    candidates.retain(|_, _, weight| weight >= negligible.min(1.0));
    let Candidates {
        distances, weights, ..
    } = candidates;
    let limit = smallest(|limit| mass(distances, weights, limit) >= target);
    let mut reached = mass(distances, weights, limit.next_down());
    candidates.retain(|_, distance, weight| {
        // The last of the equals may be the one that reaches it. The likeliest stays even where `p` is 0.
        let wanted = distance < limit || distance == limit && (reached < target || reached == 0.0);
        if wanted && distance == limit {
            reached += f64::from(weight);
        }
        wanted
    });
}

/// Keeps those whose information content is nearest to the entropy and that together have probability `p`.
fn typical_p(candidates: &mut Candidates, p: f64) {
    let total = candidates.total();
    // A probability is exp(-distance)/total, so information content is distance + ln total, and its expectation, the
    // entropy, is the mean distance + ln total.
    let possible = candidates
        .distances
        .iter()
        .zip(&candidates.weights)
        .filter(|(_, weight)| **weight > 0.0);
    let mean = possible
        .map(|(&distance, &weight)| f64::from(distance) * f64::from(weight))
        .sum::<f64>()
        / total;
    let surprise = |distance: f32| (f64::from(distance) - mean).abs() as f32;
    let surprises: Vec<f32> = candidates
        .distances
        .iter()
        .map(|&distance| surprise(distance))
        .collect();
    let target = p * total;
    let limit = smallest(|limit| mass(&surprises, &candidates.weights, limit) >= target);
    candidates.retain(|_, distance, _| surprise(distance) <= limit);
}

/// Sum of the weights whose key is at most `limit`.
fn mass(keys: &[f32], weights: &[f32], limit: f32) -> f64 {
    let (key_chunks, key_rest) = keys.as_chunks::<8>();
    let (weight_chunks, weight_rest) = weights.as_chunks::<8>();
    let term = |key: f32, weight: f32| f64::from(if key <= limit { weight } else { 0.0 });
    let mut lanes = [0.0; 8];
    for (keys, weights) in key_chunks.iter().zip(weight_chunks) {
        for ((lane, &key), &weight) in lanes.iter_mut().zip(keys).zip(weights) {
            *lane += term(key, weight);
        }
    }
    let rest: f64 = key_rest
        .iter()
        .zip(weight_rest)
        .map(|(&key, &weight)| term(key, weight))
        .sum();
    lanes.iter().sum::<f64>() + rest
}

/// The smallest limit, from 0 to ∞, that is `enough`, where everything above an enough is one; ∞ if none is.
fn smallest(enough: impl Fn(f32) -> bool) -> f32 {
    // The bit patterns of floats that are not negative have the order of their values.
    let (mut low, mut high) = (0_u32, f32::INFINITY.to_bits());
    while low < high {
        let middle = low.midpoint(high);
        if enough(f32::from_bits(middle)) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    f32::from_bits(low)
}

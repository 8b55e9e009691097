//! Which tokens may be drawn: temperature, then `top_k`, `top_p`, `min_p` and `typical_p`, each
//! applied to what the previous filter left, as in Hugging Face transformers.
//!
//! The vocabulary is not sorted. The first filter finds a limit below which no logit can pass, and
//! only logits above it become candidates. `top_p` and `typical_p` then add up the candidates in
//! bins by their distance from the best, and sort only the bin in which the target is reached.

use super::candidates::Candidates;
use super::row::Row;
use crate::request::Sampling;

/// Lower temperatures are replaced by this one. The draws are the same unless logits differ by less
/// than 1e-28.
const COLDEST: f32 = 1e-30;

/// Beyond this distance a weight is 0.
const FARTHEST: f32 = 87.0;

/// `top_p` first considers tokens that are at least this likely, relative to the likeliest.
const LIKELY: f64 = 1e-3;

/// The factor that turns differences of logits into distances: 1 / temperature.
pub(super) fn scale(sampling: &Sampling) -> f32 {
    1.0 / sampling.temperature.max(COLDEST)
}

/// Whether every token may be drawn.
pub(super) fn keep_all(sampling: &Sampling) -> bool {
    sampling.top_k.is_none() && sampling.top_p >= 1.0 && sampling.min_p <= 0.0 && sampling.typical_p >= 1.0
}

/// Fills `candidates` with the tokens that pass the filters of `sampling`; at least one does.
/// `buffer` is scratch memory.
pub(super) fn apply(row: &Row<'_>, sampling: &Sampling, candidates: &mut Candidates, buffer: &mut Vec<f32>) {
    let scale = scale(sampling);
    let top_p = f64::from(sampling.top_p);
    let k = sampling.top_k.filter(|&k| k < row.logits().len());
    if let Some(k) = k {
        candidates.fill(row, row.kth_largest(k, buffer).max(f32::MIN), scale);
        if top_p < 1.0 {
            let total = candidates.total();
            keep_top_p(candidates, top_p * total);
        }
    } else if top_p < 1.0 {
        let total: f64 = row.masses(scale).sum();
        // All tokens less likely than this together cannot have 1 - p, so the others reach p.
        // Usually far fewer tokens do.
        let negligible = (1.0 - top_p) * total / row.logits().len() as f64;
        candidates.fill(row, lightest(row, negligible.max(LIKELY), scale), scale);
        if negligible < LIKELY && candidates.total() < top_p * total {
            candidates.fill(row, lightest(row, negligible, scale), scale);
        }
        keep_top_p(candidates, top_p * total);
    } else {
        candidates.fill(row, lightest(row, f64::from(sampling.min_p), scale), scale);
    }
    if sampling.min_p > 0.0 {
        candidates.retain(|_, _, weight| weight >= sampling.min_p);
    }
    if sampling.typical_p < 1.0 {
        keep_typical(candidates, f64::from(sampling.typical_p));
    }
}

/// A lower bound of the logits whose weight is at least `weight` (and not 0), as tight as rounding
/// allows.
fn lightest(row: &Row<'_>, weight: f64, scale: f32) -> f32 {
    // Wider than the rounding of float32: tokens that pass wrongly are dropped by their weight
    // later, or have almost no weight.
    const SLACK: f64 = 1e-5;
    let distance = (-weight.ln()).clamp(0.0, f64::from(FARTHEST)) * (1.0 + SLACK) + SLACK;
    let largest = f64::from(row.largest());
    let limit = largest - distance / f64::from(scale);
    (limit as f32).next_down().clamp(f32::MIN, row.largest())
}

/// Keeps the likeliest tokens whose weights together reach `target`; of equals those with the
/// lowest ids (Holtzman et al. 2020, arXiv 1904.09751).
fn keep_top_p(candidates: &mut Candidates, target: f64) {
    let (limit, last) = reaching(&candidates.distances, &candidates.weights, target);
    let mut place = 0;
    candidates.retain(|_, distance, _| {
        place += 1;
        (distance < limit) | (distance == limit) & (place <= last + 1)
    });
}

/// Keeps the tokens whose information content is nearest to the entropy and that together have
/// probability `p`.
fn keep_typical(candidates: &mut Candidates, p: f64) {
    candidates.retain(|_, _, weight| weight > 0.0);
    let total = candidates.total();
    // A probability is exp(-distance)/total, so information content is distance + ln total, and its
    // expectation, the entropy, is the mean distance + ln total.
    let weighted = candidates.distances.iter().zip(&candidates.weights);
    let sum: f64 = weighted
        .map(|(&distance, &weight)| f64::from(distance) * f64::from(weight))
        .sum();
    let mean = sum / total;
    let surprise = |distance: f32| (f64::from(distance) - mean).abs() as f32;
    let surprises: Vec<f32> = candidates
        .distances
        .iter()
        .map(|&distance| surprise(distance))
        .collect();
    let (limit, _) = reaching(&surprises, &candidates.weights, p * total);
    candidates.retain(|_, distance, _| surprise(distance) <= limit);
}

/// The key and the index of the element at which the sum of weights, in the order of keys and then
/// of indices, reaches `target`; the last element if the sum of all does not.
///
/// Keys are finite and not negative; there is at least one.
fn reaching(keys: &[f32], weights: &[f32], target: f64) -> (f32, usize) {
    const BINS: usize = 512;
    let largest = keys.iter().fold(0.0, |a: f32, &b| if b > a { b } else { a });
    let scale = BINS as f32 / largest.max(f32::MIN_POSITIVE);
    // Rounding is harmless: a greater key never falls in a lower bin.
    let bin = |key: f32| ((key * scale) as u32 as usize).min(BINS - 1);
    let mut masses = [0.0_f64; BINS];
    let mut last = 0;
    for (&key, &weight) in keys.iter().zip(weights) {
        let bin = bin(key);
        masses[bin] += f64::from(weight);
        last = last.max(bin);
    }
    let (mut reached, mut chosen) = (0.0, last);
    for (bin, &mass) in masses[..last].iter().enumerate() {
        if reached + mass >= target && mass > 0.0 {
            chosen = bin;
            break;
        }
        reached += mass;
    }
    let inside = keys
        .iter()
        .copied()
        .zip(0..)
        .filter(|&(key, _)| bin(key) == chosen);
    let mut inside: Vec<(f32, usize)> = inside.collect();
    inside.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut end = (0.0, 0);
    for (key, index) in inside {
        end = (key, index);
        reached += f64::from(weights[index]);
        if reached >= target {
            break;
        }
    }
    end
}

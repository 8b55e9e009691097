//! Which tokens may be drawn: temperature, then `top_k`, `top_p`, `min_p` and `typical_p`, each on what the one before
//! has left, as in Hugging Face transformers.
//!
//! The vocabulary is never sorted: each filter finds where to cut by partial selection and then drops what is below,
//! so candidates stay in the order of their ids.

use std::cmp::Ordering;

use crate::request::Sampling;

/// A token that may be drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) id: u32,
    /// Its logit divided by the temperature, less that of the likeliest token: at most 0.
    pub(crate) score: f32,
    /// `exp(score)`: proportional to its probability; 1 for the likeliest.
    pub(crate) weight: f32,
}

/// How many candidates the first attempt at finding a cut sorts; each further attempt takes as many times more.
const FIRST_SELECTION: usize = 64;

/// Fills `candidates` with the tokens that `sampling` leaves, in the order of their ids; at least one. `order` is room
/// to work in.
pub(crate) fn candidates(
    logits: &[f32],
    sampling: &Sampling,
    candidates: &mut Vec<Candidate>,
    order: &mut Vec<Candidate>,
) {
    let largest = logits.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    let scores = logits
        .iter()
        .map(|logit| (logit - largest) / sampling.temperature);
    candidates.clear();
    candidates.extend((0..).zip(scores).map(|(id, score)| Candidate {
        id,
        score,
        weight: 0.0,
    }));
    if let Some(k) = sampling.top_k {
        top_k(candidates, k, order);
    }
    // Exponentials are what costs, so they come after the filter that needs none.
    for candidate in candidates.iter_mut() {
        candidate.weight = candidate.score.exp();
    }
    if sampling.top_p < 1.0 {
        top_p(candidates, f64::from(sampling.top_p), order);
    }
    if sampling.min_p > 0.0 {
        candidates.retain(|candidate| candidate.weight >= sampling.min_p);
    }
    if sampling.typical_p < 1.0 {
        typical_p(candidates, f64::from(sampling.typical_p), order);
    }
}

/// Sum of the weights.
pub(crate) fn total(candidates: &[Candidate]) -> f64 {
    candidates
        .iter()
        .map(|candidate| f64::from(candidate.weight))
        .sum()
}

/// Keeps the `k` likeliest, and those as likely as the last of them.
fn top_k(candidates: &mut Vec<Candidate>, k: usize, order: &mut Vec<Candidate>) {
    if k >= candidates.len() {
        return;
    }
    order.clone_from(candidates);
    let (_, kth, _) = order.select_nth_unstable_by(k - 1, likelier);
    let lowest = kth.score;
    candidates.retain(|candidate| candidate.score >= lowest);
}

/// Keeps the likeliest that together have probability `p` (Holtzman et al. 2020, arXiv 1904.09751).
fn top_p(candidates: &mut Vec<Candidate>, p: f64, order: &mut Vec<Candidate>) {
    let target = p * total(candidates);
    order.clone_from(candidates);
    let last = last_of_mass(order, target, likelier);
    candidates.retain(|candidate| likelier(candidate, &last).is_le());
}

/// Keeps those whose information content is nearest to the entropy and that together have probability `p`.
fn typical_p(candidates: &mut Vec<Candidate>, p: f64, order: &mut Vec<Candidate>) {
    let total = total(candidates);
    let information = |candidate: &Candidate| total.ln() - f64::from(candidate.score);
    let entropy: f64 = candidates
        .iter()
        .filter(|candidate| candidate.weight > 0.0)
        .map(|candidate| f64::from(candidate.weight) / total * information(candidate))
        .sum();
    let surprise = |candidate: &Candidate| (information(candidate) - entropy).abs();
    order.clone_from(candidates);
    let last = last_of_mass(order, p * total, |a, b| {
        surprise(a).total_cmp(&surprise(b)).then(a.id.cmp(&b.id))
    });
    candidates.retain(|candidate| surprise(candidate) <= surprise(&last));
}

/// The order of `top_k` and `top_p`: likeliest first, of equals the lowest id.
fn likelier(a: &Candidate, b: &Candidate) -> Ordering {
    b.score.total_cmp(&a.score).then(a.id.cmp(&b.id))
}

/// The candidate, in the order `first`, with which the sum of weights reaches `target`. There is at least one
/// candidate; they are reordered.
fn last_of_mass(
    candidates: &mut [Candidate],
    target: f64,
    first: impl Fn(&Candidate, &Candidate) -> Ordering + Copy,
) -> Candidate {
    let mut sorted = 0;
    let mut sum = 0.0;
    while sorted < candidates.len() {
        let rest = &mut candidates[sorted..];
        let more = (sorted * FIRST_SELECTION).max(FIRST_SELECTION).min(rest.len());
        if more < rest.len() {
            rest.select_nth_unstable_by(more, first);
        }
        rest[..more].sort_unstable_by(first);
        for candidate in &rest[..more] {
            sum += f64::from(candidate.weight);
            if sum >= target {
                return *candidate;
            }
        }
        sorted += more;
    }
    // Rounding: all of them are needed.
    candidates[candidates.len() - 1]
}

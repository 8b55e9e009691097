//! The sampler against specifications that sort everything and compute in float64.

use proptest::prelude::*;

use super::logprobs::Logprobs;
use super::*;

fn logits() -> impl Strategy<Value = Vec<f32>> {
    // Multiples of a quarter, so that equal logits are common.
    prop::collection::vec((-40_i32..40).prop_map(|quarter| quarter as f32 / 4.0), 1..700)
}

/// The tokens that pass the filters, with their probabilities, computed in the obvious way.
fn naive(logits: &[f32], sampling: &Sampling) -> Vec<(u32, f64)> {
    let mut kept: Vec<(u32, f64)> = (0..)
        .zip(logits)
        .map(|(id, &logit)| (id, f64::from(logit) / f64::from(sampling.temperature)))
        .collect();
    let softmax = |kept: &[(u32, f64)]| -> Vec<(u32, f64)> {
        let largest = kept.iter().fold(f64::NEG_INFINITY, |a, b| a.max(b.1));
        let sum: f64 = kept.iter().map(|(_, score)| (score - largest).exp()).sum();
        kept.iter()
            .map(|&(id, score)| (id, (score - largest).exp() / sum))
            .collect()
    };
    kept.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    if let Some(k) = sampling.top_k.filter(|&k| k < kept.len()) {
        let lowest = kept[k - 1].1;
        kept.retain(|&(_, score)| score >= lowest);
    }
    if sampling.top_p < 1.0 {
        let mut before = 0.0;
        let mut keep = 0;
        for (_, probability) in softmax(&kept) {
            if keep > 0 && before >= f64::from(sampling.top_p) {
                break;
            }
            before += probability;
            keep += 1;
        }
        kept.truncate(keep);
    }
    if sampling.min_p > 0.0 {
        let probabilities = softmax(&kept);
        let least = f64::from(sampling.min_p) * probabilities[0].1;
        let keep = probabilities
            .iter()
            .filter(|&&(_, probability)| probability >= least)
            .count();
        kept.truncate(keep);
    }
    if sampling.typical_p < 1.0 {
        let probabilities = softmax(&kept);
        let entropy: f64 = probabilities.iter().map(|(_, p)| -p * p.ln()).sum();
        let mut by_surprise: Vec<(f64, u32, f64)> = probabilities
            .iter()
            .map(|&(id, p)| ((-p.ln() - entropy).abs(), id, p))
            .collect();
        by_surprise.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let mut sum = 0.0;
        let mut last = 0.0;
        for &(surprise, _, p) in &by_surprise {
            last = surprise;
            sum += p;
            if sum >= f64::from(sampling.typical_p) {
                break;
            }
        }
        let keep: Vec<u32> = by_surprise
            .iter()
            .filter(|(surprise, ..)| *surprise <= last + 1e-9)
            .map(|&(_, id, _)| id)
            .collect();
        kept.retain(|(id, _)| keep.contains(id));
    }
    let mut kept = softmax(&kept);
    kept.sort_by_key(|&(id, _)| id);
    kept
}

fn filtered(logits: &[f32], sampling: &Sampling) -> Candidates {
    let mut candidates = Candidates::default();
    filters::apply(
        &Row::new(logits).unwrap(),
        sampling,
        &mut candidates,
        &mut Vec::new(),
    );
    candidates
}

/// The `nth` token that a sampler chooses.
fn choose(sampler: &Sampler, nth: usize, logits: &[f32]) -> u32 {
    sampler.choose(nth, &Row::new(logits).unwrap(), &mut Scratch::default())
}

fn fast(logits: &[f32], sampling: &Sampling) -> Vec<(u32, f64)> {
    let candidates = filtered(logits, sampling);
    let probability = |weight: &f32| f64::from(*weight) / candidates.total();
    candidates
        .ids
        .iter()
        .copied()
        .zip(candidates.weights.iter().map(probability))
        .collect()
}

fn same_distribution(fast: &[(u32, f64)], naive: &[(u32, f64)]) -> Result<(), TestCaseError> {
    let ids = |kept: &[(u32, f64)]| kept.iter().map(|&(id, _)| id).collect::<Vec<_>>();
    prop_assert_eq!(ids(fast), ids(naive));
    for (a, b) in fast.iter().zip(naive) {
        prop_assert!((a.1 - b.1).abs() < 1e-5, "token {}: {} and {}", a.0, a.1, b.1);
    }
    Ok(())
}

proptest! {
    #[test]
    fn each_filter_keeps_what_the_sorted_specification_keeps(
        logits in logits(),
        temperature in prop::sample::select(vec![0.25_f32, 0.5, 1.0, 2.0]),
        top_k in prop::option::of(1_usize..400),
        // Odd fractions, so that no sum of probabilities equals the limit, where rounding would
        // decide.
        p in (1_u32..1000).prop_map(|n| n as f32 / 1000.0 + 0.000_123),
        which in 0..4,
    ) {
        let mut sampling = Sampling { temperature, ..Sampling::default() };
        match which {
            0 => sampling.top_k = top_k,
            1 => sampling.top_p = p.min(1.0),
            2 => sampling.min_p = p.min(1.0),
            _ => sampling.typical_p = p.min(1.0),
        }
        same_distribution(&fast(&logits, &sampling), &naive(&logits, &sampling))?;
    }

    #[test]
    fn filters_apply_one_after_the_other(
        logits in logits(),
        top_k in 1_usize..100,
        top_p in (1_u32..999).prop_map(|n| n as f32 / 1000.0 + 0.000_123),
        min_p in (1_u32..100).prop_map(|n| n as f32 / 1000.0 + 0.000_123),
    ) {
        let sampling = Sampling { temperature: 1.5, top_k: Some(top_k), top_p, min_p, ..Sampling::default() };
        same_distribution(&fast(&logits, &sampling), &naive(&logits, &sampling))?;
    }

    #[test]
    fn the_draw_is_the_inverse_of_the_cumulative_distribution(
        logits in logits(),
        uniform in (0_u32..10_000).prop_map(|n| f64::from(n) / 10_000.0),
    ) {
        let distribution = naive(&logits, &Sampling::default());
        let row = Row::new(&logits).unwrap();
        for drawn in [
            filtered(&logits, &Sampling::default()).draw(uniform),
            draw_from_all(&row, 1.0, uniform, &mut Vec::new()),
        ] {
            let drawn = drawn as usize;
            let below: f64 = distribution[..drawn].iter().map(|(_, p)| p).sum();
            prop_assert!(below <= uniform + 1e-6, "{below} is below {uniform}");
            prop_assert!(below + distribution[drawn].1 >= uniform - 1e-6);
        }
    }

    #[test]
    fn logprobs_are_the_log_softmax(logits in logits(), n in 0_usize..=20) {
        let row = Row::new(&logits).unwrap();
        let logprobs = Logprobs::new(&row);
        let mut sorted = naive(&logits, &Sampling::default());
        for &(id, probability) in &sorted {
            prop_assert!((f64::from(logprobs.logprob(id)) - probability.ln()).abs() < 1e-4);
        }
        sorted.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let ids: Vec<u32> = sorted.iter().take(n).map(|&(id, _)| id).collect();
        let top = logprobs.top(n);
        for (index, &(id, _)) in sorted.iter().enumerate() {
            prop_assert_eq!(logprobs.rank(id), index + 1);
        }
        prop_assert_eq!(top.iter().map(|&(id, _)| id).collect::<Vec<_>>(), ids);
        prop_assert!(top.iter().all(|&(id, logprob)| logprob == logprobs.logprob(id)));
    }

    #[test]
    fn a_row_knows_its_largest_logits(
        mut logits in prop::collection::vec((-40_i32..40).prop_map(|quarter| quarter as f32 / 4.0), 1..700),
        k in 1_usize..800,
        changes in prop::collection::vec((0_usize..700, -20_i32..20), 0..10),
    ) {
        let before = logits.clone();
        let ids: Vec<u32> = changes.iter().map(|&(at, _)| (at % logits.len()) as u32).collect();
        for (&id, &(_, quarter)) in ids.iter().zip(&changes) {
            logits[id as usize] = quarter as f32 / 4.0;
        }
        let before = Row::new(&before).unwrap();
        let changed = before.changed(&logits, ids.into_iter());
        let mut sorted = logits.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        for row in [Row::new(&logits).unwrap(), changed] {
            prop_assert_eq!(row.largest(), sorted[0]);
            let first = logits.iter().position(|&logit| logit == sorted[0]).unwrap();
            prop_assert_eq!(row.argmax() as usize, first);
            let kth = row.kth_largest(k, &mut Vec::new());
            prop_assert_eq!(kth, sorted.get(k - 1).copied().unwrap_or(f32::NEG_INFINITY));
            let mut large = Vec::new();
            row.at_least(kth, |ids, logits| large.extend(ids.iter().copied().zip(logits.iter().copied())));
            let expected = (0..).zip(&logits).filter(|&(_, &logit)| logit >= kth);
            prop_assert_eq!(large, expected.map(|(id, &logit)| (id, logit)).collect::<Vec<(u32, f32)>>());
        }
    }

    #[test]
    fn a_token_can_always_be_drawn(
        logits in prop::collection::vec(prop_oneof![
            Just(f32::NEG_INFINITY), Just(f32::MAX), Just(f32::MIN), -100_f32..100.0,
        ], 1..100),
        temperature in prop::sample::select(vec![f32::from_bits(1), 1e-30, 1.0, 1e30, f32::MAX]),
        top_k in prop::option::of(1_usize..100),
        (top_p, min_p, typical_p) in (0_f32..=1.0, 0_f32..=1.0, 1e-6_f32..=1.0),
        repetition_penalty in prop::sample::select(vec![f32::MIN_POSITIVE, 1.0, f32::MAX]),
        seed: u64,
    ) {
        prop_assume!(Row::new(&logits).is_ok());
        let sampling = Sampling {
            temperature, top_k, top_p, min_p, typical_p, repetition_penalty,
            logit_bias: vec![(0, f32::MAX)],
            ..Sampling::default()
        };
        let prompt: Vec<u32> = (0..logits.len() as u32).collect();
        let row = Row::new(&logits).unwrap();
        let mut scratch = Scratch::default();
        let filtered = !filters::keep_all(&sampling);
        let id = Sampler::new(sampling, seed, &prompt).choose(0, &row, &mut scratch);
        prop_assert!((id as usize) < logits.len());
        prop_assert_eq!(filtered, !scratch.candidates.ids.is_empty());
    }
}

#[test]
fn greedy_takes_the_lowest_of_equals() {
    let sampler = Sampler::new(Sampling::greedy(), 0, &[]);
    assert_eq!(choose(&sampler, 0, &[1.0, 3.0, 3.0, 2.0]), 1);
    assert_eq!(choose(&sampler, 0, &[f32::NEG_INFINITY, -5.0]), 1);
}

#[test]
fn greedy_comes_after_penalties_and_bias() {
    let sampling = Sampling {
        logit_bias: vec![(0, 10.0)],
        ..Sampling::greedy()
    };
    assert_eq!(choose(&Sampler::new(sampling, 0, &[]), 0, &[0.0, 3.0]), 0);
    let sampling = Sampling {
        repetition_penalty: 4.0,
        ..Sampling::greedy()
    };
    assert_eq!(choose(&Sampler::new(sampling, 0, &[1]), 0, &[1.0, 3.0]), 0);
    let sampling = Sampling {
        presence_penalty: 2.0,
        ..Sampling::greedy()
    };
    let mut sampler = Sampler::new(sampling, 0, &[]);
    assert_eq!(choose(&sampler, 0, &[2.0, 3.0]), 1);
    sampler.note(1);
    assert_eq!(choose(&sampler, 1, &[2.0, 3.0]), 0);
}

#[test]
fn a_draw_depends_on_seed_and_position_alone() {
    let logits = vec![0.0; 1000];
    let sampler = |seed| Sampler::new(Sampling::default(), seed, &[]);
    let forwards: Vec<u32> = (0..50).map(|n| choose(&sampler(7), n, &logits)).collect();
    let one = sampler(7);
    let (row, mut scratch) = (Row::new(&logits).unwrap(), Scratch::default());
    let mut backwards: Vec<u32> = (0..50).rev().map(|n| one.choose(n, &row, &mut scratch)).collect();
    backwards.reverse();
    assert_eq!(forwards, backwards);
    let other: Vec<u32> = (0..50)
        .map(|n| sampler(8).choose(n, &row, &mut scratch))
        .collect();
    assert_ne!(forwards, other);
    // The draws of one seed differ.
    assert!(forwards.iter().collect::<std::collections::HashSet<_>>().len() > 40);
}

#[test]
fn tokens_of_probability_zero_are_never_drawn() {
    let logits = [f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY];
    let candidates = filtered(&logits, &Sampling::default());
    let row = Row::new(&logits).unwrap();
    for uniform in [0.0, 0.5, 1.0 - f64::EPSILON / 2.0] {
        assert_eq!(candidates.draw(uniform), 1);
        assert_eq!(draw_from_all(&row, 1.0, uniform, &mut Vec::new()), 1);
    }
}

#[test]
fn logits_that_are_no_distribution_are_named() {
    let check = |logits: &[f32]| Row::new(logits).map(|_| ());
    assert_eq!(check(&[0.0, f32::NAN]), Err(BadLogits::NotANumber(1)));
    assert_eq!(check(&[f32::NAN, f32::INFINITY]), Err(BadLogits::NotANumber(0)));
    assert_eq!(check(&[0.0, f32::INFINITY]), Err(BadLogits::Infinite(1)));
    assert_eq!(check(&[f32::NEG_INFINITY; 3]), Err(BadLogits::Nothing));
    assert_eq!(check(&[f32::NEG_INFINITY, 0.0]), Ok(()));
}

#[test]
fn the_remaining_candidates_are_those_of_transformers() {
    let cases = include_str!("../../fixtures/sampling.txt");
    for (case, line) in cases.lines().enumerate() {
        let fields: Vec<&str> = line.split(' ').collect();
        let number = |field: usize| fields[field].parse::<f32>().unwrap();
        let top_k: usize = fields[2].parse().unwrap();
        let sampling = Sampling {
            repetition_penalty: number(0),
            temperature: number(1),
            top_k: (top_k > 0).then_some(top_k),
            top_p: number(3),
            min_p: number(4),
            typical_p: number(5),
            ..Sampling::default()
        };
        let prompt: Vec<u32> = fields[6].split(',').map(|id| id.parse().unwrap()).collect();
        let mut logits: Vec<f32> = fields[7].split(',').map(|logit| logit.parse().unwrap()).collect();
        let left = fields[8].split(',').map(|token| {
            let (id, probability) = token.split_once(':').unwrap();
            (id.parse().unwrap(), probability.parse().unwrap())
        });
        Penalties::new(&sampling, &prompt).apply(&mut logits);
        let same = same_distribution(&fast(&logits, &sampling), &left.collect::<Vec<_>>());
        assert!(same.is_ok(), "case {case}, {:?}: {same:?}", &fields[..6]);
    }
    assert_eq!(cases.lines().count(), 80);
}

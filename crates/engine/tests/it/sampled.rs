//! `min_tokens` and scores of prompts, compared with transformers and PEFT.

use std::sync::Arc;

use multigraft_engine::{EngineOptions, Request, Sampling, Stop};
use multigraft_weights::safetensors::Checkpoint;

use crate::served::{Served, answer, submit};

/// Largest deviation of a log-probability: twice that of a logit.
const TOLERANCE: f64 = 4e-4;

fn numbers(list: &str) -> Vec<u32> {
    list.split(',').map(|number| number.parse().unwrap()).collect()
}

#[test]
fn answers_with_min_tokens_are_those_of_transformers_and_as_likely() {
    let folder = multigraft_testing::fixtures().join("peft/llama");
    let reference = Checkpoint::open_file(&folder.join("reference.safetensors")).unwrap();
    let served = Served::fixture(&folder);
    let engine = served.engine(2, 60, EngineOptions::default());
    let cases = include_str!("../../fixtures/lengths.txt");
    // All requests at once, in one mixed batch.
    let mut expected = Vec::new();
    for line in cases.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let adapter = served.adapters.iter().find(|(name, _)| name == fields[0]);
        assert_eq!(adapter.is_none(), fields[0] == "base", "{line}");
        let prompt = reference.i64s(&format!("prompt.{}", fields[1])).unwrap();
        let request = Request {
            adapter: adapter.map(|(_, adapter)| Arc::clone(adapter).into()),
            sampling: Sampling::greedy(),
            stop: Stop {
                tokens: numbers(fields[2]),
                ignore_eos: true,
                min_tokens: fields[3].parse().unwrap(),
                ..Stop::default()
            },
            logprobs: Some(0),
            ..Request::new(
                prompt.iter().map(|&id| id as u32).collect(),
                fields[4].parse().unwrap(),
            )
        };
        expected.push((line, submit(&engine, request), numbers(fields[5]), fields[6]));
    }
    for (line, events, tokens, mean) in &expected {
        let answer = answer(events);
        assert_eq!(&answer.ids(), tokens, "{line}");
        let logprobs = answer
            .tokens
            .iter()
            .map(|token| f64::from(token.logprob.unwrap()));
        let its = logprobs.sum::<f64>() / tokens.len() as f64;
        let mean: f64 = mean.parse().unwrap();
        assert!((its - mean).abs() < TOLERANCE, "{line}: {its}");
    }
    engine.shutdown();
    assert_eq!(expected.len(), 46);
}

#[test]
fn scores_and_ranks_of_prompts_are_those_of_pefts_logits() {
    let mut compared = 0;
    for model in ["llama", "gemma2", "qwen3_moe"] {
        let folder = multigraft_testing::fixtures().join("peft").join(model);
        let reference = Checkpoint::open_file(&folder.join("reference.safetensors")).unwrap();
        let served = Served::fixture(&folder);
        let engine = served.engine(2, 60, EngineOptions::default());
        let base = ("base", None);
        let adapters = served
            .adapters
            .iter()
            .map(|(name, adapter)| (name.as_str(), Some(adapter)));
        for (name, adapter) in std::iter::once(base).chain(adapters) {
            let prompt: Vec<u32> = reference
                .i64s("prompt.1")
                .unwrap()
                .iter()
                .map(|&id| id as u32)
                .collect();
            let logits = reference.tensor(&format!("{name}.1.logits")).unwrap().to_f32();
            let vocab = logits.len() / prompt.len();
            let request = Request {
                adapter: adapter.map(|adapter| Arc::clone(adapter).into()),
                prompt_logprobs: Some(3),
                ..Request::new(prompt.clone(), 0)
            };
            let scored = answer(&submit(&engine, request)).prompt;
            assert_eq!((scored[0].logprob, scored[0].rank), (None, None));
            for (token, row) in scored[1..].iter().zip(logits.chunks_exact(vocab)) {
                let largest = row
                    .iter()
                    .fold(0.0_f64, |largest, &logit| largest.max(f64::from(logit.abs())));
                let sum: f64 = row.iter().map(|&logit| f64::from(logit).exp()).sum();
                let its = f64::from(row[token.id as usize]);
                let close = TOLERANCE * largest;
                let logprob = f64::from(token.logprob.unwrap());
                assert!(
                    (logprob - (its - sum.ln())).abs() < close,
                    "{model} {name}: {logprob}"
                );
                // Tokens that are nearly as likely may rank on either side.
                let above = |limit: f64| row.iter().filter(|&&logit| f64::from(logit) > limit).count();
                let ranks = above(its + close) + 1..=above(its - close).max(1);
                assert!(
                    ranks.contains(&token.rank.unwrap()),
                    "{model} {name}: {:?} of {ranks:?}",
                    token.rank
                );
                assert_eq!(token.top.len(), 3);
                compared += 1;
            }
        }
        engine.shutdown();
    }
    assert!(compared > 200, "only {compared} tokens were compared");
}

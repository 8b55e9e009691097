//! An activated LoRA: the numbers of PEFT, and the prefix that it shares with the base.

use std::sync::Arc;

use multigraft_engine::{AdapterUse, EngineOptions, Request, Sampling, Stop, SubmitError};
use multigraft_weights::safetensors::Checkpoint;

use crate::served::{Served, answer, answer_and_cached, submit};

/// Largest deviation of a log-probability from PEFT's.
const TOLERANCE: f32 = 2e-3;

fn greedy(prompt: Vec<u32>, adapter: Option<AdapterUse>, max_tokens: usize) -> Request {
    Request {
        adapter,
        sampling: Sampling {
            seed: Some(0),
            ..Sampling::greedy()
        },
        stop: Stop {
            ignore_eos: true,
            ..Stop::default()
        },
        logprobs: Some(5),
        ..Request::new(prompt, max_tokens)
    }
}

#[test]
fn it_answers_as_in_peft_however_its_prompt_is_cut() {
    let served = Served::activated();
    let adapter = || Some(AdapterUse::from(Arc::clone(&served.adapters[0].1)));
    let path = multigraft_testing::fixtures().join("peft_activated/reference.safetensors");
    let reference = Checkpoint::open_file(&path).unwrap();
    for step_tokens in [3, 64] {
        let options = EngineOptions {
            step_tokens,
            ..EngineOptions::default()
        };
        let engine = served.engine(2, 32, options);
        for prompt in 0..3 {
            let ids = reference.i64s(&format!("prompt.{prompt}")).unwrap();
            let tokens: Vec<u32> = ids.iter().map(|&id| id as u32).collect();
            let expected = reference.i64s(&format!("{prompt}.greedy")).unwrap();
            let request = Request {
                prompt_logprobs: Some(0),
                ..greedy(tokens.clone(), adapter(), expected.len())
            };
            let answer = answer(&submit(&engine, request));
            let ids: Vec<i64> = answer.ids().into_iter().map(i64::from).collect();
            assert_eq!(ids, expected, "prompt {prompt}");
            let logits = reference.tensor(&format!("{prompt}.logits")).unwrap().to_f32();
            let vocab = logits.len() / tokens.len();
            let rows = logits.chunks_exact(vocab);
            for ((row, &next), scored) in rows.zip(&tokens[1..]).zip(&answer.prompt[1..]) {
                let total: f64 = row.iter().map(|&logit| f64::from(logit).exp()).sum();
                let theirs = row[next as usize] - total.ln() as f32;
                let ours = scored.logprob.unwrap();
                assert!(
                    (ours - theirs).abs() < TOLERANCE,
                    "prompt {prompt}: {ours} for {theirs}"
                );
            }
        }
        engine.shutdown();
    }
}

#[test]
fn an_activated_adapter_reuses_the_bases_prefix_with_the_bits_of_a_cold_start() {
    let served = Served::activated();
    let adapter = || Some(AdapterUse::from(Arc::clone(&served.adapters[0].1)));
    let mut prompt: Vec<u32> = (0..50).map(|i| 10 + i * 7 % 31).collect();
    prompt[40..42].copy_from_slice(&[7, 8]);
    let warm = served.engine(2, 32, EngineOptions::default());
    answer(&submit(&warm, greedy(prompt.clone(), None, 4)));
    let (together, cached) = answer_and_cached(&submit(&warm, greedy(prompt.clone(), adapter(), 8)));
    assert_eq!(cached, 40, "all that comes before the invocation");
    warm.shutdown();

    let cold = served.engine(1, 32, EngineOptions::default());
    let (alone, cached) = answer_and_cached(&submit(&cold, greedy(prompt.clone(), adapter(), 8)));
    assert_eq!((alone, cached), (together, 0));
    // The base shares the adapter's whole blocks too.
    let (_, cached) = answer_and_cached(&submit(&cold, greedy(prompt, None, 4)));
    assert_eq!(cached, 32);
    cold.shutdown();
}

#[test]
fn a_prompt_that_does_not_invoke_it_is_refused() {
    let served = Served::activated();
    let adapter = Some(AdapterUse::from(Arc::clone(&served.adapters[0].1)));
    let engine = served.engine(1, 32, EngineOptions::default());
    let refused = greedy(vec![8, 7, 1], adapter, 1).check(&engine.limits());
    assert_eq!(refused, Err(SubmitError::NotInvoked { tokens: vec![7, 8] }));
    engine.shutdown();
}

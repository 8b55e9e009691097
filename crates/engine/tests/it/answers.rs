//! The tiny models of `fixtures/peft`: answers are those of transformers and PEFT, and do not
//! depend on other requests, to the bit.

use std::sync::{Arc, OnceLock};

use multigraft_cpu::BLOCK_TOKENS;
use multigraft_engine::{EngineOptions, Request, Sampling, Stop};
use multigraft_weights::safetensors::Checkpoint;
use proptest::prelude::*;

use crate::served::{Answer, Served, answer, sorted, submit};

#[test]
fn greedy_answers_of_all_adapters_in_one_engine_are_those_of_peft() {
    let mut compared = 0;
    for folder in sorted(&multigraft_testing::fixtures().join("peft")) {
        if !folder.join("reference.safetensors").is_file() {
            continue;
        }
        let reference = Checkpoint::open_file(&folder.join("reference.safetensors")).unwrap();
        let served = Served::fixture(&folder);
        let base = ("base".to_owned(), None);
        let adapters = served
            .adapters
            .iter()
            .map(|(name, adapter)| (name.clone(), Some(Arc::clone(adapter))));
        let options = EngineOptions {
            step_tokens: 24,
            max_running: 9,
            max_waiting: 1000,
            ..EngineOptions::default()
        };
        let engine = served.engine(2, 20, options);
        let mut expected = Vec::new();
        for (name, adapter) in std::iter::once(base).chain(adapters) {
            for prompt in 0.. {
                let Some(ids) = reference.i64s(&format!("prompt.{prompt}")) else {
                    break;
                };
                let greedy = reference.i64s(&format!("{name}.{prompt}.greedy")).unwrap();
                let request = Request {
                    adapter: adapter.clone().map(Into::into),
                    sampling: Sampling::greedy(),
                    stop: Stop {
                        ignore_eos: true,
                        ..Stop::default()
                    },
                    ..Request::new(ids.iter().map(|&id| id as u32).collect(), greedy.len())
                };
                expected.push((name.clone(), prompt, greedy, submit(&engine, request)));
            }
        }
        for (name, prompt, greedy, events) in expected {
            let ids: Vec<i64> = answer(&events).ids().into_iter().map(i64::from).collect();
            assert_eq!(ids, greedy, "{}: {name}, prompt {prompt}", folder.display());
            compared += 1;
        }
        engine.shutdown();
    }
    assert!(compared > 13 * 12, "only {compared} answers were compared");
}

fn served() -> &'static Served {
    static SERVED: OnceLock<Served> = OnceLock::new();
    SERVED.get_or_init(|| Served::fixture(&multigraft_testing::fixtures().join("peft/llama")))
}

/// Prompts, half of which have a common prefix.
fn prompt() -> impl Strategy<Value = Vec<u32>> {
    prop_oneof![
        prop::collection::vec(0_u32..47, 1..40),
        (0_u32..36, prop::collection::vec(0_u32..47, 1..4))
            .prop_map(|(common, own)| (0..common).chain(own).collect()),
    ]
}

/// A request, with its adapter by number.
fn request() -> impl Strategy<Value = (Option<usize>, Request)> {
    let sampling = (
        prop::sample::select(vec![0.0_f32, 0.7, 1.5]),
        prop::option::of(1_usize..30),
        prop::sample::select(vec![1.0_f32, 0.9]),
        prop::sample::select(vec![1.0_f32, 0.8]),
        prop::sample::select(vec![1.0_f32, 1.2]),
        any::<u64>(),
    );
    (
        prompt(),
        prop::option::of(0_usize..12),
        sampling,
        0_usize..30,
        (0_usize..30, prop::collection::vec(0_u32..47, 0..3), any::<bool>()),
        prop::option::of(0_usize..3),
        prop::option::of(0_usize..3),
    )
        .prop_map(
            |(
                prompt,
                adapter,
                sampling,
                max_tokens,
                (min_tokens, tokens, show_special),
                logprobs,
                prompt_logprobs,
            )| {
                let (temperature, top_k, top_p, typical_p, repetition_penalty, seed) = sampling;
                let seed = Some(seed);
                let sampling = Sampling {
                    temperature,
                    top_k,
                    top_p,
                    typical_p,
                    repetition_penalty,
                    seed,
                    ..Sampling::default()
                };
                let stop = Stop {
                    tokens,
                    ignore_eos: true,
                    min_tokens: min_tokens.min(max_tokens),
                    ..Stop::default()
                };
                (
                    adapter,
                    Request {
                        sampling,
                        stop,
                        logprobs,
                        prompt_logprobs,
                        show_special,
                        ..Request::new(prompt, max_tokens)
                    },
                )
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn answers_and_logprobs_mixed_are_those_alone_to_the_bit(
        requests in prop::collection::vec(request(), 2..10),
        step_tokens in 1_usize..64,
        max_running in 1_usize..10,
        blocks in 70_usize.div_ceil(BLOCK_TOKENS)..16,
        threads in 1_usize..4,
    ) {
        let served = served();
        let requests: Vec<Request> = requests
            .into_iter()
            .map(|(which, request)| {
                let adapter = which.map(|which| Arc::clone(&served.adapters[which % served.adapters.len()].1));
                Request { adapter: adapter.map(Into::into), ..request }
            })
            .collect();
        let tight = EngineOptions { step_tokens, max_running, max_waiting: 100, ..EngineOptions::default() };
        let mixed = served.engine(threads, blocks, tight);
        let events: Vec<_> = requests.iter().map(|request| submit(&mixed, request.clone())).collect();
        let mixed_answers: Vec<Answer> = events.iter().map(answer).collect();
        let stats = mixed.stats();
        mixed.shutdown();
        prop_assert_eq!(stats.failed, 0);
        for (request, together) in requests.into_iter().zip(mixed_answers) {
            let alone = served.engine(1, 16, EngineOptions::default());
            let events = submit(&alone, request);
            prop_assert_eq!(answer(&events), together);
            alone.shutdown();
        }
    }
}

//! Chats: cached earlier turns are used again, and the answers are those of a cold start, to the
//! bit.

use std::sync::Arc;

use multigraft_cpu::BLOCK_TOKENS;
use multigraft_engine::{EngineOptions, Request, Sampling, Tenant};

use crate::served::{Served, answer_and_cached, submit};

const SYSTEM: &str = "<|im_start|>system\nYou are a patient guide who knows every museum of the city, answers in whole \
    sentences, and never says more than was asked for.<|im_end|>\n";

const TURNS: [&str; 3] = [
    "Which museum should I see first if I have never been here?",
    "And where would I have lunch close to it?",
    "Thanks. How do I get there from the station?",
];

#[test]
fn every_turn_is_answered_as_from_a_cold_start() {
    let served = Served::smollm2();
    let blocks = 64;
    let warm = served.engine(2, blocks, EngineOptions::default());
    let encode = |text: &str| served.tokenizer.encode(text, false).unwrap();
    let adapter = Arc::clone(&served.adapters[0].1);
    for (adapter, tenant) in [
        (None, None),
        (Some(adapter), None),
        (None, Some(Tenant::new("a"))),
    ] {
        let mut history = encode(SYSTEM);
        let mut computed = 0;
        for (turn, question) in TURNS.into_iter().enumerate() {
            history.extend(encode(&format!(
                "<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
            )));
            let request = Request {
                adapter: adapter.clone().map(Into::into),
                tenant,
                sampling: Sampling {
                    temperature: 0.7,
                    top_p: 0.9,
                    seed: Some(turn as u64),
                    ..Sampling::default()
                },
                logprobs: Some(5),
                ..Request::new(history.clone(), 16)
            };
            let (answer, cached) = answer_and_cached(&submit(&warm, request.clone()));
            // The whole blocks of all but the last token of the last answer. Another adapter or
            // tenant has no cached prefix.
            assert!(
                cached >= computed / BLOCK_TOKENS * BLOCK_TOKENS,
                "{cached} of {computed}"
            );
            assert!(cached <= computed);

            let cold = served.engine(1, blocks, EngineOptions::default());
            assert_eq!(answer_and_cached(&submit(&cold, request)), (answer.clone(), 0));
            history.extend(answer.ids());
            computed = history.len() - 1;
        }
    }
    warm.shutdown();
}

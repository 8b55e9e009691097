//! The prefix cache: cached prefixes are not computed again, and the answers do not change.

use proptest::prelude::*;

use crate::testing::{
    BLOCK_TOKENS, FakeBackend, Faults, Harness, Recording, VOCAB, adapter, exactly, generous, invoked, scaled,
};
use crate::{EngineOptions, Event, Request, Sampling, Stop, Tenant};
use multigraft_model::Limits;

/// `count` tokens without two equal blocks.
fn text(count: usize) -> Vec<u32> {
    (0..count).map(|i| 2 + (i * i / 7 + i / 22) as u32 % 20).collect()
}

fn cached(recording: &Recording) -> usize {
    let finish = recording.events().into_iter().find_map(|event| match event {
        Event::Finished(finish) => Some(finish.cached_tokens),
        _ => None,
    });
    finish.unwrap()
}

/// Serves requests one after the other, and returns how many prompt tokens of each were cached.
fn hits(harness: &mut Harness, requests: &[Request]) -> Vec<usize> {
    let serve = |request: &Request| {
        let recording = harness.submit(request.clone());
        harness.run();
        assert_eq!(recording.answer(), Harness::alone(request.clone()).answer());
        cached(&recording)
    };
    requests.iter().map(serve).collect()
}

#[test]
fn the_second_turn_of_a_chat_computes_what_is_new() {
    let backend = FakeBackend::new(generous());
    let steps = backend.steps();
    let mut harness = Harness::over(backend, EngineOptions::default());
    let first = exactly(text(100), 30);
    let recording = harness.submit(first.clone());
    harness.run();
    let history = [first.prompt, recording.answer().ids(), text(7)].concat();
    assert_eq!(history.len(), 137);
    // The whole blocks of 100 tokens and the answer's first 29, whose successors were computed.
    let second = exactly(history, 4);
    assert_eq!(hits(&mut harness, &[second]), [8 * BLOCK_TOKENS]);
    let rows: Vec<usize> = steps.lock().unwrap().iter().map(|runs| runs[0].1).collect();
    assert_eq!(rows[0], 100);
    assert_eq!(rows[30..], [9, 1, 1, 1]);
    assert_eq!(harness.stats().cached_tokens, 128);
}

#[test]
fn the_last_row_is_always_computed() {
    let mut harness = Harness::new(EngineOptions::default());
    for length in [1, 15, 16, 17, 32, 33] {
        let prompt: Vec<u32> = text(length).iter().map(|id| (id + length as u32) % 24).collect();
        let twice = [exactly(prompt.clone(), 1), exactly(prompt, 1)];
        let full = (length - 1) / BLOCK_TOKENS * BLOCK_TOKENS;
        // A prompt of whole blocks is entirely cached, so all but its last position is copied.
        let second = if length % BLOCK_TOKENS == 0 {
            length - 1
        } else {
            full
        };
        assert_eq!(hits(&mut harness, &twice), [0, second], "{length}");
    }
}

#[test]
fn a_prompt_that_diverges_within_a_block_copies_the_common_positions() {
    let prompts = [text(64), [&text(41)[..], &[1; 10]].concat()];
    let requests = prompts.map(|prompt| exactly(prompt, 3));
    let mut harness = Harness::new(EngineOptions::default());
    assert_eq!(hits(&mut harness, &requests), [0, 41]);
    let faults = Faults {
        cannot_copy: true,
        ..Faults::default()
    };
    let backend = FakeBackend::with_faults(generous(), faults);
    let mut harness = Harness::over(backend, EngineOptions::default());
    assert_eq!(hits(&mut harness, &requests), [0, 32]);
}

#[test]
fn another_adapter_scale_or_tenant_shares_no_prefix() {
    let plain = exactly(text(40), 2);
    let with = |which: Option<u8>, tenant: Option<&str>| Request {
        adapter: which.map(adapter),
        tenant: tenant.map(Tenant::new),
        ..plain.clone()
    };
    let all = [
        Request {
            adapter: Some(scaled(1, 0.5)),
            ..plain.clone()
        },
        with(None, None),
        with(Some(1), None),
        with(Some(2), None),
        with(None, Some("a")),
        with(None, Some("b")),
        with(Some(1), Some("a")),
    ];
    let mut harness = Harness::new(EngineOptions::default());
    assert_eq!(hits(&mut harness, &all), [0; 7]);
    assert_eq!(hits(&mut harness, &all), [32; 7]);
}

#[test]
fn prompt_logprobs_are_computed_for_every_row() {
    let plain = exactly(text(40), 2);
    let scored = Request {
        prompt_logprobs: Some(2),
        ..plain.clone()
    };
    let mut harness = Harness::new(EngineOptions::default());
    assert_eq!(hits(&mut harness, &[plain.clone(), scored, plain]), [0, 0, 32]);
}

#[test]
fn a_disabled_cache_keeps_nothing() {
    let mut harness = Harness::new(EngineOptions {
        prefix_cache: false,
        ..EngineOptions::default()
    });
    let twice = [exactly(text(40), 2), exactly(text(40), 2)];
    assert_eq!(hits(&mut harness, &twice), [0, 0]);
    assert_eq!(
        (harness.stats().blocks_cached, harness.stats().cached_tokens),
        (0, 0)
    );
}

#[test]
fn running_sequences_hold_one_copy_of_a_common_prefix() {
    let mut harness = Harness::new(EngineOptions {
        step_tokens: 512,
        ..EngineOptions::default()
    });
    let requests: Vec<Request> = (2..6)
        .map(|last| exactly([text(64), vec![last; 3]].concat(), 8))
        .collect();
    // All requests start before any has computed its prefix, and share it once it is computed.
    let recordings: Vec<Recording> = requests
        .iter()
        .map(|request| harness.submit(request.clone()))
        .collect();
    harness.turn();
    assert_eq!(harness.stats().blocks_used, 4 + 4);
    harness.run();
    for (recording, request) in recordings.iter().zip(requests) {
        assert_eq!(recording.answer(), Harness::alone(request).answer());
    }
}

#[test]
fn cached_blocks_do_not_block_other_requests() {
    let limits = Limits {
        blocks: 4,
        ..generous()
    };
    let mut harness = Harness::over(FakeBackend::new(limits), EngineOptions::default());
    let other: Vec<u32> = text(60).into_iter().rev().collect();
    let requests = [exactly(text(60), 4), exactly(other, 4), exactly(text(60), 4)];
    assert_eq!(hits(&mut harness, &requests), [0, 0, 0]);
    assert_eq!(harness.stats().preemptions, 0);
    assert_eq!(
        (harness.stats().blocks_used, harness.stats().blocks_cached),
        (0, 3)
    );
}

#[test]
fn a_preempted_sequence_resumes_at_the_end_of_its_cached_prefix() {
    let limits = Limits {
        blocks: 8,
        ..generous()
    };
    let mut harness = Harness::over(
        FakeBackend::new(limits),
        EngineOptions {
            max_running: 2,
            ..EngineOptions::default()
        },
    );
    let other: Vec<u32> = text(64).into_iter().rev().collect();
    let requests = [exactly(text(40), 40), exactly(other, 20)];
    let recordings = requests.clone().map(|request| harness.submit(request));
    harness.run();
    let stats = harness.stats();
    assert!(stats.preemptions > 0);
    assert!(stats.cached_tokens > 0, "{stats:?}");
    for (recording, request) in recordings.iter().zip(requests) {
        assert_eq!(
            cached(recording),
            0,
            "nothing of the prompt was computed for others"
        );
        assert_eq!(recording.answer(), Harness::alone(request).answer());
    }
}

#[test]
fn the_base_and_an_activated_adapter_share_the_prefix_before_the_invocation() {
    // Within a block, at the beginning of a block, in the first block, at position 0.
    for at in [41, 48, 5, 0] {
        let mut prompt = text(60);
        prompt[at..at + 2].copy_from_slice(&[21, 22]);
        let base = exactly(prompt.clone(), 3);
        let with = |which| Request {
            adapter: Some(invoked(which, &[21, 22])),
            ..base.clone()
        };
        let before = if at < 4 { 0 } else { at };
        // The base shares whole blocks. A block within which the adapter begins to apply is the
        // adapter's own.
        let whole = at / BLOCK_TOKENS * BLOCK_TOKENS;
        let mut harness = Harness::new(EngineOptions::default());
        assert_eq!(
            hits(&mut harness, &[base.clone(), with(1), with(2), with(1)]),
            [0, before, before, 48],
            "{at}"
        );
        let mut harness = Harness::new(EngineOptions::default());
        assert_eq!(hits(&mut harness, &[with(1), base.clone()]), [0, whole], "{at}");
    }
}

#[test]
fn another_invocation_position_is_another_prefix() {
    let mut first = text(60);
    first[10..12].copy_from_slice(&[21, 22]);
    let mut second = first.clone();
    second[50..52].copy_from_slice(&[21, 22]);
    let of = |prompt: &[u32]| Request {
        adapter: Some(invoked(1, &[21, 22])),
        ..exactly(prompt.to_vec(), 3)
    };
    let mut harness = Harness::new(EngineOptions::default());
    assert_eq!(hits(&mut harness, &[of(&first), of(&second)]), [0, 0]);
}

/// A turn of a chat: its tenant, how much of the common history it continues, what it adds, and the
/// length of the answer.
type Turn = (u8, usize, Vec<u32>, usize);

fn turn() -> impl Strategy<Value = Turn> {
    (
        0_u8..12,
        0_usize..200,
        prop::collection::vec(0..VOCAB as u32, 1..30),
        1_usize..40,
    )
}

proptest! {
    #[test]
    fn answers_with_the_cache_are_those_without(
        turns in prop::collection::vec(turn(), 1..16),
        at_once in 1_usize..5,
        blocks in 17_usize..40,
        step_tokens in 1_usize..80,
        max_running in 1_usize..6,
        cannot_copy in any::<bool>(),
        seed: u64,
    ) {
        let limits = Limits { blocks, ..generous() };
        let faults = Faults { cannot_copy, ..Faults::default() };
        let options = EngineOptions { step_tokens, max_running, ..EngineOptions::default() };
        let mut harness = Harness::over(FakeBackend::with_faults(limits, faults), options);
        let mut history: Vec<u32> = text(40);
        for turns in turns.chunks(at_once) {
            let requests: Vec<Request> = turns
                .iter()
                .map(|(whose, taken, new, max_tokens)| Request {
                    adapter: match whose % 4 {
                        1 => Some(scaled(1, 1.0 + f32::from(whose % 3))),
                        3 => Some(invoked(1, &new[..1])),
                        _ => None,
                    },
                    tenant: (whose / 2 % 2 == 1).then(|| Tenant::new("a")),
                    sampling: Sampling { seed: Some(seed), ..Sampling::default() },
                    stop: Stop { ignore_eos: true, ..Stop::default() },
                    logprobs: Some(1),
                    ..Request::new([&history[..history.len().min(*taken)], new].concat(), *max_tokens)
                })
                .collect();
            let recordings: Vec<Recording> =
                requests.iter().map(|request| harness.submit(request.clone())).collect();
            harness.run();
            for (recording, request) in recordings.iter().zip(requests) {
                let answer = recording.answer();
                prop_assert!(cached(recording) < request.prompt.len());
                history = [request.prompt.as_slice(), &answer.ids()].concat();
                prop_assert_eq!(answer, Harness::alone(request).answer());
            }
        }
        prop_assert_eq!(harness.stats().blocks_used, 0);
    }
}

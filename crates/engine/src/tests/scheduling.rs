//! Which sequences compute which rows in which step.

use crate::testing::{
    BLOCK_TOKENS, FakeBackend, Faults, Harness, Recorder, Recording, adapter, exactly, generous, hash,
};
use crate::{EngineOptions, FinishReason, Request, SubmitError};
use multigraft_model::Limits;

/// A prompt of `prompt` tokens, answered with exactly `output`.
fn plain(prompt: usize, output: usize) -> Request {
    exactly((0..prompt).map(|i| 2 + i as u32 % 20).collect(), output)
}

fn options(step_tokens: usize, max_running: usize) -> EngineOptions {
    EngineOptions {
        step_tokens,
        max_running,
        ..EngineOptions::default()
    }
}

/// Rows of each run of each step.
fn rows_of_steps(limits: Limits, options: EngineOptions, requests: &[Request]) -> Vec<Vec<usize>> {
    let backend = FakeBackend::new(limits);
    let steps = backend.steps();
    let mut harness = Harness::over(backend, options);
    let recordings: Vec<Recording> = requests
        .iter()
        .map(|request| harness.submit(request.clone()))
        .collect();
    harness.run();
    assert!(recordings.iter().all(|recording| recording.ends() == 1));
    let steps = steps.lock().unwrap();
    steps
        .iter()
        .map(|runs| runs.iter().map(|run| run.1).collect())
        .collect()
}

#[test]
fn a_long_prompt_is_computed_in_chunks_of_the_step_budget() {
    let steps = rows_of_steps(generous(), options(8, 4), &[plain(20, 3)]);
    assert_eq!(steps, [vec![8], vec![8], vec![4], vec![1], vec![1]]);
}

#[test]
fn short_prompts_share_a_step_and_a_prompt_fills_what_is_left() {
    let steps = rows_of_steps(
        generous(),
        options(8, 4),
        &[plain(3, 1), plain(3, 1), plain(4, 1)],
    );
    assert_eq!(steps, [vec![3, 3, 2], vec![2]]);
}

#[test]
fn decoding_sequences_get_their_row_before_any_prompt() {
    let steps = rows_of_steps(generous(), options(6, 4), &[plain(2, 4), plain(20, 1)]);
    assert_eq!(steps, [vec![2, 4], vec![1, 5], vec![1, 5], vec![1, 5], vec![1]]);
}

#[test]
fn no_more_run_at_once_than_allowed() {
    let steps = rows_of_steps(
        generous(),
        options(64, 2),
        &[plain(2, 3), plain(2, 3), plain(2, 3)],
    );
    assert_eq!(
        steps,
        [vec![2, 2], vec![1, 1], vec![1, 1], vec![2], vec![1], vec![1]]
    );
}

#[test]
fn a_step_has_at_most_the_backends_rows() {
    let steps = rows_of_steps(
        Limits {
            step_rows: 4,
            ..generous()
        },
        options(256, 64),
        &[plain(10, 1), plain(3, 1)],
    );
    assert!(
        steps.iter().all(|runs| runs.iter().sum::<usize>() <= 4),
        "{steps:?}"
    );
}

#[test]
fn prompt_logprobs_are_computed_a_few_rows_at_a_time_beside_a_full_step() {
    let scored = Request {
        prompt_logprobs: Some(0),
        ..plain(150, 1)
    };
    let steps = rows_of_steps(generous(), options(200, 4), &[scored, plain(100, 1)]);
    assert_eq!(steps, [vec![64, 100], vec![64], vec![22]]);
}

#[test]
fn rows_of_an_adapter_are_neighbours_with_the_base_first() {
    let backend = FakeBackend::new(generous());
    let steps = backend.steps();
    let mut harness = Harness::over(backend, options(64, 8));
    for which in [Some(1), None, Some(2), Some(1), None] {
        harness.submit(Request {
            adapter: which.map(adapter),
            ..plain(2, 2)
        });
    }
    harness.run();
    for runs in steps.lock().unwrap().iter() {
        let adapters: Vec<_> = runs.iter().map(|run| run.0).collect();
        assert_eq!(
            adapters,
            [None, None, Some(hash(1)), Some(hash(1)), Some(hash(2))]
        );
    }
}

#[test]
fn when_blocks_run_out_the_youngest_is_preempted_and_its_client_does_not_notice() {
    // Each ends with three blocks; the pool has four.
    let limits = Limits {
        blocks: 4,
        ..generous()
    };
    let mut harness = Harness::over(FakeBackend::new(limits), options(64, 4));
    let requests = [
        plain(BLOCK_TOKENS, 2 * BLOCK_TOKENS),
        plain(BLOCK_TOKENS - 4, 2 * BLOCK_TOKENS),
    ];
    let recordings = requests.clone().map(|request| harness.submit(request));
    let mut before = [0, 0];
    while harness.turn() {
        let tokens = [recordings[0].tokens(), recordings[1].tokens()];
        assert!(
            tokens[0] > before[0] || recordings[0].ends() == 1,
            "the oldest had to wait"
        );
        before = tokens;
    }
    assert!(harness.stats().preemptions > 0);
    for (recording, request) in recordings.iter().zip(requests) {
        assert_eq!(recording.answer(), Harness::alone(request).answer());
    }
}

#[test]
fn a_preempted_sequence_keeps_its_adapter_resident_and_resumes_before_others_start() {
    // The first sequence grows from two blocks to three while the second holds the other four.
    let limits = Limits {
        blocks: 6,
        ..generous()
    };
    let mut harness = Harness::over(FakeBackend::new(limits), options(64, 2));
    harness.submit(plain(BLOCK_TOKENS, 2 * BLOCK_TOKENS));
    let second = harness.submit(Request {
        adapter: Some(adapter(1)),
        ..plain(3 * BLOCK_TOKENS - 4, BLOCK_TOKENS + 4)
    });
    // The third request would fit beside the first while the second has to wait.
    let third = harness.submit(plain(2, 1));
    let mut preempted = 0;
    while harness.turn() {
        let stats = harness.stats();
        preempted += stats.preempted;
        if second.ends() == 0 {
            assert_eq!(stats.resident, [hash(1)]);
        }
        if stats.preempted > 0 {
            assert_eq!((stats.waiting, third.events().len()), (1, 0));
        }
    }
    assert!(preempted > 0);
    assert_eq!(third.ends(), 1);
}

#[test]
fn no_request_overtakes_one_that_waits_for_blocks() {
    let limits = Limits {
        blocks: 4,
        ..generous()
    };
    let mut harness = Harness::over(FakeBackend::new(limits), options(64, 8));
    let first = harness.submit(plain(2 * BLOCK_TOKENS, 4));
    let large = harness.submit(plain(3 * BLOCK_TOKENS, 1));
    let small = harness.submit(plain(2, 1));
    harness.turn();
    assert!(!first.events().is_empty());
    assert!(large.events().is_empty() && small.events().is_empty());
    assert_eq!((harness.stats().running, harness.stats().waiting), (1, 2));
    harness.run();
    assert_eq!([large.ends(), small.ends()], [1, 1]);
}

#[test]
fn the_largest_request_that_is_accepted_can_be_served() {
    let limits = Limits {
        blocks: 2,
        context: 100,
        ..generous()
    };
    let mut harness = Harness::over(FakeBackend::new(limits), options(7, 4));
    let room = 2 * BLOCK_TOKENS;
    let (sink, _recording) = Recorder::new();
    let refused = harness.try_submit(plain(room - 3, 4), sink).unwrap_err();
    assert_eq!(
        refused,
        SubmitError::TooLongForCache {
            prompt: room - 3,
            max_tokens: 4,
            cache: room
        }
    );
    let recordings: Vec<_> = (0..3).map(|_| harness.submit(plain(room - 4, 4))).collect();
    harness.run();
    for recording in recordings {
        assert_eq!(recording.answer().reason(), &FinishReason::Length);
        assert_eq!(recording.answer().tokens.len(), 4);
    }
}

#[test]
fn an_adapter_is_resident_from_its_first_sequence_to_its_last() {
    let mut harness = Harness::new(options(64, 8));
    harness.submit(Request {
        adapter: Some(adapter(1)),
        ..plain(2, 2)
    });
    harness.submit(Request {
        adapter: Some(adapter(2)),
        ..plain(2, 3)
    });
    harness.submit(Request {
        adapter: Some(adapter(1)),
        ..plain(2, 4)
    });
    let mut resident = Vec::new();
    while harness.turn() {
        resident.push(harness.stats().resident);
    }
    let (one, two) = (hash(1), hash(2));
    assert_eq!(resident, [vec![one, two], vec![one, two], vec![one], vec![]]);
}

#[test]
fn an_adapter_for_another_base_fails_its_requests_alone() {
    let faults = Faults {
        refused: Some(hash(1)),
        ..Faults::default()
    };
    let mut harness = Harness::over(FakeBackend::with_faults(generous(), faults), options(64, 8));
    let refused = harness.submit(Request {
        adapter: Some(adapter(1)),
        ..plain(2, 2)
    });
    let fine = harness.submit(Request {
        adapter: Some(adapter(2)),
        ..plain(2, 2)
    });
    harness.run();
    assert_eq!(
        refused.failure().as_deref(),
        Some("the adapter was packed for another base model")
    );
    assert_eq!(fine.answer().tokens.len(), 2);
}

#[test]
fn statistics_add_up() {
    let mut harness = Harness::new(options(4, 8));
    harness.submit(plain(10, 5));
    let (sink, _recording) = Recorder::breaking(Some(2));
    harness.try_submit(plain(3, 100), sink).unwrap();
    assert_eq!(harness.stats().waiting, 2);
    harness.turn();
    let stats = harness.stats();
    assert_eq!(
        (
            stats.running,
            stats.waiting,
            stats.blocks_used,
            stats.blocks_total
        ),
        (1, 1, 1, 64)
    );
    harness.run();
    let stats = harness.stats();
    assert_eq!((stats.prompt_tokens, stats.generated_tokens), (13, 7));
    assert_eq!((stats.prefill_rows, stats.decode_rows), (13, 5));
    assert_eq!(
        (stats.finished, stats.cancelled, stats.failed, stats.preemptions),
        (1, 1, 0, 0)
    );
    // Chunks of 4, 4 and 2, and a step for each further token, in which the second request is
    // computed too.
    assert_eq!(stats.steps, 7);
}

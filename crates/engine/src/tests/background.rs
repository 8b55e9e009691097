//! Background requests.

use multigraft_model::Limits;

use crate::testing::{BLOCK_TOKENS, FakeBackend, Harness, Recording, adapter, exactly, generous};
use crate::{EngineOptions, Request};

fn options(max_running: usize) -> EngineOptions {
    EngineOptions {
        step_tokens: 16,
        max_running,
        prefix_cache: false,
        ..EngineOptions::default()
    }
}

fn request(which: u8, prompt: usize, output: usize) -> Request {
    Request {
        adapter: Some(adapter(which)),
        ..exactly((0..prompt).map(|i| 2 + i as u32 % 20).collect(), output)
    }
}

/// Number of turns until the recording has so many tokens.
fn turns_until(harness: &mut Harness, recording: &Recording, tokens: usize) -> usize {
    for turn in 1.. {
        harness.turn();
        if recording.tokens() >= tokens {
            return turn;
        }
    }
    unreachable!("it comes")
}

#[test]
fn no_request_waits_for_the_background() {
    let asked = || request(9, 40, 5);
    let mut idle = Harness::over(FakeBackend::new(generous()), options(4));
    let recording = idle.submit(asked());
    let alone = [
        turns_until(&mut idle, &recording, 1),
        turns_until(&mut idle, &recording, 5),
    ];
    // Some requests run, some are in the middle of their prompts, some wait.
    for turns in [0, 1, 3, 20] {
        let mut busy = Harness::over(FakeBackend::new(generous()), options(4));
        let background: Vec<Recording> = (0..6)
            .map(|which| busy.submit_background(request(which, 20, 30)))
            .collect();
        for _ in 0..turns {
            busy.turn();
        }
        let recording = busy.submit(asked());
        let beside = [
            turns_until(&mut busy, &recording, 1),
            turns_until(&mut busy, &recording, 5),
        ];
        assert_eq!(beside, alone, "after {turns} turns");
        assert_eq!(
            busy.stats().running,
            0,
            "it has ended, and the background is not counted"
        );
        assert!(busy.stats().background > 0);
        busy.run();
        for (which, recording) in (0..).zip(&background) {
            let expected = Harness::alone(request(which, 20, 30));
            assert_eq!(recording.answer(), expected.answer(), "whatever came between");
        }
        assert_eq!(busy.stats().background, 0);
    }
}

#[test]
fn the_background_gives_back_the_blocks_that_others_need() {
    let limits = Limits {
        blocks: 6,
        ..generous()
    };
    let mut harness = Harness::over(FakeBackend::new(limits), options(8));
    let background =
        [1, 2, 3].map(|which| harness.submit_background(request(which, BLOCK_TOKENS + 1, BLOCK_TOKENS)));
    while harness.stats().blocks_used < 4 {
        harness.turn();
    }
    // The request needs all blocks.
    let whole = || request(4, 4 * BLOCK_TOKENS, 2 * BLOCK_TOKENS - 1);
    let all = harness.submit(whole());
    while all.ends() == 0 {
        harness.turn();
        assert!(background.iter().all(|background| background.ends() == 0));
    }
    harness.run();
    assert_eq!(all.answer(), Harness::alone(whole()).answer());
    for (which, recording) in (1..).zip(&background) {
        let expected = Harness::alone(request(which, BLOCK_TOKENS + 1, BLOCK_TOKENS));
        assert_eq!(recording.answer(), expected.answer());
    }
    assert_eq!(harness.stats().blocks_used, 0);
}

#[test]
fn background_work_does_not_count_against_a_share() {
    let mut harness = Harness::over(FakeBackend::new(generous()), options(1));
    let batch = harness.submit_background(request(1, 64, 64));
    turns_until(&mut harness, &batch, 32);
    let first = harness.submit(request(1, 4, 4));
    let second = harness.submit(request(2, 4, 4));
    while first.ends() == 0 {
        harness.turn();
        assert_eq!(second.tokens(), 0, "of equals the older one");
    }
    harness.run();
    assert_eq!((second.ends(), batch.ends()), (1, 1));
}

//! Times that the engine reports, by a clock that only the test moves.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::manual::ManualClock;
use crate::testing::{FakeBackend, Faults, Harness, Recorder, exactly, generous};
use crate::{EngineOptions, Event, SubmitError, Timings};

const STEP: Duration = Duration::from_millis(20);

/// An engine whose steps take [`STEP`] each.
fn harness(options: EngineOptions) -> Harness {
    let clock = ManualClock::new();
    let faults = Faults {
        step_time: Some((clock.clone(), STEP)),
        ..Faults::default()
    };
    let backend = FakeBackend::with_faults(generous(), faults);
    Harness::at(clock, backend, options, Arc::default())
}

#[test]
fn a_request_says_how_long_it_waited_and_how_long_each_phase_took() {
    let mut harness = harness(EngineOptions {
        step_tokens: 4,
        ..EngineOptions::default()
    });
    let recording = harness.submit(exactly(vec![2; 10], 5));
    let waited = Duration::from_secs(3);
    harness.clock.advance(waited);
    harness.run();
    let events = recording.events();
    assert_eq!(events[0], Event::Started { queue_time: waited });
    let Some(Event::Finished(finish)) = events.last() else {
        panic!("it ended in {:?}", events.last());
    };
    // The prompt takes three steps, the last of which gives the first of five tokens.
    let timings = Timings {
        queue: waited,
        prefill: 3 * STEP,
        decode: 4 * STEP,
    };
    assert_eq!(finish.timings, timings);
    let stats = harness.stats();
    assert_eq!((stats.steps, stats.step_time), (7, 7 * STEP));
    let kinds = stats.step_kinds;
    assert_eq!((kinds.prefill, kinds.decode), (3 * STEP, 4 * STEP));
    assert_eq!(stats.sampling_time, Duration::ZERO);
}

#[test]
fn a_refusal_says_when_there_will_be_room_at_the_rate_at_which_requests_start() {
    let mut harness = harness(EngineOptions {
        max_running: 1,
        max_waiting: 3,
        ..EngineOptions::default()
    });
    let refused = |harness: &Harness| {
        let (sink, _) = Recorder::new();
        harness.try_submit(exactly(vec![2], 1), sink).unwrap_err()
    };
    let full = |retry_after| SubmitError::QueueFull {
        waiting: 3,
        limit: 3,
        retry_after,
    };
    let tokens = 10;
    let _recordings = [(); 3].map(|()| harness.submit(exactly(vec![2], tokens)));
    assert_eq!(refused(&harness), full(None), "none has left yet");
    // Each request takes ten steps, and then the next one starts.
    for _ in 0..2 * tokens {
        harness.turn();
    }
    let _recordings = [(); 2].map(|()| harness.submit(exactly(vec![2], tokens)));
    let each = STEP * tokens as u32;
    assert_eq!(refused(&harness), full(Some(3 * each)));
    // While no request leaves, the estimate grows.
    harness.clock.advance(10 * each);
    assert_eq!(refused(&harness), full(Some(3 * 11 * each)));
}

//! The engine on its own thread: start, end and failures.

use std::collections::HashSet;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};

use crate::testing::{
    BLOCK_TOKENS, FakeBackend, FakeVocabulary, Faults, Harness, Recorder, Recording, adapter, exactly,
    generous,
};
use crate::{Engine, EngineOptions, Event, Request, RequestId, SubmitError};
use multigraft_model::Limits;

fn lasting(max_tokens: usize) -> Request {
    exactly(vec![2, 3, 4], max_tokens)
}

fn start(faults: Faults, options: EngineOptions) -> Engine {
    let backend = FakeBackend::with_faults(generous(), faults);
    Engine::start_with(
        Box::new(backend),
        Arc::new(FakeVocabulary),
        options,
        Arc::default(),
    )
}

/// An engine each of whose steps waits for a message; once the sender is dropped, steps run freely.
fn gated(options: EngineOptions) -> (Engine, Sender<()>) {
    let (gate, wait) = mpsc::channel();
    let faults = Faults {
        gate: Some(Mutex::new(wait)),
        ..Faults::default()
    };
    (start(faults, options), gate)
}

fn submit(engine: &Engine, request: Request) -> Recording {
    let (sink, recording) = Recorder::new();
    engine.submit(request, sink).unwrap();
    recording
}

fn refusal(engine: &Engine) -> SubmitError {
    let (sink, recording) = Recorder::new();
    let refused = engine.submit(lasting(1), sink).unwrap_err();
    assert!(
        recording.events().is_empty(),
        "a refused request heard {:?}",
        recording.events()
    );
    refused
}

#[test]
fn an_idle_engine_wakes_for_each_request() {
    let engine = start(Faults::default(), EngineOptions::default());
    assert!(!engine.is_stopped());
    for _ in 0..3 {
        let recording = submit(&engine, lasting(5));
        recording.wait();
        assert_eq!(recording.answer(), Harness::alone(lasting(5)).answer());
    }
    engine.shutdown();
}

#[test]
fn requests_from_many_threads_are_all_answered() {
    let engine = start(
        Faults::default(),
        EngineOptions {
            step_tokens: 16,
            ..EngineOptions::default()
        },
    );
    let answered: usize = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8_u8)
            .map(|n| {
                let engine = engine.clone();
                scope.spawn(move || {
                    let request = Request {
                        adapter: Some(adapter(n % 3)),
                        ..lasting(20)
                    };
                    let recordings: Vec<_> = (0..5).map(|_| submit(&engine, request.clone())).collect();
                    recordings
                        .iter()
                        .filter(|recording| recording.wait().len() == 22)
                        .count()
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    assert_eq!(answered, 40);
    engine.shutdown();
}

#[test]
fn a_full_queue_refuses_and_says_how_full_it_is() {
    let (engine, gate) = gated(EngineOptions {
        max_running: 1,
        max_waiting: 2,
        ..EngineOptions::default()
    });
    let running = submit(&engine, lasting(3));
    running.wait_started();
    let waiting = [submit(&engine, lasting(3)), submit(&engine, lasting(3))];
    assert_eq!(
        refusal(&engine),
        SubmitError::QueueFull {
            waiting: 2,
            limit: 2,
            retry_after: None
        }
    );
    assert_eq!(engine.stats().waiting, 2);
    drop(gate);
    running.wait();
    waiting.iter().for_each(|recording| drop(recording.wait()));
    submit(&engine, lasting(1)).wait();
    engine.shutdown();
}

#[test]
fn shutdown_refuses_new_requests_and_serves_the_accepted_to_their_end() {
    let (engine, gate) = gated(EngineOptions {
        max_running: 1,
        ..EngineOptions::default()
    });
    let running = submit(&engine, lasting(10));
    let waiting = submit(&engine, lasting(10));
    running.wait_started();
    let other = engine.clone();
    let ending = std::thread::spawn(move || engine.shutdown());
    // Until the engine is closed, it may accept requests whose client then gives up, or be full of
    // these.
    while refusal_or_accept(&other) != Some(SubmitError::Stopped) {
        std::thread::yield_now();
    }
    drop(gate);
    ending.join().unwrap();
    assert_eq!(running.answer().tokens.len(), 10);
    assert_eq!(waiting.answer().tokens.len(), 10);
}

/// Tries to submit a request whose client is gone before it is served.
fn refusal_or_accept(engine: &Engine) -> Option<SubmitError> {
    let (sink, recording) = Recorder::new();
    recording.hang_up();
    engine.submit(lasting(1), sink).err()
}

#[test]
fn abort_fails_accepted_requests() {
    let mut harness = Harness::new(EngineOptions {
        max_running: 1,
        ..EngineOptions::default()
    });
    let recordings = [harness.submit(lasting(900)), harness.submit(lasting(900))];
    assert!(harness.turn());
    harness.abort();
    assert!(!harness.turn());
    for recording in recordings {
        assert_eq!(
            recording.failure().as_deref(),
            Some("the server is shutting down")
        );
        assert_eq!(recording.ends(), 1);
    }
}

#[test]
fn abort_ends_a_shutdown() {
    let (engine, gate) = gated(EngineOptions::default());
    let recording = submit(&engine, lasting(900));
    recording.wait_started();
    let other = engine.clone();
    let draining = std::thread::spawn(move || other.shutdown());
    let aborting = std::thread::spawn(move || engine.abort());
    // The current step has to end before the command is seen.
    while !aborting.is_finished() {
        let _ = gate.send(());
        std::thread::yield_now();
    }
    draining.join().unwrap();
    aborting.join().unwrap();
    assert_eq!(recording.ends(), 1);
}

#[test]
fn dropping_the_last_handle_serves_the_accepted_to_their_end() {
    let engine = start(Faults::default(), EngineOptions::default());
    let recording = submit(&engine, lasting(50));
    drop(engine);
    recording.wait();
    assert_eq!(recording.answer().tokens.len(), 50);
}

#[test]
fn a_panic_fails_every_live_request_and_refuses_later_ones() {
    let (gate, wait) = mpsc::channel();
    let faults = Faults {
        panic_at: Some(3),
        gate: Some(Mutex::new(wait)),
        ..Faults::default()
    };
    let engine = start(
        faults,
        EngineOptions {
            max_running: 1,
            ..EngineOptions::default()
        },
    );
    let recordings = [submit(&engine, lasting(100)), submit(&engine, lasting(100))];
    drop(gate);
    for recording in &recordings {
        recording.wait();
        let failure = recording.failure().unwrap();
        assert!(failure.starts_with("the engine stopped"), "{failure}");
        assert_eq!(recording.ends(), 1);
    }
    assert_eq!(refusal(&engine), SubmitError::Stopped);
    assert!(engine.is_stopped());
    let ended = engine.clone();
    engine.shutdown();
    let stats = ended.stats();
    assert_eq!((stats.running, stats.waiting, stats.blocks_used), (0, 0, 0));
    assert_eq!(stats.failed, 2);
}

#[test]
fn a_lost_device_fails_every_live_request_and_stops_the_engine() {
    let (gate, wait) = mpsc::channel();
    let faults = Faults {
        lost_at: Some(3),
        gate: Some(Mutex::new(wait)),
        ..Faults::default()
    };
    let options = EngineOptions {
        max_running: 1,
        ..EngineOptions::default()
    };
    let engine = start(faults, options);
    let recordings = [submit(&engine, lasting(100)), submit(&engine, lasting(100))];
    drop(gate);
    for recording in &recordings {
        recording.wait();
        let failure = recording.failure().unwrap();
        assert_eq!(failure, "the engine stopped: the device was lost: unplugged");
        assert_eq!(recording.ends(), 1);
    }
    assert_eq!(refusal(&engine), SubmitError::Stopped);
    assert!(engine.is_stopped());
}

#[test]
fn a_device_lost_at_the_admission_of_an_adapter_stops_the_engine() {
    let adapted = Request {
        adapter: Some(adapter(1)),
        ..lasting(100)
    };
    let faults = Faults {
        lost_at_admission: adapted.adapter.as_ref().map(|used| used.adapter.hash()),
        ..Faults::default()
    };
    let engine = start(faults, EngineOptions::default());
    let recording = submit(&engine, adapted);
    recording.wait();
    assert_eq!(
        recording.failure().unwrap(),
        "the engine stopped: the device was lost: unplugged"
    );
    assert_eq!(refusal(&engine), SubmitError::Stopped);
    assert!(engine.is_stopped());
}

#[test]
fn a_failed_step_fails_those_in_it_and_the_rest_goes_on() {
    let faults = Faults {
        error_at: Some(1),
        ..Faults::default()
    };
    let backend = FakeBackend::with_faults(generous(), faults);
    let mut harness = Harness::over(
        backend,
        EngineOptions {
            max_running: 1,
            ..EngineOptions::default()
        },
    );
    let in_it = harness.submit(lasting(5));
    let waiting = harness.submit(lasting(5));
    harness.run();
    assert!(matches!(
        in_it.events()[..],
        [Event::Started { .. }, Event::Token(_), Event::Failed(_)]
    ));
    assert_eq!(waiting.answer().tokens.len(), 5);
    assert_eq!(harness.stats().failed, 1);
}

#[test]
fn a_client_that_breaks_off_is_dropped_at_once_and_receives_no_more_events() {
    let mut harness = Harness::new(EngineOptions::default());
    let (sink, recording) = Recorder::breaking(Some(2));
    harness.try_submit(lasting(100), sink).unwrap();
    harness.turn();
    assert!(!recording.is_dropped());
    harness.turn();
    assert!(recording.is_dropped());
    assert_eq!(recording.events().len(), 3);
    assert_eq!(harness.stats().blocks_used, 0);
    assert_eq!(harness.stats().cancelled, 1);
}

#[test]
fn hanging_up_while_waiting_or_in_prefill_frees_everything_before_the_next_step() {
    let backend = FakeBackend::new(generous());
    let steps = backend.steps();
    let mut harness = Harness::over(
        backend,
        EngineOptions {
            step_tokens: 4,
            max_running: 1,
            max_waiting: 2,
            ..EngineOptions::default()
        },
    );
    let prefilling = harness.submit(Request {
        adapter: Some(adapter(1)),
        ..Request::new(vec![2; 40], 5)
    });
    let waiting = harness.submit(lasting(5));
    harness.turn();
    assert_eq!(harness.stats().blocks_used, 3);
    prefilling.hang_up();
    waiting.hang_up();
    harness.turn();
    let stats = harness.stats();
    assert_eq!(
        (stats.blocks_used, stats.running, stats.waiting, stats.cancelled),
        (0, 0, 0, 2)
    );
    assert_eq!(stats.resident, []);
    assert_eq!(steps.lock().unwrap().len(), 1, "a step was computed for nobody");
}

#[test]
fn cancelled_requests_receive_the_reason_and_hold_nothing_afterwards() {
    let (engine, gate) = gated(EngineOptions {
        max_running: 2,
        ..EngineOptions::default()
    });
    let with = |which| Request {
        adapter: Some(adapter(which)),
        ..lasting(20)
    };
    let submit = |request| {
        let (sink, recording) = Recorder::new();
        (engine.submit(request, sink).unwrap(), recording)
    };
    let ((running, ended), (_, other)) = (submit(with(1)), submit(with(2)));
    // Its adapter has a running request, so it waits behind the other request.
    let (waiting, unstarted) = submit(with(1));
    gate.send(()).unwrap();
    ended.wait_started();
    other.wait_started();
    let requests = HashSet::from([running, waiting, RequestId(99)]);
    let cancelled = engine.cancel(requests, "not wanted".to_owned());
    // The current step is computed to its end.
    gate.send(()).unwrap();
    cancelled.blocking_recv().unwrap();
    let stats = engine.stats();
    assert_eq!((stats.running, stats.waiting, stats.cancelled), (1, 0, 2));
    assert_eq!(stats.blocks_used, 1);
    for recording in [&ended, &unstarted] {
        let last = recording.events().pop();
        assert_eq!(last, Some(Event::Cancelled("not wanted".to_owned())));
        assert_eq!(recording.ends(), 1);
        assert!(recording.is_dropped());
    }
    // The others continue. Cancelling in an idle engine has no effect.
    drop(gate);
    other.wait();
    assert_eq!(other.answer().tokens.len(), 20);
    let again = engine.cancel(HashSet::from([running]), String::new());
    again.blocking_recv().unwrap();
    assert_eq!(engine.stats().resident, []);
}

#[test]
fn limits_are_those_of_options_and_backend_together() {
    let backend = Limits {
        vocab: 24,
        hidden: 5,
        blocks: 3,
        block_tokens: BLOCK_TOKENS,
        block_bytes: 1,
        extent: 1,
        context: 40,
        step_rows: 16,
    };
    let engine = Engine::start_with(
        Box::new(FakeBackend::new(backend)),
        Arc::new(FakeVocabulary),
        EngineOptions {
            step_tokens: 100,
            max_running: 50,
            max_waiting: 0,
            ..EngineOptions::default()
        },
        Arc::default(),
    );
    let limits = engine.limits();
    assert_eq!((limits.vocab, limits.context, limits.cache_tokens), (24, 40, 48));
    assert_eq!(
        (limits.step_tokens, limits.max_running, limits.max_waiting),
        (16, 16, 1)
    );
    assert_eq!(
        (
            limits.room_after(30),
            limits.room_after(40),
            limits.room_after(41)
        ),
        (10, 0, 0)
    );
    engine.shutdown();
}

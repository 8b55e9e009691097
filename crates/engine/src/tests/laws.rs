//! Laws over all requests, arrivals, budgets and cache sizes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use proptest::prelude::*;

use multigraft_model::{Limits, MemoryBudget, Want};

use crate::testing::{
    FakeBackend, Faults, Harness, Recorder, Recording, VOCAB, embedded, generous, hash, matching, scaled,
    specified,
};
use crate::{EngineOptions, Event, Pooling, Request, Sampling, Stop};

fn sampling() -> impl Strategy<Value = Sampling> {
    let filters = (
        prop::option::of(1_usize..VOCAB),
        prop::sample::select(vec![1.0_f32, 0.9, 0.3]),
        prop::sample::select(vec![0.0_f32, 0.1]),
        prop::sample::select(vec![1.0_f32, 0.8]),
    );
    let penalties = (
        prop::sample::select(vec![1.0_f32, 1.3]),
        prop::sample::select(vec![0.0_f32, 0.5]),
        prop::sample::select(vec![0.0_f32, -0.5]),
        prop::collection::vec((0..VOCAB as u32, -3.0_f32..3.0), 0..2),
    );
    (
        prop::sample::select(vec![0.0_f32, 0.5, 1.0, 2.0]),
        filters,
        penalties,
        any::<u64>(),
    )
        .prop_map(|(temperature, filters, penalties, seed)| Sampling {
            temperature,
            top_k: filters.0,
            top_p: filters.1,
            min_p: filters.2,
            typical_p: filters.3,
            repetition_penalty: penalties.0,
            frequency_penalty: penalties.1,
            presence_penalty: penalties.2,
            logit_bias: penalties.3,
            seed: Some(seed),
        })
}

fn stop() -> impl Strategy<Value = Stop> {
    (
        prop::collection::vec("[abä ]{1,3}", 0..3),
        prop::collection::vec(0..VOCAB as u32, 0..2),
        any::<bool>(),
        any::<bool>(),
        prop_oneof![Just(0), 0_usize..12],
    )
        .prop_map(
            |(strings, tokens, ignore_eos, include_stop_string, min_tokens)| Stop {
                strings,
                tokens,
                ignore_eos,
                include_stop_string,
                min_tokens,
            },
        )
}

/// Prompts, half of which have a common prefix.
fn prompt() -> impl Strategy<Value = Vec<u32>> {
    let own = || prop::collection::vec(0..VOCAB as u32, 1..4);
    prop_oneof![
        prop::collection::vec(0..VOCAB as u32, 1..40),
        (0..37_u32, own()).prop_map(|(common, own)| (0..common).map(|id| id % 20).chain(own).collect()),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![5 => generation(), 1 => embedding()]
}

fn embedding() -> impl Strategy<Value = Request> {
    let pooling = prop::sample::select(vec![Pooling::Mean, Pooling::Last]);
    let adapter = prop::option::of((0_u8..3, prop::sample::select(vec![1.0_f32, 0.5, 0.0])));
    (prompt(), adapter, pooling, any::<u64>()).prop_map(|(prompt, adapter, pooling, seed)| {
        let mut request = Request::embedding(prompt, pooling);
        request.adapter = adapter.map(|(which, scale)| scaled(which, scale));
        request.sampling.seed = Some(seed);
        request
    })
}

fn generation() -> impl Strategy<Value = Request> {
    (
        prompt(),
        prop::option::of((0_u8..3, prop::sample::select(vec![1.0_f32, 0.5, 0.0]))),
        sampling(),
        // Half of the outputs run to their full length, so that sequences are preempted.
        prop_oneof![
            stop(),
            Just(Stop {
                ignore_eos: true,
                ..Stop::default()
            })
        ],
        0_usize..40,
        (
            prop::option::of(0_usize..4),
            prop::option::of(0_usize..4),
            any::<bool>(),
        ),
        prop::option::weighted(
            0.3,
            prop::sample::select(vec!["[abc]{2,9}", "(ab|c ?)*\n", "(ä|€){3}[abx]*"]),
        ),
    )
        .prop_map(
            |(
                prompt,
                which,
                sampling,
                stop,
                max_tokens,
                (logprobs, prompt_logprobs, show_special),
                pattern,
            )| {
                let min_tokens = stop.min_tokens.min(max_tokens);
                Request {
                    adapter: which.map(|(which, scale)| scaled(which, scale)),
                    sampling,
                    stop: Stop { min_tokens, ..stop },
                    grammar: pattern.map(matching),
                    logprobs,
                    prompt_logprobs,
                    show_special,
                    ..Request::new(prompt, max_tokens)
                }
            },
        )
}

/// Blocks of the longest of these requests.
const LONGEST: usize = 79_usize.div_ceil(crate::testing::BLOCK_TOKENS);

/// An engine under pressure: few rows, few blocks, few sequences.
fn tight() -> impl Strategy<Value = (Limits, EngineOptions)> {
    (LONGEST..3 * LONGEST, 1_usize..40, 1_usize..8).prop_map(|(blocks, step_tokens, max_running)| {
        let limits = Limits {
            blocks,
            step_rows: step_tokens,
            ..generous()
        };
        (
            limits,
            EngineOptions {
                step_tokens,
                max_running,
                ..EngineOptions::default()
            },
        )
    })
}

/// A request, the turn it arrives in, and the turn in which its client hangs up.
type Arrival = (Request, usize, Option<usize>);

fn arrivals(cancel: impl Strategy<Value = Option<usize>>) -> impl Strategy<Value = Vec<Arrival>> {
    prop::collection::vec((request(), 0_usize..20, cancel), 1..10).prop_map(|mut arrivals| {
        arrivals.sort_by_key(|arrival| arrival.1);
        arrivals
    })
}

/// Serves all requests, and checks the invariants after every turn.
fn serve(harness: &mut Harness, arrivals: &[Arrival]) -> Result<Vec<Recording>, TestCaseError> {
    let mut recordings: Vec<Recording> = Vec::new();
    let mut turn = 0;
    loop {
        for (request, ..) in arrivals
            .iter()
            .skip(recordings.len())
            .take_while(|arrival| arrival.1 <= turn)
        {
            recordings.push(harness.submit(request.clone()));
        }
        let gone: Vec<bool> = (0..recordings.len())
            .map(|i| arrivals[i].2.is_some_and(|at| at <= turn))
            .collect();
        for (recording, _) in recordings.iter().zip(&gone).filter(|(_, gone)| **gone) {
            recording.hang_up();
        }
        let busy = harness.turn();
        for (recording, _) in recordings.iter().zip(&gone).filter(|(_, gone)| **gone) {
            prop_assert!(recording.is_dropped(), "a client that hung up is still served");
        }
        let live = recordings
            .iter()
            .zip(arrivals)
            .zip(&gone)
            .filter(|(_, gone)| !**gone);
        let mut waits = BTreeSet::new();
        for ((recording, (request, ..)), _) in live {
            let share = (
                request.adapter.as_ref().map(|adapter| adapter.hash()),
                request.tenant,
            );
            let started = !recording.events().is_empty();
            prop_assert!(
                !(started && waits.contains(&share)),
                "somebody overtook another of the same share"
            );
            if !started {
                waits.insert(share);
            }
        }
        if !busy && recordings.len() == arrivals.len() {
            return Ok(recordings);
        }
        turn += 1;
    }
}

fn nothing_is_left(harness: &Harness) -> Result<(), TestCaseError> {
    let stats = harness.stats();
    prop_assert_eq!(
        (stats.blocks_used, stats.running, stats.waiting, stats.preempted),
        (0, 0, 0, 0)
    );
    prop_assert_eq!(stats.resident, []);
    Ok(())
}

proptest! {
    #[test]
    fn mixed_equals_alone((limits, options) in tight(), arrivals in arrivals(Just(None))) {
        let mut harness = Harness::over(FakeBackend::new(limits), options);
        let recordings = serve(&mut harness, &arrivals)?;
        for (recording, (request, ..)) in recordings.iter().zip(arrivals) {
            prop_assert_eq!(recording.answer(), Harness::alone(request).answer());
        }
        nothing_is_left(&harness)?;
    }

    #[test]
    fn adapters_that_take_memory_change_no_answer(
        (limits, options) in tight(),
        extent in 1_usize..5,
        adapters in prop::collection::vec(0_usize..20, 1..8),
        arrivals in arrivals(Just(None)),
    ) {
        // The floor holds the longest request.
        let floor = LONGEST.next_multiple_of(extent);
        let budget = Arc::new(MemoryBudget::new(floor + 12, floor));
        let limits = Limits { blocks: limits.blocks.max(floor), extent, ..limits };
        let mut harness = Harness::within(FakeBackend::new(limits), options, Arc::clone(&budget));
        budget.on_kv_wanted(|| true);
        let recordings: Vec<Recording> =
            arrivals.iter().map(|(request, ..)| harness.submit(request.clone())).collect();
        let mut sizes = adapters.iter().cycle();
        loop {
            // Adapters take memory one after the other, each for one turn.
            budget.set_adapters(0);
            budget.want_no_more();
            if let Err(bytes) = budget.take_for_adapters(0, *sizes.next().unwrap()) {
                budget.ask_kv(Want { bytes, unused_since: None }, Instant::now());
                harness.make_room();
            }
            if !harness.turn() {
                break;
            }
            let (kv, adapters) = budget.taken();
            prop_assert!(kv + adapters <= budget.total());
        }
        for (recording, (request, ..)) in recordings.iter().zip(arrivals) {
            prop_assert_eq!(recording.answer(), Harness::alone(request).answer());
        }
        nothing_is_left(&harness)?;
    }

    #[test]
    fn answers_are_as_specified(request in request()) {
        let answer = Harness::alone(request.clone()).answer();
        let (ids, text, reason) = specified(&request);
        prop_assert_eq!(answer.ids(), ids);
        prop_assert_eq!(answer.text(), text);
        prop_assert_eq!(answer.reason(), &reason);
        prop_assert_eq!(answer.finish.completion_tokens, answer.tokens.len());
        prop_assert_eq!(answer.finish.prompt_tokens, request.prompt.len());
        prop_assert_eq!(Some(answer.finish.seed), request.sampling.seed);
        prop_assert_eq!(answer.prompt.is_some(), request.prompt_logprobs.is_some());
        prop_assert_eq!(answer.embedding, embedded(&request));
    }

    #[test]
    fn chunk_size_does_not_matter(request in request(), step_tokens in 1_usize..80) {
        let mut harness = Harness::new(EngineOptions { step_tokens, ..EngineOptions::default() });
        let recording = harness.submit(request.clone());
        harness.run();
        prop_assert_eq!(recording.answer(), Harness::alone(request).answer());
    }

    #[test]
    fn a_client_that_hangs_up_is_gone_after_one_turn_and_no_other_notices(
        (limits, options) in tight(),
        arrivals in arrivals(prop::option::of(0_usize..60)),
    ) {
        let mut harness = Harness::over(FakeBackend::new(limits), options);
        let recordings = serve(&mut harness, &arrivals)?;
        let mut ends = 0;
        for (recording, (request, _, cancelled)) in recordings.iter().zip(arrivals) {
            ends += recording.ends() as u64;
            if cancelled.is_none() {
                prop_assert_eq!(recording.answer(), Harness::alone(request).answer());
            }
        }
        nothing_is_left(&harness)?;
        let stats = harness.stats();
        prop_assert_eq!(stats.finished, ends);
        prop_assert_eq!(stats.finished + stats.cancelled, recordings.len() as u64);
    }

    #[test]
    fn every_request_ends_once_whatever_fails(
        (limits, options) in tight(),
        requests in prop::collection::vec((request(), prop::option::weighted(0.1, 0_usize..5)), 1..10),
        error_at in prop::option::of(0_usize..40),
        panic_at in prop::option::of(0_usize..60),
        broken in prop::option::of(0_u8..3),
        refused in prop::option::of(0_u8..3),
    ) {
        let faults = Faults {
            error_at,
            panic_at,
            broken: broken.map(hash),
            refused: refused.map(hash),
            ..Faults::default()
        };
        let harness = Harness::over(FakeBackend::with_faults(limits, faults), options);
        let mut recordings = Vec::new();
        for (request, break_after) in requests {
            let (sink, recording) = Recorder::breaking(break_after);
            harness.try_submit(request, sink).unwrap();
            recordings.push((recording, break_after));
        }
        harness.worker.run();
        for (recording, break_after) in recordings {
            prop_assert!(recording.is_dropped());
            match break_after {
                Some(after) => prop_assert!(recording.events().len() <= after + 1),
                None => prop_assert_eq!(recording.ends(), 1),
            }
            let ended_early = |event: &Event| matches!(event, Event::Finished(_) | Event::Failed(_));
            prop_assert!(recording.events().iter().rev().skip(1).all(|event| !ended_early(event)));
        }
    }
}

//! An engine without a thread, driven turn by turn.

use std::sync::Arc;
use std::sync::mpsc::{self, Sender};

use multigraft_model::{AdapterHash, Backend, Limits, MemoryBudget, ReadyAdapter};

use super::{BLOCK_TOKENS, FakeBackend, FakeVocabulary, Recorder, Recording, VOCAB};
use crate::clock::manual::ManualClock;
use crate::error::SubmitError;
use crate::event::RequestId;
use crate::limits::EngineOptions;
use crate::request::{AdapterUse, Request, Sampling, Stop};
use crate::shared::Shared;
use crate::stats::Stats;
use crate::submission::Command;
use crate::worker::Worker;

/// The width of hidden states.
pub(crate) const HIDDEN: usize = 5;

/// Limits that no test's request reaches.
pub(crate) fn generous() -> Limits {
    Limits {
        vocab: VOCAB,
        hidden: HIDDEN,
        blocks: 64,
        block_tokens: BLOCK_TOKENS,
        block_bytes: 1,
        extent: 1,
        context: 1024,
        step_rows: 1024,
    }
}

pub(crate) fn hash(n: u8) -> AdapterHash {
    AdapterHash([n; 32])
}

pub(crate) fn adapter(n: u8) -> AdapterUse {
    Arc::new(ReadyAdapter::new(hash(n), 0, Arc::new(()))).into()
}

/// The same adapter at a scale.
pub(crate) fn scaled(n: u8, scale: f32) -> AdapterUse {
    AdapterUse { scale, ..adapter(n) }
}

/// An activated adapter with these invocation tokens.
pub(crate) fn invoked(n: u8, invocation: &[u32]) -> AdapterUse {
    Arc::new(ReadyAdapter::new(hash(n), 0, Arc::new(())).invoked_by(invocation)).into()
}

/// A request whose answer is deterministic and has exactly `output` tokens.
pub(crate) fn exactly(prompt: Vec<u32>, output: usize) -> Request {
    Request {
        sampling: Sampling {
            seed: Some(0),
            ..Sampling::greedy()
        },
        stop: Stop {
            ignore_eos: true,
            ..Stop::default()
        },
        ..Request::new(prompt, output)
    }
}

/// More turns than any test takes.
const MOST_TURNS: usize = 20_000;

pub(crate) struct Harness {
    pub(crate) worker: Worker,
    /// The engine's clock, which only the test moves.
    pub(crate) clock: ManualClock,
    turns: usize,
    shared: Arc<Shared>,
    inbox: Sender<Command>,
}

impl Harness {
    pub(crate) fn new(options: EngineOptions) -> Self {
        Self::over(FakeBackend::new(generous()), options)
    }

    pub(crate) fn over(backend: FakeBackend, options: EngineOptions) -> Self {
        Self::within(backend, options, Arc::default())
    }

    pub(crate) fn within(backend: FakeBackend, options: EngineOptions, budget: Arc<MemoryBudget>) -> Self {
        Self::at(ManualClock::new(), backend, options, budget)
    }

    /// An engine with the clock `clock`.
    pub(crate) fn at(
        clock: ManualClock,
        backend: FakeBackend,
        options: EngineOptions,
        budget: Arc<MemoryBudget>,
    ) -> Self {
        let shared = Arc::new(Shared::new(options.limits(&backend.limits()), clock.clock()));
        let (inbox, commands) = mpsc::channel();
        // A draining engine never sleeps: a turn without work returns `false` instead.
        inbox.send(Command::Drain).unwrap();
        let worker = Worker::new(
            Box::new(backend),
            Arc::new(FakeVocabulary),
            Arc::clone(&shared),
            commands,
            budget,
        );
        Self {
            worker,
            clock,
            turns: 0,
            shared,
            inbox,
        }
    }

    pub(crate) fn try_submit(&self, request: Request, sink: Box<Recorder>) -> Result<RequestId, SubmitError> {
        self.send(request, sink, false)
    }

    fn send(
        &self,
        request: Request,
        sink: Box<Recorder>,
        background: bool,
    ) -> Result<RequestId, SubmitError> {
        let submission = self.shared.accept(request, sink, background)?;
        let id = submission.id;
        assert!(self.inbox.send(Command::Submit(Box::new(submission))).is_ok());
        Ok(id)
    }

    pub(crate) fn submit(&self, request: Request) -> Recording {
        let (sink, recording) = Recorder::new();
        self.try_submit(request, sink).unwrap();
        recording
    }

    pub(crate) fn submit_background(&self, request: Request) -> Recording {
        let (sink, recording) = Recorder::new();
        self.send(request, sink, true).unwrap();
        recording
    }

    /// Asks for idle KV memory, which is given back at the next turn.
    pub(crate) fn make_room(&self) {
        assert!(self.inbox.send(Command::MakeRoom).is_ok());
    }

    /// Aborts the engine at the next turn.
    pub(crate) fn abort(&self) {
        assert!(self.inbox.send(Command::Abort).is_ok());
    }

    /// Runs one turn; `false` when no request is left.
    pub(crate) fn turn(&mut self) -> bool {
        self.turns += 1;
        assert!(self.turns < MOST_TURNS, "it does not end");
        self.worker.turn()
    }

    /// Runs turns until no request is left.
    pub(crate) fn run(&mut self) {
        while self.turn() {}
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats {
            waiting: self.shared.waiting.occupied(),
            ..self.shared.stats().clone()
        }
    }

    /// The answer to one request in an otherwise idle engine.
    pub(crate) fn alone(request: Request) -> Recording {
        let mut harness = Self::new(EngineOptions {
            step_tokens: 1024,
            ..EngineOptions::default()
        });
        let recording = harness.submit(request);
        harness.run();
        recording
    }
}

//! State that the handles of an engine share with its worker.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::client::Client;
use crate::clock::Clock;
use crate::error::SubmitError;
use crate::event::{RequestId, Sink};
use crate::limits::EngineLimits;
use crate::request::Request;
use crate::stats::{CurrentStep, Stats};
use crate::submission::Submission;
use crate::waiting::WaitingRoom;

/// State that handles and worker share. The worker writes `stats` once per step. No lock is held
/// across a step.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) limits: EngineLimits,
    /// Bounds the accepted requests that have not started.
    pub(crate) waiting: Arc<WaitingRoom>,
    /// Set once no more requests are accepted; never cleared.
    pub(crate) closed: AtomicBool,
    clock: Clock,
    stats: Mutex<Stats>,
    current_step: Mutex<Option<CurrentStep>>,
    next_id: AtomicU64,
    /// Source of seeds for requests without one; the standard library keys it at random.
    seeds: RandomState,
}

impl Shared {
    pub(crate) fn new(limits: EngineLimits, clock: Clock) -> Self {
        Self {
            waiting: Arc::new(WaitingRoom::new(limits.max_waiting, clock.clone())),
            closed: AtomicBool::new(false),
            clock,
            stats: Mutex::default(),
            current_step: Mutex::default(),
            next_id: AtomicU64::new(0),
            seeds: RandomState::new(),
            limits,
        }
    }

    /// The latest statistics. A panic leaves them consistent, so a poisoned lock is not an error.
    pub(crate) fn stats(&self) -> MutexGuard<'_, Stats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The step that is being computed. A poisoned lock is not an error here either.
    pub(crate) fn current_step(&self) -> MutexGuard<'_, Option<CurrentStep>> {
        self.current_step.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The clock of the engine.
    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Checks a request, and gives it a permit to wait, an id and a seed.
    pub(crate) fn accept(
        &self,
        request: Request,
        sink: Box<dyn Sink>,
        background: bool,
    ) -> Result<Submission, SubmitError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(SubmitError::Stopped);
        }
        request.check(&self.limits)?;
        let share = request.share(background);
        let permit = WaitingRoom::acquire(&self.waiting, share)?;
        let id = RequestId(self.next_id.fetch_add(1, Ordering::Relaxed));
        let seed = request.sampling.seed.unwrap_or_else(|| self.seeds.hash_one(id));
        Ok(Submission {
            id,
            request,
            share,
            seed,
            client: Client::new(sink),
            permit,
            submitted: self.clock.now(),
        })
    }
}

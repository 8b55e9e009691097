//! What the handles of an engine and its worker both see.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::client::Client;
use crate::clock::Clock;
use crate::error::SubmitError;
use crate::event::{RequestId, Sink};
use crate::limits::EngineLimits;
use crate::request::Request;
use crate::stats::{Stats, UnderWay};
use crate::submission::Submission;
use crate::waiting::WaitingRoom;

/// What the handles and the worker both see. The worker writes `stats` once per step; nothing here
/// is ever locked across a step.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) limits: EngineLimits,
    /// Requests that were accepted and not yet started.
    pub(crate) waiting: Arc<WaitingRoom>,
    /// Set when no more requests are accepted; never cleared.
    pub(crate) closed: AtomicBool,
    clock: Clock,
    stats: Mutex<Stats>,
    under_way: Mutex<Option<UnderWay>>,
    next_id: AtomicU64,
    /// Where the seeds of requests without one come from; keyed at random by the standard library.
    seeds: RandomState,
}

impl Shared {
    pub(crate) fn new(limits: EngineLimits, clock: Clock) -> Self {
        Self {
            waiting: Arc::new(WaitingRoom::new(limits.max_waiting, clock.clone())),
            closed: AtomicBool::new(false),
            clock,
            stats: Mutex::default(),
            under_way: Mutex::default(),
            next_id: AtomicU64::new(0),
            seeds: RandomState::new(),
            limits,
        }
    }

    /// The latest figures. A panic elsewhere leaves them as they were, so a poisoned lock is no
    /// reason to fail.
    pub(crate) fn stats(&self) -> MutexGuard<'_, Stats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The step under way; likewise.
    pub(crate) fn under_way(&self) -> MutexGuard<'_, Option<UnderWay>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The clock that the engine goes by.
    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Checks a request and gives it a permit to wait.
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

//! The handle that the rest of the program holds.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use multigraft_model::{AdapterHash, Backend, MemoryBudget};
use multigraft_text::Tokenizer;
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::error::SubmitError;
use crate::event::{RequestId, Sink};
use crate::limits::{EngineLimits, EngineOptions};
use crate::request::Request;
use crate::shared::Shared;
use crate::stats::{Stats, UnderWay};
use crate::submission::{Command, Submission};
use crate::vocabulary::Vocabulary;
use crate::worker::Worker;

/// A running engine. Clones are handles to the same one; it drains and ends when the last of them
/// is dropped.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
    inbox: Arc<Sender<Command>>,
    /// Taken by the first who shuts the engine down.
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Engine {
    /// Starts an engine on its own thread. If the system has no thread to give, every submission
    /// answers [`SubmitError::Stopped`].
    pub fn start(backend: Box<dyn Backend>, tokenizer: Arc<Tokenizer>, options: EngineOptions) -> Self {
        Self::start_with(backend, Arc::new(tokenizer), options, Arc::default())
    }

    /// The same with keys and values that take memory from a budget, whose floor holds a sequence
    /// as long as the context.
    pub fn start_within(
        backend: Box<dyn Backend>,
        tokenizer: Arc<Tokenizer>,
        options: EngineOptions,
        budget: Arc<MemoryBudget>,
    ) -> Self {
        Self::start_with(backend, Arc::new(tokenizer), options, budget)
    }

    pub(crate) fn start_with(
        backend: Box<dyn Backend>,
        vocabulary: Arc<dyn Vocabulary>,
        options: EngineOptions,
        budget: Arc<MemoryBudget>,
    ) -> Self {
        let shared = Arc::new(Shared::new(options.limits(&backend.limits()), Clock::default()));
        let (inbox, commands) = mpsc::channel();
        let inbox = Arc::new(inbox);
        // The budget must not keep an engine going whose handles are gone.
        let wake = Arc::downgrade(&inbox);
        budget.on_kv_wanted(move || {
            let sent = wake.upgrade().map(|inbox| inbox.send(Command::MakeRoom));
            sent.is_some_and(|sent| sent.is_ok())
        });
        let for_worker = Arc::clone(&shared);
        let spawned = thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || Worker::new(backend, vocabulary, for_worker, commands, budget).run());
        let thread = match spawned {
            Ok(thread) => Some(thread),
            Err(error) => {
                tracing::error!(%error, "the engine's thread could not be started");
                shared.closed.store(true, Ordering::Release);
                None
            }
        };
        Self {
            shared,
            inbox,
            thread: Arc::new(Mutex::new(thread)),
        }
    }

    /// Accepts a request; what becomes of it arrives at `sink`.
    ///
    /// # Errors
    /// If the request could never be served ([`Request::check`]), too many wait already, or the
    /// engine has stopped.
    pub fn submit(&self, request: Request, sink: Box<dyn Sink>) -> Result<RequestId, SubmitError> {
        self.send(self.shared.accept(request, sink, false)?)
    }

    /// The same for a request that nobody waits for: it is computed in steps in which no other
    /// request wants anything, and gives way to those in between.
    ///
    /// # Errors
    /// As of [`submit`](Self::submit).
    pub fn submit_background(&self, request: Request, sink: Box<dyn Sink>) -> Result<RequestId, SubmitError> {
        self.send(self.shared.accept(request, sink, true)?)
    }

    fn send(&self, submission: Submission) -> Result<RequestId, SubmitError> {
        let id = submission.id;
        self.inbox
            .send(Command::Submit(Box::new(submission)))
            .map_err(|unsent| {
                if let Command::Submit(submission) = unsent.0 {
                    submission.client.forget();
                }
                SubmitError::Stopped
            })?;
        Ok(id)
    }

    /// Ends requests with [`Event::Cancelled`](crate::Event::Cancelled) and `reason`, wherever they
    /// are; those that have ended already do not matter. What comes back resolves once they are
    /// ended and hold neither blocks nor adapters, which is before anything more is computed; an
    /// error says that the engine has stopped, and with it all requests.
    pub fn cancel(&self, requests: HashSet<RequestId>, reason: String) -> oneshot::Receiver<()> {
        let (done, ended) = oneshot::channel();
        let _ = self.inbox.send(Command::Cancel {
            requests,
            reason,
            done,
        });
        ended
    }

    /// What it can take on.
    pub fn limits(&self) -> EngineLimits {
        self.shared.limits
    }

    /// Its figures after the last step.
    pub fn stats(&self) -> Stats {
        Stats {
            waiting: self.shared.waiting.occupied(),
            ..self.shared.stats().clone()
        }
    }

    /// The step that it computes just now, if it computes one: who looks again and finds the same
    /// begin looks at the same step.
    pub fn under_way(&self) -> Option<UnderWay> {
        *self.shared.under_way()
    }

    /// Adapters of requests that wait to be started.
    pub fn waiting_adapters(&self) -> Vec<AdapterHash> {
        self.shared.waiting.adapters()
    }

    /// Whether it accepts requests no more: it was shut down or aborted, or a fault ended it.
    pub fn is_stopped(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }

    /// Refuses new requests, serves those that were accepted to their end, and returns when the
    /// last is done. Must not be called from a [`Sink`], whose thread it waits for.
    pub fn shutdown(self) {
        self.end(Command::Drain);
    }

    /// Refuses new requests, fails those that were accepted, and returns once the step under way is
    /// done. Ends a [`shutdown`](Self::shutdown) by another handle that takes too long. Must not be
    /// called from a [`Sink`].
    pub fn abort(self) {
        self.end(Command::Abort);
    }

    fn end(self, command: Command) {
        self.shared.closed.store(true, Ordering::Release);
        // An error says that the worker has ended already.
        let _ = self.inbox.send(command);
        // The lock is held while waiting, so that everyone who ends the engine returns when it has
        // ended.
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the engine's thread ended in a panic");
        }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("limits", &self.shared.limits)
            .finish_non_exhaustive()
    }
}

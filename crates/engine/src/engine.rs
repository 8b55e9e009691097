//! The handle of a running engine.

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
use crate::stats::{CurrentStep, Stats};
use crate::submission::{Command, Submission};
use crate::vocabulary::Vocabulary;
use crate::worker::Worker;

/// A running engine. Clones are handles to the same engine, which drains and ends when the last of
/// them is dropped.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
    inbox: Arc<Sender<Command>>,
    /// Joined by the first handle that ends the engine.
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Engine {
    /// Starts an engine on its own thread. If the thread cannot be started, every submission
    /// returns [`SubmitError::Stopped`].
    pub fn start(backend: Box<dyn Backend>, tokenizer: Arc<Tokenizer>, options: EngineOptions) -> Self {
        Self::start_with(backend, Arc::new(tokenizer), options, Arc::default())
    }

    /// Starts an engine whose KV cache takes memory from a budget. The budget's floor must hold a
    /// sequence as long as the context.
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
        // Weak: the budget must not keep an engine running whose handles are dropped.
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

    /// Submits a request, whose events arrive at `sink`.
    ///
    /// # Errors
    /// If the request can never be served ([`Request::check`]), the queue is full, or the engine
    /// has stopped.
    pub fn submit(&self, request: Request, sink: Box<dyn Sink>) -> Result<RequestId, SubmitError> {
        self.send(self.shared.accept(request, sink, false)?)
    }

    /// Submits a background request: it is computed only in steps without other requests, and is
    /// preempted by these.
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

    /// Cancels requests, waiting or running, with [`Event::Cancelled`](crate::Event::Cancelled) and
    /// `reason`. Requests that have ended are ignored. The returned receiver resolves before the
    /// next step, when the requests have ended and hold neither blocks nor adapters. It returns an
    /// error if the engine has stopped, and with it all requests.
    pub fn cancel(&self, requests: HashSet<RequestId>, reason: String) -> oneshot::Receiver<()> {
        let (done, ended) = oneshot::channel();
        let _ = self.inbox.send(Command::Cancel {
            requests,
            reason,
            done,
        });
        ended
    }

    /// What the engine can take on.
    pub fn limits(&self) -> EngineLimits {
        self.shared.limits
    }

    /// The engine's statistics after its last step.
    pub fn stats(&self) -> Stats {
        Stats {
            waiting: self.shared.waiting.occupied(),
            ..self.shared.stats().clone()
        }
    }

    /// The step that the engine is computing, or `None` between steps. Two calls that return the
    /// same [`CurrentStep::began`] describe the same step.
    pub fn current_step(&self) -> Option<CurrentStep> {
        *self.shared.current_step()
    }

    /// Adapters of requests that have not started yet.
    pub fn waiting_adapters(&self) -> Vec<AdapterHash> {
        self.shared.waiting.adapters()
    }

    /// Whether the engine accepts no more requests: it was shut down or aborted, or it failed.
    pub fn is_stopped(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }

    /// Refuses new requests, completes accepted ones, and returns when the last is done. Must not
    /// be called from a [`Sink`], which runs on the thread that this waits for.
    pub fn shutdown(self) {
        self.end(Command::Drain);
    }

    /// Refuses new requests, fails accepted ones, and returns when the current step is done. Also
    /// ends a [`shutdown`](Self::shutdown) that another handle waits for. Must not be called from a
    /// [`Sink`].
    pub fn abort(self) {
        self.end(Command::Abort);
    }

    fn end(self, command: Command) {
        self.shared.closed.store(true, Ordering::Release);
        // Sending fails if the worker has ended already.
        let _ = self.inbox.send(command);
        // The lock is held while joining, so that every caller returns only when the engine has
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

//! Outputs that follow a grammar. Threads of their own compute the allowed next tokens while a step
//! computes the logits. The engine's thread waits only if the allowed tokens are not ready when the
//! logits are.

use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use multigraft_grammar::{Grammar, GrammarError, TokenSet};

/// The most threads. One computes about ten thousand token sets per second.
const THREADS: usize = 4;

/// The threads that compute allowed tokens. They end when the last handle and the last constraint
/// are dropped.
#[derive(Clone, Debug)]
pub(crate) struct Workers(Sender<Job>);

#[derive(Debug)]
struct Job {
    grammar: Grammar,
    /// The token that was generated last; `None` at the beginning of the output.
    token: Option<u32>,
    done: SyncSender<Box<Worked>>,
}

/// A grammar after the tokens so far, and the allowed next tokens.
#[derive(Debug)]
struct Worked {
    grammar: Grammar,
    allowed: Result<Option<TokenSet>, GrammarError>,
}

impl Job {
    fn work(mut self) {
        let accepted = match self.token {
            Some(token) => self.grammar.accept(token),
            None => Ok(()),
        };
        let allowed = accepted.and_then(|()| self.grammar.allowed());
        let grammar = self.grammar;
        // The request may have ended in the meantime.
        let _ = self.done.send(Box::new(Worked { grammar, allowed }));
    }
}

impl Workers {
    /// Starts the threads. If none can be started, constraints compute on the engine's thread.
    pub(crate) fn start() -> Self {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let inbox = Arc::new(Mutex::new(inbox));
        let cores = thread::available_parallelism().map_or(1, usize::from);
        for index in 0..(cores / 4).clamp(1, THREADS) {
            let inbox = Arc::clone(&inbox);
            let builder = thread::Builder::new().name(format!("grammar-{index}"));
            let spawned = builder.spawn(move || {
                loop {
                    let job = inbox.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(job) = job else { return };
                    job.work();
                }
            });
            if let Err(error) = spawned {
                tracing::warn!(%error, "a thread for grammars could not be started");
            }
        }
        Self(jobs)
    }

    fn order(&self, grammar: Grammar, token: Option<u32>) -> Receiver<Box<Worked>> {
        let (done, worked) = mpsc::sync_channel(1);
        let job = Job { grammar, token, done };
        if let Err(unsent) = self.0.send(job) {
            unsent.0.work();
        }
        worked
    }
}

/// One output's grammar.
#[derive(Debug)]
pub(crate) struct Constraint {
    workers: Workers,
    state: State,
}

#[derive(Debug)]
enum State {
    Ordered(Receiver<Box<Worked>>),
    Known(Box<Worked>),
    /// Its thread is gone.
    Lost,
}

impl Constraint {
    /// Of an output that has no tokens yet.
    pub(crate) fn new(grammar: Grammar, workers: &Workers) -> Self {
        Self {
            state: State::Ordered(workers.order(grammar, None)),
            workers: workers.clone(),
        }
    }

    /// The tokens that may come next; `None` if nothing may.
    pub(crate) fn allowed(&mut self) -> Result<Option<&TokenSet>, GrammarError> {
        if let State::Ordered(worked) = &self.state {
            self.state = worked.recv().map_or(State::Lost, State::Known);
        }
        match &self.state {
            State::Known(worked) => worked.allowed.as_ref().map(Option::as_ref).map_err(Clone::clone),
            State::Ordered(_) | State::Lost => {
                let reason = "the thread that worked on it ended";
                Err(GrammarError::Unsupported(reason.to_owned()))
            }
        }
    }

    /// Takes note of the token that came.
    pub(crate) fn follow(&mut self, token: u32) {
        if let State::Known(worked) = std::mem::replace(&mut self.state, State::Lost) {
            self.state = State::Ordered(self.workers.order(worked.grammar, Some(token)));
        }
    }
}

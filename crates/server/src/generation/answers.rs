//! The channel from the engine's thread to a response: the tokens of an accepted request.
//!
//! A request with several choices is several requests to the engine, which share one channel.
//! Dropping [`Answers`] (the client disconnected, a handler failed) closes the channel; the engine
//! notices that in its next step and frees the KV blocks.

use std::{mem, ops::ControlFlow, sync::Arc};

use multigraft_engine::{Event, Finish, PromptToken, Sink, Token};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::timeout_at,
};

use super::usage::RequestUsage;
use crate::{
    http::{deadline::Deadline, error::ApiError},
    observe::{metrics::Watch, telemetry::Follower},
    state::{
        in_flight::Registration,
        meters::{Metered, Now},
    },
};

/// The engine's end: one choice of one request.
#[derive(Debug)]
pub(crate) struct ChannelSink {
    choice: usize,
    watch: Watch,
    follower: Follower,
    /// The token meter, if there is one: tokens count when they are generated, whether or not they
    /// are read.
    metered: Option<Arc<Metered>>,
    /// The usage record of the request, if usage is recorded.
    usage: Option<Arc<RequestUsage>>,
    // Unbounded, because a sequence ends: the channel holds at most `max_tokens` events per choice.
    events: UnboundedSender<(usize, Event)>,
}

impl Sink for ChannelSink {
    fn emit(&mut self, event: Event) -> ControlFlow<()> {
        self.watch.event(&event);
        self.follower.event(&event);
        if let Some(usage) = &self.usage {
            usage.event(&event);
        }
        match (&self.metered, &event) {
            (Some(metered), Event::Token(_)) => metered.token(Now::get()),
            // Counted before the client sees the end, because it may send its next request at once.
            (_, Event::Finished(_) | Event::Failed(_) | Event::Refused(_) | Event::Cancelled(_)) => {
                self.metered = None;
                self.usage = None;
            }
            _ => {}
        }
        match self.events.send((self.choice, event)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }

    fn is_gone(&self) -> bool {
        self.events.is_closed()
    }
}

/// The handler's end of the channel: the events of all choices.
#[derive(Debug)]
pub(crate) struct Answers {
    events: UnboundedReceiver<(usize, Event)>,
    /// Choices that have not ended.
    open: usize,
    /// The request's deadline, if it has one.
    deadline: Option<Deadline>,
    /// Keeps the request registered until the answers are dropped.
    _registration: Option<Registration>,
}

/// One choice, complete.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The prompt's tokens with their log-probabilities, if the request wants them.
    pub prompt: Vec<PromptToken>,
    /// The prompt's embedding, if the request wants it.
    pub embedding: Vec<f32>,
    /// The generated tokens.
    pub tokens: Vec<Token>,
    /// Their text.
    pub text: String,
    /// Why and how the choice ended.
    pub finish: Finish,
}

impl Answer {
    /// The mean log-probability of the tokens, by which `best_of` chooses. The request must have
    /// asked for log-probabilities.
    pub(crate) fn mean_logprob(&self) -> f64 {
        let logprobs = self.tokens.iter().filter_map(|token| token.logprob);
        let sum: f64 = logprobs.map(f64::from).sum();
        sum / self.tokens.len().max(1) as f64
    }
}

/// One choice that is being generated.
#[derive(Debug, Default)]
struct Unfinished {
    prompt: Vec<PromptToken>,
    embedding: Vec<f32>,
    tokens: Vec<Token>,
    text: String,
}

impl Unfinished {
    fn finish(mut self, finish: Finish) -> Answer {
        self.text.push_str(&finish.text);
        Answer {
            prompt: self.prompt,
            embedding: self.embedding,
            tokens: self.tokens,
            text: self.text,
            finish,
        }
    }
}

/// The two ends of a channel for these choices, which metrics watch and traces follow. The sinks
/// hold `metered` and `usage` until the engine has finished all choices.
pub(crate) fn channel(
    watches: Vec<(Watch, Follower)>,
    metered: Option<&Arc<Metered>>,
    usage: Option<&Arc<RequestUsage>>,
) -> (Vec<ChannelSink>, Answers) {
    let (sender, events) = unbounded_channel();
    let choices = watches.len();
    let sinks = watches
        .into_iter()
        .enumerate()
        .map(|(choice, (watch, follower))| ChannelSink {
            choice,
            watch,
            follower,
            metered: metered.map(Arc::clone),
            usage: usage.map(Arc::clone),
            events: sender.clone(),
        })
        .collect();
    (
        sinks,
        Answers {
            events,
            open: choices,
            deadline: None,
            _registration: None,
        },
    )
}

impl Answers {
    /// Keeps `registration` as long as the answers are waited for, so that the removal of an
    /// adapter finds the request.
    pub(crate) fn under(self, registration: Option<Registration>) -> Self {
        Self {
            _registration: registration,
            ..self
        }
    }

    /// Sets the deadline of the request.
    pub(crate) fn until(self, deadline: Option<Deadline>) -> Self {
        Self { deadline, ..self }
    }

    /// The next event and the choice it belongs to, none of [`Event::Failed`], [`Event::Refused`]
    /// and [`Event::Cancelled`]; `None` after every choice has finished, or after an error.
    ///
    /// # Errors
    /// A choice failed, was refused or cancelled, or the request's deadline has passed. That ends
    /// all choices.
    pub(crate) async fn next(&mut self) -> Option<Result<(usize, Event), ApiError>> {
        if self.open == 0 {
            return None;
        }
        let event = self.events.recv();
        let received = match self.deadline {
            None => Ok(event.await),
            Some(deadline) => timeout_at(deadline.at, event)
                .await
                .map_err(|_| deadline.passed()),
        };
        let next = match received {
            Ok(Some((_, Event::Failed(message)))) => Err(ApiError::Failed(message)),
            Ok(Some((_, Event::Refused(message)))) => Err(ApiError::malformed(message)),
            Ok(Some((_, Event::Cancelled(message)))) => Err(ApiError::Gone(message)),
            Ok(Some(next)) => Ok(next),
            Ok(None) => {
                let message = "the engine stopped before the answer was complete";
                Err(ApiError::Failed(message.to_owned()))
            }
            Err(passed) => Err(passed),
        };
        match &next {
            Ok((_, Event::Finished(_))) => self.open -= 1,
            Ok(_) => {}
            Err(_) => {
                self.open = 0;
                // Closing the receiver cancels the choices, even if `self` is kept.
                self.events.close();
            }
        }
        Some(next)
    }

    /// Waits for all choices, in their order.
    pub(crate) async fn collect(mut self) -> Result<Vec<Answer>, ApiError> {
        let mut unfinished: Vec<Unfinished> = (0..self.open).map(|_| Unfinished::default()).collect();
        let mut answers: Vec<Option<Answer>> = unfinished.iter().map(|_| None).collect();
        while let Some(next) = self.next().await {
            let (choice, event) = next?;
            let so_far = &mut unfinished[choice];
            match event {
                Event::Started { .. } => {}
                Event::Prompt(tokens) => so_far.prompt.extend(tokens),
                Event::Embedding(embedding) => so_far.embedding = embedding,
                Event::Token(token) => {
                    so_far.text.push_str(&token.text);
                    so_far.tokens.push(token);
                }
                Event::Finished(finish) => answers[choice] = Some(mem::take(so_far).finish(finish)),
                // `next` returns these as errors.
                Event::Failed(_) | Event::Refused(_) | Event::Cancelled(_) => {}
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }
}

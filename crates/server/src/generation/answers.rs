//! From the engine's thread to a response: the channel that an accepted request's tokens come
//! through.
//!
//! A request with several choices is several requests to the engine that report to one channel.
//! Dropping [`Answers`] (the client hung up, a handler failed) closes the channel; the engine sees
//! that in its next step and frees the slots.

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
    /// Where its tokens are counted, if they are: as they are made, whoever reads them.
    metered: Option<Arc<Metered>>,
    /// What its request used, where that is kept.
    usage: Option<Arc<RequestUsage>>,
    // Unbounded, since a sequence ends: it holds at most `max_tokens` events of one choice.
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
            // Before its client hears of it, who may ask again at once.
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

/// The handler's end: the events of all choices as they come.
#[derive(Debug)]
pub(crate) struct Answers {
    events: UnboundedReceiver<(usize, Event)>,
    /// Choices that have not ended.
    open: usize,
    /// When they are over, if their request has a deadline.
    deadline: Option<Deadline>,
    /// Goes with them.
    _registration: Option<Registration>,
}

/// One choice, complete.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The prompt's tokens with their log-probabilities, if they were asked for.
    pub prompt: Vec<PromptToken>,
    /// The prompt's embedding, if that was asked for.
    pub embedding: Vec<f32>,
    /// The generated tokens.
    pub tokens: Vec<Token>,
    /// Their text.
    pub text: String,
    /// How it ended.
    pub finish: Finish,
}

impl Answer {
    /// The mean log-probability of its tokens, by which the best of several answers is chosen. They
    /// have to come with theirs.
    pub(crate) fn mean_logprob(&self) -> f64 {
        let logprobs = self.tokens.iter().filter_map(|token| token.logprob);
        let sum: f64 = logprobs.map(f64::from).sum();
        sum / self.tokens.len().max(1) as f64
    }
}

/// One choice, as far as it has come.
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

/// The two ends of a channel for the choices that are watched and followed. `metered` and `usage`
/// are held until the engine is done with all of them.
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
    /// The same, of a request that is found by its registration as long as they are waited for.
    pub(crate) fn under(self, registration: Option<Registration>) -> Self {
        Self {
            _registration: registration,
            ..self
        }
    }

    /// The same, of a request that is over then.
    pub(crate) fn until(self, deadline: Option<Deadline>) -> Self {
        Self { deadline, ..self }
    }

    /// The next event and the choice it belongs to, none of [`Event::Failed`], [`Event::Refused`]
    /// and [`Event::Cancelled`]; `None` after every choice has finished, or after an error.
    ///
    /// # Errors
    /// A choice failed, was refused or cancelled, or the request's time is over. That ends all of
    /// them.
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
                // The engine sees that nobody waits, whoever still holds this.
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
                // They are errors of `next`.
                Event::Failed(_) | Event::Refused(_) | Event::Cancelled(_) => {}
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }
}

//! The events of a request.

use std::fmt;
use std::ops::ControlFlow;
use std::time::Duration;

/// Identifies an accepted request within the engine. Later requests have greater ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Receives the events of one request. The engine's thread calls it between two steps, so it must
/// not block.
pub trait Sink: Send {
    /// Receives an event. `Break` says that the client hung up: the request is dropped, and no
    /// event follows.
    fn emit(&mut self, event: Event) -> ControlFlow<()>;

    /// Whether the client hung up. The engine asks before every step, also while the request waits.
    fn is_gone(&self) -> bool;
}

/// An event of a request. The order is `Started`, `Prompt` or `Embedding` if requested, `Token`s,
/// `Finished`. `Failed`, `Refused` or `Cancelled` may come at any point. No event follows one of
/// these four.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The request left the queue.
    Started {
        /// How long the request waited.
        queue_time: Duration,
    },
    /// The prompt's tokens with their log-probabilities, if
    /// [`prompt_logprobs`](crate::Request::prompt_logprobs) was set.
    Prompt(Vec<PromptToken>),
    /// The prompt's embedding, `[hidden]`, not normalised, if
    /// [`embedding`](crate::Request::embedding) was set.
    Embedding(Vec<f32>),
    /// A token was generated.
    Token(Token),
    /// The request is complete.
    Finished(Finish),
    /// The request failed; a sentence that says why.
    Failed(String),
    /// The request was refused after it was accepted, because its grammar takes too much work; a
    /// sentence that says so.
    Refused(String),
    /// [`Engine::cancel`](crate::Engine::cancel) ended the request, with this reason.
    Cancelled(String),
}

/// A generated token.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// The token.
    pub id: u32,
    /// The text that became final with this token. Empty while a character is incomplete or the
    /// text might be the beginning of a stop string. The texts of all tokens and of [`Finish`],
    /// joined, are the whole output as a continuation of the prompt's text: the first word may
    /// begin with a space.
    pub text: String,
    /// Its log-probability, if [`logprobs`](crate::Request::logprobs) was set.
    pub logprob: Option<f32>,
    /// The `logprobs` likeliest tokens and their log-probabilities, likeliest first.
    pub top: Vec<(u32, f32)>,
    /// Whether it is a special token of the tokenizer, such as the end of a turn. Special tokens
    /// have no text.
    pub special: bool,
}

/// A token of the prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptToken {
    /// The token.
    pub id: u32,
    /// Its own text.
    pub text: String,
    /// Its log-probability given the tokens before it; `None` for the first token.
    pub logprob: Option<f32>,
    /// Its rank, from 1, among all tokens by likelihood at this position; of equally likely tokens
    /// the lower id ranks first. `None` for the first token.
    pub rank: Option<usize>,
    /// The likeliest tokens at this position, likeliest first; empty for the first token.
    pub top: Vec<(u32, f32)>,
}

/// The end of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Finish {
    /// Why the request ended.
    pub reason: FinishReason,
    /// The rest of the output's text, which was held back.
    pub text: String,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// How many of them were found in the prefix cache.
    pub cached_tokens: usize,
    /// Generated tokens, including one that ended the output.
    pub completion_tokens: usize,
    /// The seed of the draws, given or random.
    pub seed: u64,
    /// Where the time went.
    pub timings: Timings,
}

/// Why a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended its turn with this token.
    Eos(u32),
    /// One of the request's stop tokens was generated.
    StopToken(u32),
    /// One of the request's stop strings was generated.
    StopString(String),
    /// The grammar allows no further token.
    Complete,
    /// `max_tokens` were generated.
    Length,
}

/// How long the phases of a request took. Their sum is its time in the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// From submission until it left the queue.
    pub queue: Duration,
    /// From leaving the queue to the first token.
    pub prefill: Duration,
    /// From the first token to the last.
    pub decode: Duration,
}

//! What a client hears of its request.

use std::fmt;
use std::ops::ControlFlow;
use std::time::Duration;

/// A request that was accepted. Unique within the engine; later ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Where the events of one request go. Called on the engine's thread, between two steps of
/// everyone: it must not block.
pub trait Sink: Send {
    /// Takes an event. `Break` says that the client hung up: the request is dropped, no event
    /// follows.
    fn emit(&mut self, event: Event) -> ControlFlow<()>;

    /// Whether the client hung up. Asked before every step, also while the request waits.
    fn is_gone(&self) -> bool;
}

/// What happens to a request, in this order: `Started`, `Prompt` or `Embedding` if asked for,
/// `Token`s, then `Finished`; or at any point `Failed`, `Refused` or `Cancelled`. Nothing follows
/// any of these.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// It left the queue.
    Started {
        /// How long it waited.
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
    /// It is done.
    Finished(Finish),
    /// It cannot be done; a sentence that says why.
    Failed(String),
    /// It asks for more than it may, which could not be told before: its grammar takes too much
    /// work. A sentence that says so.
    Refused(String),
    /// It was ended by [`Engine::cancel`](crate::Engine::cancel); the sentence that it was given.
    Cancelled(String),
}

/// A generated token.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// The token.
    pub id: u32,
    /// The text that became certain with it. Empty while a character is incomplete or while the
    /// text might be the beginning of a stop string. The texts of all tokens and of [`Finish`] are
    /// the whole output, as it goes on from the prompt's text: a first word may begin with a space.
    pub text: String,
    /// Its log-probability, if [`logprobs`](crate::Request::logprobs) was set.
    pub logprob: Option<f32>,
    /// The likeliest tokens and their log-probabilities, likeliest first, as many as `logprobs`
    /// asked for.
    pub top: Vec<(u32, f32)>,
    /// Whether it is a special token of the tokenizer, such as the end of a turn. Those have no
    /// text.
    pub special: bool,
}

/// A token of the prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptToken {
    /// The token.
    pub id: u32,
    /// Its own text.
    pub text: String,
    /// Its log-probability after the tokens before it; the first has none.
    pub logprob: Option<f32>,
    /// How many tokens the model held at least as likely in its place, itself included, from 1: its
    /// place in a list of all of them, likeliest first, of equals the lowest id. The first token
    /// has none.
    pub rank: Option<usize>,
    /// What the model held likeliest in its place, likeliest first; none for the first.
    pub top: Vec<(u32, f32)>,
}

/// The end of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Finish {
    /// Why it ended.
    pub reason: FinishReason,
    /// Text that was still held back.
    pub text: String,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// How many of them had been computed for an earlier request.
    pub cached_tokens: usize,
    /// Tokens that were generated; one that ended the output is counted.
    pub completion_tokens: usize,
    /// The seed that its draws were made with, given or random.
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
    /// It is all that the request's grammar allows.
    Complete,
    /// `max_tokens` were generated.
    Length,
}

/// How long the parts of a request took; their sum is its time in the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// From its submission until it left the queue.
    pub queue: Duration,
    /// From then to its first token.
    pub prefill: Duration,
    /// From its first token to its last.
    pub decode: Duration,
}

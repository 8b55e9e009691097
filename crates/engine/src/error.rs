//! Why a request was not accepted.

use std::time::Duration;

use crate::limits::{MAX_LOGPROBS, WEIGHTS};

/// Why a request was not accepted. Nothing of it was done.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SubmitError {
    /// There is no token to go on from.
    #[error("the prompt has no tokens")]
    EmptyPrompt,
    /// A token of the prompt is not in the vocabulary.
    #[error("token {index} of the prompt is {id}, but the vocabulary has {vocab} tokens (0 to {last})", last = .vocab.saturating_sub(1))]
    UnknownToken {
        /// Its position in the prompt, from 0.
        index: usize,
        /// The token.
        id: u32,
        /// Size of the vocabulary.
        vocab: usize,
    },
    /// A token of the logit bias is not in the vocabulary.
    #[error("logit_bias names token {id}, but the vocabulary has {vocab} tokens (0 to {last})", last = .vocab.saturating_sub(1))]
    UnknownBiasToken {
        /// The token.
        id: u32,
        /// Size of the vocabulary.
        vocab: usize,
    },
    /// Longer than the model can look back.
    #[error(
        "prompt ({prompt} tokens) and max_tokens ({max_tokens}) together exceed the model's context of {context} tokens"
    )]
    TooLongForContext {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens that may be generated.
        max_tokens: usize,
        /// The model's context, in tokens.
        context: usize,
    },
    /// Longer than all KV blocks together.
    #[error(
        "prompt ({prompt} tokens) and max_tokens ({max_tokens}) together exceed the KV cache, which holds {cache} tokens"
    )]
    TooLongForCache {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens that may be generated.
        max_tokens: usize,
        /// What the cache holds, in tokens.
        cache: usize,
    },
    /// The shortest output is longer than the longest.
    #[error("min_tokens is {min_tokens}, but max_tokens is {max_tokens}: an answer cannot be both")]
    MinTokens {
        /// Tokens before which nothing ends the output.
        min_tokens: usize,
        /// Tokens that may be generated.
        max_tokens: usize,
    },
    /// An adapter's scale is no number.
    #[error("the adapter's scale is {scale}, but has to be a finite number")]
    Scale {
        /// It.
        scale: f32,
    },
    /// An adapter that is not updates alone, at a scale.
    #[error(
        "the adapter's scale is {scale}, but this adapter can only be used as it was trained: it has {what}, which a \
         scale does not apply to"
    )]
    Unscalable {
        /// The scale.
        scale: f32,
        /// What it has beside updates.
        what: &'static str,
    },
    /// An activated LoRA that the prompt does not invoke.
    #[error(
        "the prompt does not hold the adapter's invocation tokens {tokens:?}, without which the adapter has no effect; \
         to be answered by the base, ask for the base"
    )]
    NotInvoked {
        /// The tokens.
        tokens: Vec<u32>,
    },
    /// More alternatives than are given.
    #[error("{field} is {asked}, but at most {limit} can be given", limit = MAX_LOGPROBS)]
    TooManyLogprobs {
        /// `logprobs` or `prompt_logprobs`.
        field: &'static str,
        /// What was asked for.
        asked: usize,
    },
    /// An empty stop string would end every output at once.
    #[error("a stop string is empty")]
    EmptyStopString,
    /// A stop string is so long that looking for it would hold up everybody's steps.
    #[error("a stop string has {bytes} bytes, but may have at most {limit}")]
    StopStringTooLong {
        /// Its length.
        bytes: usize,
        /// The longest allowed.
        limit: usize,
    },
    /// More stop strings or stop tokens than are looked for at every token.
    #[error("there are {count} stop strings or stop tokens, but may be at most {limit}")]
    TooManyStops {
        /// How many.
        count: usize,
        /// The most allowed.
        limit: usize,
    },
    /// An embedding with more than it.
    #[error(
        "an embedding is computed alone: nothing is generated beside it, and it has no log-probabilities"
    )]
    MoreThanEmbedding,
    /// A sampling parameter is out of its range.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// The weight of a share is out of range.
    #[error("the weight of a share is {weight}, but must be {} to {}", WEIGHTS.start(), WEIGHTS.end())]
    Weight {
        /// What was given.
        weight: f32,
    },
    /// Too many requests of the same adapter and tenant, or of all, wait already; try again later.
    #[error("{waiting} requests are waiting already, and the queue holds {limit}; try again later")]
    QueueFull {
        /// Requests that wait.
        waiting: usize,
        /// The most that may.
        limit: usize,
        /// When they will all have been started, at the rate of late; `None` if that is not known.
        retry_after: Option<Duration>,
    },
    /// The engine was shut down, or stopped by a fault.
    #[error("the engine has stopped")]
    Stopped,
}

/// A sampling parameter that is out of its range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}, but has to be {range}")]
pub struct SamplingError {
    /// Name of the field of [`Sampling`](crate::Sampling).
    pub field: &'static str,
    /// Its value.
    pub value: String,
    /// What it may be.
    pub range: &'static str,
}

//! Why a request was not accepted.

use std::time::Duration;

use crate::limits::{MAX_LOGPROBS, WEIGHTS};

/// Why a request was not accepted. An error has no side effects.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SubmitError {
    /// The prompt is empty.
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
    /// The request is longer than the model's context.
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
    /// The request is longer than the whole KV cache.
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
    /// The minimum length of the output exceeds the maximum.
    #[error("min_tokens is {min_tokens}, but max_tokens is {max_tokens}: an answer cannot be both")]
    MinTokens {
        /// Tokens before which nothing ends the output.
        min_tokens: usize,
        /// Tokens that may be generated.
        max_tokens: usize,
    },
    /// An adapter's scale is not finite.
    #[error("the adapter's scale is {scale}, but has to be a finite number")]
    Scale {
        /// The scale.
        scale: f32,
    },
    /// A scale other than 1 for an adapter that has parts which no scale multiplies.
    #[error(
        "the adapter's scale is {scale}, but this adapter can only be used as it was trained: it has {what}, which a \
         scale does not apply to"
    )]
    Unscalable {
        /// The scale.
        scale: f32,
        /// The part that no scale multiplies.
        what: &'static str,
    },
    /// The prompt does not contain the invocation tokens of an activated LoRA.
    #[error(
        "the prompt does not hold the adapter's invocation tokens {tokens:?}, without which the adapter has no effect; \
         to get the base's answer, request the base model"
    )]
    NotInvoked {
        /// The invocation tokens.
        tokens: Vec<u32>,
    },
    /// More alternatives per position are requested than are available.
    #[error("{field} is {asked}, but at most {limit} can be given", limit = MAX_LOGPROBS)]
    TooManyLogprobs {
        /// `logprobs` or `prompt_logprobs`.
        field: &'static str,
        /// The requested number.
        asked: usize,
    },
    /// A stop string is empty, which would end every output at once.
    #[error("a stop string is empty")]
    EmptyStopString,
    /// A stop string is so long that searching for it would delay every request's steps.
    #[error("a stop string has {bytes} bytes, but may have at most {limit}")]
    StopStringTooLong {
        /// Its length, in bytes.
        bytes: usize,
        /// The maximum length, in bytes.
        limit: usize,
    },
    /// There are too many stop strings or stop tokens.
    #[error("there are {count} stop strings or stop tokens, but may be at most {limit}")]
    TooManyStops {
        /// How many there are.
        count: usize,
        /// The maximum.
        limit: usize,
    },
    /// An embedding request also asks for tokens or log-probabilities.
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
        /// The given weight.
        weight: f32,
    },
    /// The queue is full: too many requests of the same adapter and tenant, or of all, wait.
    #[error("{waiting} requests are waiting already, and the queue holds {limit}; try again later")]
    QueueFull {
        /// Number of waiting requests.
        waiting: usize,
        /// The maximum number of waiting requests.
        limit: usize,
        /// The time until all of them will have started, at the recent rate; `None` if the rate is
        /// not known.
        retry_after: Option<Duration>,
    },
    /// The engine was shut down, or failed.
    #[error("the engine has stopped")]
    Stopped,
}

/// A sampling parameter is out of range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}, but has to be {range}")]
pub struct SamplingError {
    /// Name of the field of [`Sampling`](crate::Sampling).
    pub field: &'static str,
    /// Its value.
    pub value: String,
    /// The allowed values.
    pub range: &'static str,
}

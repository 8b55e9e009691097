//! From requests to steps to tokens: continuous batching over a
//! [`Backend`](multigraft_model::Backend).
//!
//! A [`Request`] is a prompt in tokens, optionally an adapter, and sampling parameters. Its results
//! arrive as [`Event`]s at a [`Sink`]. In between:
//!
//! ```text
//!  Engine::submit          (any thread)   checks the request, refuses one that can never be served
//!      │ channel
//!  worker                  (its own thread, owns all below; no locks or I/O on the step path)
//!      scheduler           how many rows of which sequence this step computes; preemption
//!      blocks, prefix      which sequences hold which KV block; which prefixes are cached
//!      residents           which adapter is in which slot of the backend
//!      plan                the runs of the step, sorted by adapter
//!      Backend::forward    logits
//!      sequence            a running request; sampler → token → transcript (text, stops)
//!      │ Sink::emit
//!  the client
//! ```
//!
//! Invariants:
//!
//! - Sequences of one adapter, scale and tenant share the KV blocks of a common prefix, while they
//!   run or one after the other. Tokens and log-probabilities are those without sharing, to the
//!   bit.
//! - Sequences of any adapters, and of the base, share a step. A request's tokens depend on its own
//!   prompt, adapter, sampling parameters and seed alone.
//! - An accepted request ends in exactly one [`Event::Finished`], [`Event::Failed`],
//!   [`Event::Refused`] or [`Event::Cancelled`], unless its client hangs up, which frees its blocks
//!   before the next step.
//! - Within a share (an adapter and a tenant), requests of one priority are admitted in the order
//!   of their arrival. The oldest running request is never preempted, so every request makes
//!   progress.

mod blocks;
mod client;
mod clock;
mod constraint;
mod embedding;
mod engine;
mod error;
mod event;
mod fair;
mod limits;
mod output;
mod plan;
mod prefix;
mod prompt_scores;
mod request;
mod residents;
mod sampler;
mod scheduler;
mod sequence;
mod shared;
mod stats;
mod stop;
mod submission;
mod tenant;
mod transcript;
mod vocabulary;
mod waiting;
mod worker;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use embedding::Pooling;
pub use engine::Engine;
pub use error::{SamplingError, SubmitError};
pub use event::{Event, Finish, FinishReason, PromptToken, RequestId, Sink, Timings, Token};
pub use limits::{EngineLimits, EngineOptions, MAX_LOGPROBS, MAX_STOP_BYTES, MAX_STOPS, WEIGHTS};
pub use request::{AdapterUse, Request, Sampling, Stop};
pub use stats::{CurrentStep, Sizes, Stats, StepKinds};
pub use tenant::Tenant;

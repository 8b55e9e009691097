//! Requests → steps → tokens: continuous batching over a [`Backend`](multigraft_model::Backend).
//!
//! A [`Request`] is a prompt in tokens, perhaps an adapter, and how to sample; what becomes of it
//! arrives as [`Event`]s at a [`Sink`]. In between:
//!
//! ```text
//!  Engine::submit          (any thread)   checks the request, refuses what can never be served
//!      │ channel
//!  worker                  (its own thread, owns all below; no locks or I/O on the step path)
//!      scheduler           who computes how many rows in this step; KV blocks; preemption
//!      blocks, prefix      who holds which block; which prefixes are computed already
//!      residents           which adapter is in which slot of the backend
//!      plan                the step: runs, those of one adapter as neighbours
//!      Backend::forward    logits
//!      sequence            a running request; sampler → token → transcript (text, stops)
//!      │ Sink::emit
//!  whoever waits for the answer
//! ```
//!
//! What holds at all times:
//!
//! - Sequences of one adapter, scale and tenant that begin alike share the blocks of their
//!   beginning, at the same time or one after the other; nobody's tokens or log-probabilities
//!   change by it, to the bit.
//! - Sequences of any adapters, and of the base, share a step. None of them can tell: a request's
//!   tokens depend on its own prompt, adapter, sampling parameters and seed alone.
//! - A request that was accepted ends in exactly one [`Event::Finished`], [`Event::Failed`],
//!   [`Event::Refused`] or [`Event::Cancelled`], unless its client hangs up, which frees its blocks
//!   before the next step.
//! - Admission is first come, first served; the oldest request is never preempted, so everyone gets
//!   their turn.

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
pub use stats::{Sizes, Stats, StepKinds, UnderWay};
pub use tenant::Tenant;

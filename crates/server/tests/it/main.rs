//! The server over its router, and over sockets.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(
    clippy::needless_pass_by_value,
    reason = "bodies are written where they are sent"
)]

mod access;
mod adapters;
mod audit;
mod batches;
mod choosing;
mod connections;
mod deadlines;
mod embeddings;
mod events;
mod http;
mod isolation;
mod keys;
mod limits;
mod lorax;
mod metrics;
mod openai;
mod openapi;
mod pages;
mod removal;
mod responses;
mod support;
mod templates;
mod tgi;
mod tls;
mod upload;
mod usage;
mod vllm;

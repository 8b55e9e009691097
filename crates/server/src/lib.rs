//! The HTTP server: the dialects of OpenAI and TGI over the engine.
//!
//! Modules that [`AppState`] holds stand below it; modules that take it stand above. No module
//! imports in a circle:
//!
//! ```text
//!  serve        listening and graceful shutdown
//!  routes       the router: handlers of the table of routes, and middleware
//!  background   the batch runner, the adapters file, the watchdog
//!  openapi      the table of routes as an OpenAPI document
//!  openai, tgi  fields and answers of each dialect
//!  manage       routes for adapters, API keys, usage reports and metrics
//!  generation   from fields to the engine and back
//!   choice       the adapter that a request chooses, and its scale
//!   constraints  constraints on answers: JSON schemas, grammars
//!   tokens       text → tokens; long texts on another thread
//!   admission    name → base or adapter version; limits; submission to the engine
//!   answers      the channel for the engine's events
//!   usage        the tokens that a request used
//!   stream       events → server-sent events, or one collected answer
//!  caller       authenticate: the API key; session: what the caller may see; audit: the audit
//!               log; time_limit: deadlines of requests
//!  state        AppState and its parts: adapters, batches, rate limits, requests in flight
//!  observe      metrics for Prometheus, traces, prompts in the log
//!  http         connections, bodies, errors in each dialect, ids
//!  contract     the table of routes; dialects; fields; limits; headers; which model answers
//! ```
//!
//! Invariants:
//!
//! - A name that is not served is a 404. The base answers to its own name, to the empty name and to
//!   `tgi`, and to no other.
//! - An adapter that a key may not use gets the same answer as one that does not exist, however the
//!   request names it.
//! - Response headers state the adapter that answered, its content hash and its scale.
//! - A field that would change the answer is applied, or refused by name. No such field is ignored.
//! - When a client disconnects or a deadline passes, the request's `answers` are dropped, which
//!   frees its KV blocks in the next engine step.
//!
//! Lines of batches are requests to the router itself (`background::batches`).
//!
//! This crate knows no kernels, does not start the engine and does not read the configuration. The
//! only files it knows are those of batches, uploads and the adapters file.

mod background;
mod caller;
mod contract;
mod generation;
mod http;
mod manage;
mod observe;
mod openai;
mod openapi;
mod routes;
mod serve;
mod state;
mod tgi;

pub use background::{
    batches::run as run_batches,
    reconcile::{AdaptersFileError, Reconciler, check_adapters_file},
};
pub use contract::{limits::Limits, model::BaseInfo};
pub use http::{
    connections::{ConnectionLimits, Tls, TlsError},
    dialect::Dialect,
    error::ApiError,
};
pub use observe::{metrics::Metrics, telemetry::Telemetry};
pub use routes::router;
pub use serve::{Ended, interrupt, serve};
pub use state::{AppState, AppStateBuilder, batches::Batches};

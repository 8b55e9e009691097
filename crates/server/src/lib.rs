//! HTTP: the OpenAI and TGI dialects over the engine.
//!
//! Modules that [`AppState`] holds stand below it; modules that take it stand above. No module
//! imports in a circle:
//!
//! ```text
//!  routes       the handlers of the table of routes, and the middleware around them;
//!               serve: listening, and shutting down
//!  background   batches, the file of adapters, the watch over steps that do not end
//!  openapi      the table of routes as an OpenAPI document
//!  openai, tgi  a dialect's parameters and shapes
//!  manage       adapters: adding, replacing and removing them; API keys; usage by the hour; metrics
//!  generation   from fields to the engine and back
//!   choice       which adapter a request chooses, and at which scale
//!   constraints  what the answer must be: JSON, a grammar
//!   tokens       text → tokens, long texts on another thread
//!   admission    name → base or adapter as it is now; limits; hand-over to the engine
//!   answers      the channel that the engine's events come back through
//!   usage        what a request used
//!   stream       events → server-sent events; or collected into one answer
//!  caller       authenticate: whose request it is; session: what of the server that may be seen;
//!               audit: what was changed by whom, written down; time_limit: by when requests end
//!  state        AppState, and what it holds: adapters, batches, meters, requests in flight
//!  observe      counters for Prometheus, traces, prompts in the log
//!  http         connections, fields of bodies, errors and how each dialect words them, ids
//!  contract     the table of routes; dialects; limits of requests, headers of answers, which model
//!               answers
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
//!   frees its slots in the next engine step.
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

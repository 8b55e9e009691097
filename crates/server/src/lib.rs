//! HTTP: the OpenAI and TGI dialects over the engine.
//!
//! What [`AppState`] holds stands below it, what takes it above; no module imports in a circle:
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
//! - A name that is not served is a 404. The base answers to its own name, to the empty one and to
//!   `tgi`; nothing else is ever answered by the base.
//! - What a key may not use is answered as what does not exist, by every way to name it.
//! - Every answer says in its headers which adapter made it, with which content hash, and at which
//!   scale.
//! - A field that would change the answer is applied or refused by name, never ignored.
//! - A client that hangs up, or whose time is over, drops its `answers`, which frees its slots in
//!   the engine's next step.
//!
//! Batches are run through the router itself, in the background (batches).
//!
//! This crate knows no kernels and no files but those of batches and the file of adapters; it does not start the engine and
//! does not read configuration.

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

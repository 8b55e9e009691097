//! HTTP: the OpenAI and TGI dialects over the engine.
//!
//! The road of a request:
//!
//! ```text
//!  connections   taking them, and for how long they may take
//!  routes        one table; errors worded in the path's dialect (dialect, error); ids of requests (request_id), and by when they end (deadline)
//!   session      whose request it is, and what of the server that may be seen
//!   fields       the body, field by field: nothing wrong or unknown is let through
//!   openai, tgi  a dialect's parameters and shapes; adapters: adding, replacing and removing them
//!   keys         API keys, for admins
//!   audit        what was changed by whom, written down
//!   tokens       text → tokens, long texts on another thread
//!   constraints  what the answer must be: JSON, a grammar
//!   asked        which adapter a request asks for, and at which scale
//!   admission    name → base or adapter as it is now; limits; hand-over to the engine
//!   answers      the channel that the engine's events come back through
//!   tally        what a request used; usage: sums of it, by the hour
//!   stream       events → server-sent events; or collected into one answer
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
//! This crate knows no kernels and no files but those of batches; it does not start the engine and
//! does not read configuration.

// The tests' server is also that of tests of what nobody outside sees.
#[cfg(test)]
extern crate self as multigraft_server;

mod background;
mod caller;
mod contract;
mod generation;
mod http;
mod manage;
mod observe;
mod openai;
mod openapi;
#[cfg(test)]
mod pages;
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

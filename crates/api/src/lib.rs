//! The management API as types: what `/v1/adapters`, `/v1/keys`, `/v1/usage` and `/ready` take and
//! answer.
//!
//! ```text
//!  adapters   adapters, their versions, what is known about them, and events of their life
//!      keys   API keys and their limits
//!     usage   requests and tokens by key, tenant, adapter and time
//!    health   whether the server takes requests
//!     error   the body of an answer that is not a success
//!       tag   the field `object` in schemas
//!       sse   reading server-sent events
//! ```
//!
//! The server answers with these types, clients (the command line is one) read them, and the
//! OpenAPI document takes the schemas of answers from them. Request bodies are read field by field
//! in the server, whose `openapi` room describes them. The order of a type's fields is the order in
//! which they are written. All times are in seconds since 1970-01-01 00:00 UTC.
//!
//! This crate depends on no other of multigraft's and holds no server code.

mod adapters;
mod error;
mod health;
mod keys;
pub mod sse;
mod tag;
mod usage;

pub use adapters::{
    Adapter, AdapterEvent, AdapterInfo, AdapterLimits, AdapterMemory, AdapterPhase, AdapterState,
    AdapterVersion, Adapters, AddAdapter, AddedBy, Agreement, ChangeAdapter, Effect, MemoryBudget, Progress,
};
pub use error::{Error, ErrorBody};
pub use health::{Readiness, Ready};
pub use keys::{Key, KeyLimits, Keys, Role};
pub use usage::{UsageCounts, UsageReport, UsageRow};

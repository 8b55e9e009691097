//! API keys: what they may do, what they added and used, and the audit log.
//!
//! ```text
//!  secret   the text that a client sends, and its SHA-256, which is all that is stored
//!   grant   which adapters a key may use
//!     key   a name, a role, a tenant, grants, limits, an expiry
//!  limits   rate limits and quotas of a key
//!   month   the tokens that a key used this month
//!   store   keys, their monthly tokens and the owners of adapters, in SQLite
//!  access   the keys in memory, for every request
//!   audit   who changed what: a line for each action
//!   usage   requests and tokens by the hour, in an SQLite database of their own
//! ```
//!
//! This crate knows no HTTP and no adapters: names are text.

mod access;
mod audit;
mod error;
mod grant;
mod key;
mod limits;
mod month;
mod secret;
mod store;
mod usage;

pub use access::Access;
pub use audit::{AUDIT_FILE, Action, Actor, Audit, Outcome};
pub use error::{AccessError, Refused};
pub use grant::{Grant, Grants};
pub use key::{Admins, Changes, Key, NewKey, Role};
pub use limits::{KeyLimits, LimitChanges};
pub use month::Exhausted;
pub use secret::Secret;
pub use store::{FILE, Store};
pub use usage::{By, Period, Query as UsageQuery, USAGE_FILE, Usage, Used};

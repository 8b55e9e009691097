//! API keys: who they are, what they may use, and what they added and used.
//!
//! ```text
//!  secret   the text that a client sends, and its SHA-256, which is all that is stored
//!   grant   which adapters a key may use
//!    key    a name, a role, a tenant, grants, limits, an end
//!  limits   how much its requests may take
//!   month   the tokens that it spent this month
//!   store   keys, their months and who added which adapter, in SQLite
//!  access   the keys as they are now, for every request
//!   audit   what was changed by whom, a line for each action
//!   usage   requests and tokens by the hour, in an SQLite of their own
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
pub use usage::{By, Counts, Period, Query as UsageQuery, Row, USAGE_FILE, Usage, Used};

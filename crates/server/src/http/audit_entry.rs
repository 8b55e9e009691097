//! An entry of the audit log, until it is written.
//!
//! The entry travels with the request. The fields of the body add the details. The first part of
//! the server that knows the outcome writes the entry: a task that continues after its client has
//! disconnected, or the middleware. An entry that is dropped before means that the client
//! disconnected.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use axum::{http::header, response::Response};
use multigraft_access::{Access, Action, Outcome};
use serde_json::{Map, Value};

use super::{dialect::Dialect, error::ApiError};

/// Fields that name the adapter or the key.
const NAMES: [&str; 2] = ["name", "lora_name"];
/// Fields whose values are recorded. Other fields are not recorded, as they may hold a secret or a
/// part of a prompt.
const SHOWN: [&str; 14] = [
    "source",
    "lora_path",
    "replace",
    "load_inplace",
    "pinned",
    "active",
    "limits",
    "role",
    "tenant",
    "grants",
    "expires",
    "hours",
    "now",
    "lora_int_id",
];
/// The field of which only the names of its own fields are recorded: an adapter's system message is
/// part of prompts.
const NAMED: &str = "defaults";

/// The audit entry of a request that changes adapters or keys.
pub(crate) struct AuditEntry {
    access: Arc<Access>,
    action: Mutex<Action>,
    is_written: AtomicBool,
}

impl fmt::Debug for AuditEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditEntry").finish_non_exhaustive()
    }
}

/// The recorded fields in the query. All of them are true or false.
fn flags(query: &str) -> Map<String, Value> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let shown = pairs.filter(|(name, _)| SHOWN.contains(name));
    shown
        .filter_map(|(name, value)| Some((name.to_owned(), Value::Bool(value.parse().ok()?))))
        .collect()
}

impl AuditEntry {
    /// The entry of a request that begins. `action` has everything but the fields; some are in
    /// `query`.
    pub(crate) fn new(access: &Arc<Access>, action: Action, query: &str) -> Arc<Self> {
        let details = flags(query);
        Arc::new(Self {
            access: Arc::clone(access),
            action: Mutex::new(Action { details, ..action }),
            is_written: AtomicBool::new(false),
        })
    }

    /// Records the fields of the body.
    pub(crate) fn set_fields(&self, fields: &Map<String, Value>) {
        let mut action = self.action.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, value) in fields {
            match (name.as_str(), value) {
                (name, Value::String(what)) if NAMES.contains(&name) => {
                    action.what.get_or_insert_with(|| what.clone());
                }
                (NAMED, Value::Object(of)) => {
                    action.details.insert(name.clone(), of.keys().cloned().collect());
                }
                (shown, _) if SHOWN.contains(&shown) => {
                    action.details.insert(name.clone(), value.clone());
                }
                _ => {}
            }
        }
    }

    /// Writes the outcome. Only the first call has an effect.
    pub(crate) fn ended(&self, error: Option<&ApiError>) {
        match error {
            None => self.write(Outcome::Done, None),
            Some(error) => {
                let outcome = match error.status(Dialect::OpenAi).is_server_error() {
                    true => Outcome::Failed,
                    false => Outcome::Refused,
                };
                self.write(outcome, Some(error.to_string()));
            }
        }
    }

    /// Writes the outcome that `response` shows, unless it is a stream.
    pub(crate) fn answered(&self, response: &Response) {
        let kind = response.headers().get(header::CONTENT_TYPE);
        if kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream")) {
            // The stream has only begun; its task writes the outcome.
            return;
        }
        match response.extensions().get::<ApiError>() {
            Some(error) => self.ended(Some(error)),
            None if response.status().is_success() => self.ended(None),
            None => self.write(Outcome::Refused, Some(response.status().to_string())),
        }
    }

    fn write(&self, outcome: Outcome, error: Option<String>) {
        if self.is_written.swap(true, Ordering::Relaxed) {
            return;
        }
        let action = self.action.lock().unwrap_or_else(PoisonError::into_inner);
        let action = Action {
            outcome,
            error,
            ..action.clone()
        };
        self.access.store().audit().write(&action, SystemTime::now());
    }
}

impl Drop for AuditEntry {
    fn drop(&mut self) {
        self.write(Outcome::BrokenOff, None);
    }
}

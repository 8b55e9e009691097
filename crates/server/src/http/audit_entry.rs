//! One line of the log of management, until it is written.
//!
//! It goes with the request: the body's fields put in what is asked for, and whoever knows first
//! how it ended writes it: a task that goes on without its client, or the middleware. One that is
//! dropped before had a client that went away.

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

/// Fields of bodies that name the adapter or the key.
const NAMES: [&str; 2] = ["name", "lora_name"];
/// Fields that are written as they are. What is not listed here is not written: it may be a secret
/// or a part of a prompt.
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
/// Fields of which it is written which of their own fields they hold: an adapter's system message
/// is part of prompts.
const NAMED: &str = "defaults";

/// A request to change something, until it is written.
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

/// What the query says of the fields that are written: true or false, all of them.
fn flags(query: &str) -> Map<String, Value> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let shown = pairs.filter(|(name, _)| SHOWN.contains(name));
    shown
        .filter_map(|(name, value)| Some((name.to_owned(), Value::Bool(value.parse().ok()?))))
        .collect()
}

impl AuditEntry {
    /// A request that begins: `action` says all but the fields, of which `query` has some.
    pub(crate) fn new(access: &Arc<Access>, action: Action, query: &str) -> Arc<Self> {
        let details = flags(query);
        Arc::new(Self {
            access: Arc::clone(access),
            action: Mutex::new(Action { details, ..action }),
            is_written: AtomicBool::new(false),
        })
    }

    /// What is asked for.
    pub(crate) fn asks(&self, fields: &Map<String, Value>) {
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

    /// It was done, or not. Only the first one to say so is heard.
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

    /// It was answered, unless the answer has only begun.
    pub(crate) fn answered(&self, response: &Response) {
        let kind = response.headers().get(header::CONTENT_TYPE);
        if kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream")) {
            // It has only begun, and says itself how it ends.
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

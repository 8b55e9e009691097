//! The log of management: one line for every change of adapters and keys that was asked for, done
//! or refused.
//!
//! A middleware begins a [`Note`] for each route that changes something. It goes with the request:
//! the body's fields put in what is asked for, and whoever knows first how it ended writes it: a
//! task that goes on without its client, or the middleware. A note that is dropped before had a
//! client that went away.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use axum::{
    extract::{ConnectInfo, FromRequestParts as _, MatchedPath, Path, Request, State},
    http::{Method, header},
    middleware::Next,
    response::Response,
};
use multigraft_access::{Access, Action, Outcome};
use serde_json::{Map, Value};

use crate::{Dialect, adapters::upload, error::ApiError, request_id, session, state::Shared};

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

/// What a route does, if it changes anything.
fn action(method: &Method, route: &str) -> Option<&'static str> {
    Some(match (method.as_str(), route) {
        ("POST", "/v1/adapters" | "/v1/load_lora_adapter" | "/load_lora_adapter") => "adapter.add",
        ("POST", "/v1/adapters/{*name}") => "adapter.upload",
        ("PATCH", "/v1/adapters/{*name}") => "adapter.change",
        ("DELETE", "/v1/adapters/{*name}") | ("POST", "/v1/unload_lora_adapter" | "/unload_lora_adapter") => {
            "adapter.remove"
        }
        ("POST", "/v1/keys") => "key.add",
        ("PATCH", "/v1/keys/{id}") => "key.change",
        ("DELETE", "/v1/keys/{id}") => "key.revoke",
        ("POST", "/v1/keys/{id}/rotate") => "key.rotate",
        _ => return None,
    })
}

/// A request to change something, until it is written.
pub(crate) struct Note {
    access: Arc<Access>,
    action: Mutex<Action>,
    is_written: AtomicBool,
}

impl fmt::Debug for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Note").finish_non_exhaustive()
    }
}

/// Middleware, below that which looks for the key: notes changes, where there is a data folder.
pub(crate) async fn record(State(state): State<Shared>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    let action = route.and_then(|route| action(request.method(), route.as_str()));
    let (Some(action), Some(access)) = (action, &state.access) else {
        return next.run(request).await;
    };
    let (mut parts, body) = request.into_parts();
    let path = Path::<String>::from_request_parts(&mut parts, &()).await;
    let what = path.ok().map(|Path(path)| match action {
        "adapter.upload" => path.strip_suffix(upload::END).unwrap_or(&path).to_owned(),
        _ => path,
    });
    let remote = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    let request_id = parts.headers.get(request_id::HEADER);
    let note = Arc::new(Note {
        access: Arc::clone(access),
        action: Mutex::new(Action {
            actor: session::actor(&parts.extensions),
            remote: remote.map(|ConnectInfo(address)| *address),
            action,
            what,
            details: flags(parts.uri.query().unwrap_or_default()),
            outcome: Outcome::BrokenOff,
            error: None,
            request_id: request_id.map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned()),
        }),
        is_written: AtomicBool::new(false),
    });
    parts.extensions.insert(Arc::clone(&note));
    let response = next.run(Request::from_parts(parts, body)).await;
    note.answered(&response);
    response
}

/// What the query says of the fields that are written: true or false, all of them.
fn flags(query: &str) -> Map<String, Value> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let shown = pairs.filter(|(name, _)| SHOWN.contains(name));
    shown
        .filter_map(|(name, value)| Some((name.to_owned(), Value::Bool(value.parse().ok()?))))
        .collect()
}

impl Note {
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

    fn answered(&self, response: &Response) {
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

impl Drop for Note {
    fn drop(&mut self) {
        self.write(Outcome::BrokenOff, None);
    }
}

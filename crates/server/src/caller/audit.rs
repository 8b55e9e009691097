//! The log of management: one line for every change of adapters and keys that was asked for, done
//! or refused.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    extract::{ConnectInfo, FromRequestParts as _, MatchedPath, Path, Request, State},
    http::Method,
    middleware::Next,
    response::Response,
};
use multigraft_access::{Access, Action, Outcome};
use serde_json::Map;

use crate::{
    contract::routes::UPLOAD_SUFFIX,
    http::{audit_entry::AuditEntry, caller, request_id},
};

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

/// Middleware, below that which looks for the key: notes changes, where there is a data folder.
pub(crate) async fn record(
    State(access): State<Option<Arc<Access>>>,
    request: Request,
    next: Next,
) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    let action = route.and_then(|route| action(request.method(), route.as_str()));
    let (Some(action), Some(access)) = (action, &access) else {
        return next.run(request).await;
    };
    let (mut parts, body) = request.into_parts();
    let path = Path::<String>::from_request_parts(&mut parts, &()).await;
    let what = path.ok().map(|Path(path)| match action {
        "adapter.upload" => path.strip_suffix(UPLOAD_SUFFIX).unwrap_or(&path).to_owned(),
        _ => path,
    });
    let remote = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    let request_id = parts.headers.get(request_id::HEADER);
    let action = Action {
        actor: caller::actor(&parts.extensions),
        remote: remote.map(|ConnectInfo(address)| *address),
        action,
        what,
        details: Map::new(),
        outcome: Outcome::BrokenOff,
        error: None,
        request_id: request_id.map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned()),
    };
    let entry = AuditEntry::new(access, action, parts.uri.query().unwrap_or_default());
    parts.extensions.insert(Arc::clone(&entry));
    let response = next.run(Request::from_parts(parts, body)).await;
    entry.answered(&response);
    response
}

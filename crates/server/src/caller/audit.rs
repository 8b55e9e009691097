//! The audit log: an entry for every request that changes adapters or keys, whether it succeeded or
//! not.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    extract::{ConnectInfo, FromRequestParts as _, Path, Request, State},
    middleware::Next,
    response::Response,
};
use multigraft_access::{Access, Action, Outcome};
use serde_json::Map;

use crate::{
    contract::routes,
    http::{audit_entry::AuditEntry, caller, request_id},
};

/// Middleware inside [`authenticate`](super::authenticate): writes the audit log, if the server has
/// a data folder.
pub(crate) async fn record(
    State(access): State<Option<Arc<Access>>>,
    request: Request,
    next: Next,
) -> Response {
    let route = routes::of(request.extensions());
    let endpoint = route.and_then(|route| route.endpoint(request.method()));
    let audited = endpoint.and_then(|endpoint| Some((endpoint, endpoint.audit_action?)));
    let (Some((endpoint, action)), Some(access)) = (audited, &access) else {
        return next.run(request).await;
    };
    let (mut parts, body) = request.into_parts();
    let path = Path::<String>::from_request_parts(&mut parts, &()).await;
    let what = path.ok().map(|Path(path)| {
        let name = endpoint.suffix.and_then(|suffix| path.strip_suffix(suffix));
        name.map(str::to_owned).unwrap_or(path)
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

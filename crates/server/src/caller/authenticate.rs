//! Lets nobody in without a key, if there are keys.

use std::time::Instant;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use crate::{http::caller::Caller, state::AppState};

/// What answers to anybody: whether the server lives and takes requests, and what any server of
/// this kind understands.
const OPEN: [&str; 5] = ["/health", "/ping", "/ready", "/openapi.json", "/docs"];

/// Middleware: lets nobody in without a key, if there are keys. Keys are looked at for every
/// request anew.
pub(crate) async fn authenticate(
    State(state): State<AppState>,
    mut request: Request,
    next: Next,
) -> Response {
    // A line of a batch, which nobody sends over the network, comes with whose it is.
    let is_ours = request.extensions().get::<Caller>().is_some();
    if is_ours || OPEN.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    match Caller::of_request(state.access(), request.headers()) {
        Ok(caller) => {
            let key = caller.key().cloned();
            request.extensions_mut().insert(caller);
            let mut response = next.run(request).await;
            if let Some(key) = key {
                state.meters().label(&key, response.headers_mut(), Instant::now());
            }
            response
        }
        Err(error) => error.into_response(),
    }
}

//! Lets nobody in without a key, if there are keys.

use std::time::Instant;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use crate::{
    contract::{route::Access, routes},
    http::caller::Caller,
    state::AppState,
};

/// Middleware: lets nobody in without a key, if there are keys. Keys are looked at for every
/// request anew.
pub(crate) async fn authenticate(
    State(state): State<AppState>,
    mut request: Request,
    next: Next,
) -> Response {
    // A line of a batch, which nobody sends over the network, comes with whose it is.
    let is_ours = request.extensions().get::<Caller>().is_some();
    let is_open = routes::of(request.extensions()).is_some_and(|route| route.access == Access::Open);
    if is_ours || is_open {
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

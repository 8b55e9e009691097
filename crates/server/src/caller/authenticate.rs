//! Authentication by API key, if the server has keys.

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

/// Middleware: refuses requests without a valid API key, if the server has keys and the route needs
/// one. The key is looked up for every request, not once per connection.
pub(crate) async fn authenticate(
    State(state): State<AppState>,
    mut request: Request,
    next: Next,
) -> Response {
    // The lines of a batch do not come over the network; the batch runner attaches the caller.
    let is_internal = request.extensions().get::<Caller>().is_some();
    let is_open = routes::of(request.extensions()).is_some_and(|route| route.access == Access::Open);
    if is_internal || is_open {
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

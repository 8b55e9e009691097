//! The time limit of requests.

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use tokio::time::timeout_at;

use crate::{
    contract::limits::Limits,
    http::deadline::{Background, Deadline},
};

/// Middleware: ends requests at their deadline with 504. Streams get the deadline too and end with
/// an error as their last event. Lines of batches are exempt: the batch has a deadline of its own.
pub(crate) async fn limit(State(limits): State<Limits>, mut request: Request, next: Next) -> Response {
    if request.extensions().get::<Background>().is_some() {
        return next.run(request).await;
    }
    let deadline = match Deadline::of(request.headers(), limits.request_time) {
        Ok(Some(deadline)) => deadline,
        Ok(None) => return next.run(request).await,
        Err(error) => return error.into_response(),
    };
    request.extensions_mut().insert(deadline);
    let response = timeout_at(deadline.at, next.run(request)).await;
    response.unwrap_or_else(|_| deadline.passed().into_response())
}

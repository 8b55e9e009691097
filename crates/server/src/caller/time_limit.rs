//! Ends requests whose time is over.

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

/// Middleware: ends requests whose time is over. An answer that is streamed ends itself, with an
/// error as its last event, as whoever makes it has the deadline too. Batches have a deadline of
/// their own.
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
    let answered = timeout_at(deadline.at, next.run(request)).await;
    answered.unwrap_or_else(|_| deadline.passed().into_response())
}

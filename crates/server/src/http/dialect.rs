//! The status and the body of an error in each dialect.

use axum::{
    Json,
    extract::Request,
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use multigraft_api::{Error, ErrorBody};
use serde_json::{Value, json};

pub use crate::contract::dialect::Dialect;
use crate::{
    contract::{headers::RATE_LIMIT_PREFIX, routes},
    http::error::ApiError,
};

/// Tells OpenAI's client libraries whether to retry.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// Longest error message, in bytes. Messages quote the invalid value, which can be as long as a
/// body.
const MESSAGE: usize = 4096;

impl Dialect {
    /// The body of `error` in this dialect. A stream that fails ends with the same object.
    pub fn error_body(self, error: &ApiError) -> Value {
        let message = shortened(error.to_string());
        match self {
            Self::OpenAi => json!(ErrorBody {
                error: Error {
                    message,
                    kind: error.openai_type().to_owned(),
                    param: error.field().map(str::to_owned),
                    code: error.status(self).as_u16(),
                },
            }),
            Self::Tgi => json!({"error": message, "error_type": error.tgi_type()}),
        }
    }

    /// The response for `error`: status, headers and body.
    pub fn error_response(self, error: &ApiError) -> Response {
        let mut response = (error.status(self), Json(self.error_body(error))).into_response();
        if let Some(wait) = error.retry_after() {
            // Rounded up, so that a client that waits this long does not retry too early.
            let seconds = HeaderValue::from(wait.as_millis().div_ceil(1000).max(1) as u64);
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        if matches!(error, ApiError::Quota { .. } | ApiError::TimedOut { .. }) {
            // OpenAI's client libraries retry by default. The quota lasts until the end of the
            // month, and after a timeout the client has given up.
            let no = HeaderValue::from_static("false");
            response.headers_mut().insert(SHOULD_RETRY, no);
        }
        if matches!(error, ApiError::Unauthorized(_)) {
            let scheme = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        if matches!(error, ApiError::ShuttingDown | ApiError::TooSlow) {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        if let ApiError::MethodNotAllowed { allowed, .. } = error
            && let Ok(allowed) = HeaderValue::from_str(allowed)
        {
            response.headers_mut().insert(header::ALLOW, allowed);
        }
        response
    }
}

impl ApiError {
    /// The HTTP status in `dialect`. The dialects differ for invalid input (400, TGI 422) and for
    /// failed generation (500, TGI 424).
    pub fn status(&self, dialect: Dialect) -> StatusCode {
        match (self, dialect) {
            (Self::Invalid { .. }, Dialect::OpenAi) => StatusCode::BAD_REQUEST,
            (Self::Invalid { .. }, Dialect::Tgi) => StatusCode::UNPROCESSABLE_ENTITY,
            (Self::UnknownModel { .. } | Self::UnknownRoute { .. }, _) => StatusCode::NOT_FOUND,
            (Self::MethodNotAllowed { .. }, _) => StatusCode::METHOD_NOT_ALLOWED,
            (Self::TooLarge { .. }, _) => StatusCode::PAYLOAD_TOO_LARGE,
            (Self::LongUri { .. }, _) => StatusCode::URI_TOO_LONG,
            (Self::TooSlow, _) => StatusCode::REQUEST_TIMEOUT,
            (Self::NotJson, _) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            (Self::Overloaded { .. } | Self::Quota { .. }, _) => StatusCode::TOO_MANY_REQUESTS,
            (
                Self::Unavailable { .. } | Self::StillLoading { .. } | Self::ShuttingDown | Self::Busy { .. },
                _,
            ) => StatusCode::SERVICE_UNAVAILABLE,
            (Self::Unauthorized(_), _) => StatusCode::UNAUTHORIZED,
            (Self::Forbidden(_), _) => StatusCode::FORBIDDEN,
            (Self::Unusable(_), _) => StatusCode::BAD_REQUEST,
            (Self::Conflict(_), _) => StatusCode::CONFLICT,
            (Self::NoAdapter(_) | Self::NotFound(_), _) => StatusCode::NOT_FOUND,
            (Self::Gone(_), _) => StatusCode::GONE,
            (Self::TimedOut { .. }, _) => StatusCode::GATEWAY_TIMEOUT,
            (Self::Failed(_), Dialect::OpenAi) => StatusCode::INTERNAL_SERVER_ERROR,
            (Self::Failed(_), Dialect::Tgi) => StatusCode::FAILED_DEPENDENCY,
        }
    }

    /// `error.type` in OpenAI's dialect, as vLLM spells them.
    pub(crate) fn openai_type(&self) -> &'static str {
        match self {
            Self::Invalid { .. } | Self::NotJson => "BadRequestError",
            Self::UnknownModel { .. }
            | Self::UnknownRoute { .. }
            | Self::NoAdapter(_)
            | Self::NotFound(_) => "NotFoundError",
            Self::MethodNotAllowed { .. } => "MethodNotAllowedError",
            Self::TooLarge { .. } => "PayloadTooLargeError",
            Self::LongUri { .. } => "UriTooLongError",
            Self::TooSlow => "RequestTimeoutError",
            Self::Overloaded { .. } => "RateLimitError",
            // OpenAI's term, by which clients tell an exhausted quota from a rate limit.
            Self::Quota { .. } => "insufficient_quota",
            Self::Unavailable { .. } | Self::StillLoading { .. } | Self::ShuttingDown | Self::Busy { .. } => {
                "ServiceUnavailableError"
            }
            Self::Unauthorized(_) => "AuthenticationError",
            Self::Forbidden(_) => "PermissionDeniedError",
            Self::Unusable(_) => "InvalidUserInput",
            Self::Conflict(_) => "ConflictError",
            Self::Gone(_) => "GoneError",
            Self::TimedOut { .. } => "TimeoutError",
            Self::Failed(_) => "InternalServerError",
        }
    }

    /// `error_type` in TGI's dialect. Clients know `validation`, `generation` and `overloaded`; for
    /// the rest they use the status.
    pub(crate) fn tgi_type(&self) -> &'static str {
        match self {
            Self::Invalid { .. }
            | Self::NotJson
            | Self::TooLarge { .. }
            | Self::LongUri { .. }
            | Self::TooSlow
            | Self::Unusable(_) => "validation",
            Self::UnknownModel { .. }
            | Self::UnknownRoute { .. }
            | Self::NoAdapter(_)
            | Self::NotFound(_) => "not_found",
            Self::Unauthorized(_) => "unauthorized",
            Self::Forbidden(_) => "forbidden",
            Self::Conflict(_) => "conflict",
            Self::Gone(_) => "gone",
            Self::TimedOut { .. } => "timeout",
            Self::MethodNotAllowed { .. } => "method_not_allowed",
            Self::Overloaded { .. }
            | Self::Quota { .. }
            | Self::Unavailable { .. }
            | Self::StillLoading { .. }
            | Self::ShuttingDown
            | Self::Busy { .. } => "overloaded",
            Self::Failed(_) => "generation",
        }
    }
}

/// Attaches the error to the response. `render_errors`, which knows the dialect, writes the body.
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status(Dialect::OpenAi).into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// `message`, cut to [`MESSAGE`] bytes.
fn shortened(mut message: String) -> String {
    if message.len() > MESSAGE {
        let cut = message.len() - message.floor_char_boundary(MESSAGE);
        message.truncate(message.floor_char_boundary(MESSAGE));
        message.push_str(&format!("… ({cut} bytes more)"));
    }
    message
}

/// Middleware: renders every [`ApiError`] of a handler in the dialect of the route.
pub(crate) async fn render_errors(request: Request, next: Next) -> Response {
    let dialect = routes::dialect(&request);
    let response = next.run(request).await;
    match response.extensions().get::<ApiError>() {
        Some(error) => {
            let mut rendered = dialect.error_response(error);
            let headers = response.headers().iter();
            let limits = headers.filter(|(name, _)| name.as_str().starts_with(RATE_LIMIT_PREFIX));
            let limits = limits.map(|(name, value)| (name.clone(), value.clone()));
            rendered.headers_mut().extend(limits);
            rendered.extensions_mut().insert(error.clone());
            rendered
        }
        None => response,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_dialect_has_its_own_shape_for_an_unknown_model() {
        let error = ApiError::unknown_model("x", ["base".to_owned(), "a".to_owned()]);
        let openai = Dialect::OpenAi.error_body(&error);
        assert_eq!(openai["error"]["type"], "NotFoundError");
        assert_eq!(openai["error"]["param"], "model");
        assert_eq!(openai["error"]["code"], 404);
        let message = openai["error"]["message"].as_str().unwrap_or_default();
        assert!(message.starts_with("The model `x` does not exist."), "{message}");
        assert!(message.contains("`base`, `a`"), "{message}");
        let tgi = Dialect::Tgi.error_body(&error);
        assert_eq!(tgi["error_type"], "not_found");
        assert_eq!(tgi["error"], message);
    }

    #[test]
    fn a_long_message_is_cut() {
        let error = ApiError::malformed("ä".repeat(MESSAGE));
        let body = Dialect::Tgi.error_body(&error);
        let message = body["error"].as_str().unwrap_or_default();
        assert!(message.ends_with("ä… (4096 bytes more)"), "{message}");
        assert!(message.len() < MESSAGE + 40);
    }

    #[test]
    fn a_full_queue_has_a_retry_after() {
        let response = Dialect::OpenAi.error_response(&ApiError::overloaded("full".into()));
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["retry-after"], "1");
    }

    #[test]
    fn invalid_input_has_the_status_of_its_dialect() {
        let error = ApiError::malformed("no");
        assert_eq!(error.status(Dialect::OpenAi), 400);
        assert_eq!(error.status(Dialect::Tgi), 422);
    }
}

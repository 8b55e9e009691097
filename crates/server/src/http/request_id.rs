//! Request ids: the same id is in the response, in the log lines and in the audit log.

use axum::{
    extract::Request,
    http::{HeaderName, HeaderValue},
    middleware::Next,
    response::Response,
};

use super::id::unique_id;

/// The header with the request id. Clients may send it, and every response has it.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id that is accepted from a client, in bytes.
const LONGEST: usize = 128;

/// Middleware: gives every request an id and repeats it in the response. An id that a client or
/// proxy sent is kept if it is short and consists of visible ASCII characters; others are replaced,
/// because they could forge log lines.
pub(crate) async fn assign(mut request: Request, next: Next) -> Response {
    let received = request.headers().get(&HEADER).filter(|id| is_acceptable(id));
    let id = received.cloned().or_else(|| unique_id("req_").parse().ok());
    let Some(id) = id else {
        return next.run(request).await;
    };
    request.headers_mut().insert(HEADER, id.clone());
    let mut response = next.run(request).await;
    response.headers_mut().insert(HEADER, id);
    response
}

fn is_acceptable(id: &HeaderValue) -> bool {
    let bytes = id.as_bytes();
    !bytes.is_empty() && bytes.len() <= LONGEST && bytes.iter().all(u8::is_ascii_graphic)
}

/// The id of `request`, or the empty string before [`assign`] ran.
pub(crate) fn of<T>(request: &axum::http::Request<T>) -> &str {
    let id = request.headers().get(&HEADER);
    id.and_then(|id| id.to_str().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_visible_characters_are_kept() {
        for (id, good) in [("a-1", true), ("", false), ("a b", false), ("ä", false)] {
            assert_eq!(
                is_acceptable(&HeaderValue::from_bytes(id.as_bytes()).unwrap()),
                good,
                "{id}"
            );
        }
        assert!(is_acceptable(
            &HeaderValue::from_str(&"x".repeat(LONGEST)).unwrap()
        ));
        assert!(!is_acceptable(
            &HeaderValue::from_str(&"x".repeat(LONGEST + 1)).unwrap()
        ));
    }
}

//! A name for each request, by which its answer, the log's lines and the log of changes are found
//! together.

use axum::{
    extract::Request,
    http::{HeaderName, HeaderValue},
    middleware::Next,
    response::Response,
};

use super::id::unique_id;

/// The header in which a request may bring its id, and in which every answer has it.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// The longest that a client may bring, in bytes.
const LONGEST: usize = 128;

/// Middleware: gives every request an id, and its answer the same. One that a client or proxy made
/// stays, if it is of visible ASCII characters and not too long; another is replaced, as it would
/// be a line of its own in somebody's log.
pub(crate) async fn name(mut request: Request, next: Next) -> Response {
    let brought = request.headers().get(&HEADER).filter(|id| is_good(id));
    let id = brought.cloned().or_else(|| unique_id("req_").parse().ok());
    let Some(id) = id else {
        return next.run(request).await;
    };
    request.headers_mut().insert(HEADER, id.clone());
    let mut response = next.run(request).await;
    response.headers_mut().insert(HEADER, id);
    response
}

fn is_good(id: &HeaderValue) -> bool {
    let bytes = id.as_bytes();
    !bytes.is_empty() && bytes.len() <= LONGEST && bytes.iter().all(u8::is_ascii_graphic)
}

/// The id that the request has.
pub(crate) fn of<T>(request: &axum::http::Request<T>) -> &str {
    let id = request.headers().get(&HEADER);
    id.and_then(|id| id.to_str().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_visible_characters_stay() {
        for (id, good) in [("a-1", true), ("", false), ("a b", false), ("ä", false)] {
            assert_eq!(
                is_good(&HeaderValue::from_bytes(id.as_bytes()).unwrap()),
                good,
                "{id}"
            );
        }
        assert!(is_good(&HeaderValue::from_str(&"x".repeat(LONGEST)).unwrap()));
        assert!(!is_good(
            &HeaderValue::from_str(&"x".repeat(LONGEST + 1)).unwrap()
        ));
    }
}

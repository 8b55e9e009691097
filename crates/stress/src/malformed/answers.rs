//! Parses the answers on a connection, and checks them.

use httparse::{EMPTY_HEADER, Response, Status, parse_chunk_size};
use serde_json::Value;

/// Headers that an answer may have.
const HEADERS: usize = 64;
/// Bytes of an answer that are shown.
const EXCERPT: usize = 300;
/// Server errors that are right: the server is full, or the request's time is over.
const UNAVAILABLE: [u16; 2] = [503, 504];

/// The result of parsing the beginning of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// A complete answer, which takes `length` bytes.
    Answer { status: u16, length: usize },
    /// The beginning of an answer.
    Incomplete,
    /// Not an answer, or one that is not allowed.
    Invalid(String),
}

/// How an answer's body ends.
enum Body {
    Length(usize),
    Chunks,
    /// At the end of the connection.
    Connection,
}

/// Parses the first answer in `bytes`. `is_all`: no more bytes follow. `is_head`: answers have no
/// body, even if their headers announce one.
pub(super) fn parse_answer(bytes: &[u8], is_all: bool, is_head: bool) -> Parsed {
    let mut headers = [EMPTY_HEADER; HEADERS];
    let mut response = Response::new(&mut headers);
    let begin = match response.parse(bytes) {
        Ok(Status::Complete(begin)) => begin,
        Ok(Status::Partial) => return Parsed::Incomplete,
        Err(error) => return Parsed::Invalid(format!("not HTTP ({error}): {}", excerpt(bytes))),
    };
    let status = response.code.unwrap_or_default();
    let header = |name: &str| {
        let mut headers = response.headers.iter();
        let found = headers.find(|header| header.name.eq_ignore_ascii_case(name));
        found.map(|header| String::from_utf8_lossy(header.value).to_lowercase())
    };
    let rest = &bytes[begin..];
    let body = match (header("transfer-encoding"), header("content-length")) {
        _ if is_head || matches!(status, 100..200 | 204 | 304) => Body::Length(0),
        (Some(coding), _) if coding == "chunked" => Body::Chunks,
        (None, Some(length)) => match length.parse() {
            Ok(length) => Body::Length(length),
            Err(_) => return Parsed::Invalid(format!("content-length: {length}")),
        },
        (None, None) => Body::Connection,
        (Some(coding), _) => return Parsed::Invalid(format!("transfer-encoding: {coding}")),
    };
    let (body, length) = match body {
        Body::Length(length) if length <= rest.len() => (rest[..length].to_vec(), length),
        Body::Connection if is_all => (rest.to_vec(), rest.len()),
        Body::Chunks => match chunks(rest) {
            Ok(Some(found)) => found,
            Ok(None) => return Parsed::Incomplete,
            Err(error) => return Parsed::Invalid(error),
        },
        Body::Length(_) | Body::Connection => return Parsed::Incomplete,
    };
    if status >= 500 && !UNAVAILABLE.contains(&status) {
        return Parsed::Invalid(format!("{status}: {}", excerpt(&body)));
    }
    let is_json = header("content-type").is_some_and(|kind| kind.starts_with("application/json"));
    if is_json
        && !is_head
        && !body.is_empty()
        && let Err(error) = serde_json::from_slice::<Value>(&body)
    {
        return Parsed::Invalid(format!(
            "{status} with invalid JSON ({error}): {}",
            excerpt(&body)
        ));
    }
    Parsed::Answer {
        status,
        length: begin + length,
    }
}

/// A chunked body, and how many bytes it took; `None` if its end has not arrived.
fn chunks(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, String> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let (begin, size) = match parse_chunk_size(&bytes[at..]) {
            Ok(Status::Complete((begin, size))) => (at + begin, size as usize),
            Ok(Status::Partial) => return Ok(None),
            Err(_) => return Err(format!("a chunk without a size: {}", excerpt(&bytes[at..]))),
        };
        let Some(chunk) = bytes.get(begin..begin.saturating_add(size).saturating_add(2)) else {
            return Ok(None);
        };
        if !chunk.ends_with(b"\r\n") {
            return Err(format!("a chunk without its end: {}", excerpt(&bytes[at..])));
        }
        body.extend_from_slice(&chunk[..size]);
        at = begin + size + 2;
        if size == 0 {
            return Ok(Some((body, at)));
        }
    }
}

/// The beginning of some bytes as readable text.
pub(super) fn excerpt(bytes: &[u8]) -> String {
    let begin = String::from_utf8_lossy(&bytes[..bytes.len().min(EXCERPT)]);
    let more = if bytes.len() > EXCERPT { "…" } else { "" };
    format!("{}{more}", begin.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, text: &str) -> Parsed {
        Parsed::Answer {
            status,
            length: text.len(),
        }
    }

    #[test]
    fn an_answer_ends_by_its_length_its_chunks_or_the_connection() {
        let length = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nab";
        assert_eq!(
            parse_answer(format!("{length}HTTP/1.1").as_bytes(), false, false),
            answer(200, length)
        );
        assert_eq!(
            parse_answer(&length.as_bytes()[..length.len() - 1], true, false),
            Parsed::Incomplete
        );
        let chunks = "HTTP/1.1 404 Not Parsed\r\ntransfer-encoding: chunked\r\n\r\n2;x\r\nab\r\n0\r\n\r\n";
        assert_eq!(parse_answer(chunks.as_bytes(), false, false), answer(404, chunks));
        for end in 1..chunks.len() {
            assert_eq!(
                parse_answer(&chunks.as_bytes()[..end], false, false),
                Parsed::Incomplete,
                "{end}"
            );
        }
        let rest = "HTTP/1.0 400 Bad Request\r\n\r\nabc";
        assert_eq!(parse_answer(rest.as_bytes(), false, false), Parsed::Incomplete);
        assert_eq!(parse_answer(rest.as_bytes(), true, false), answer(400, rest));
    }

    #[test]
    fn head_and_interim_answers_have_no_body() {
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n";
        assert_eq!(parse_answer(head.as_bytes(), false, true), answer(200, head));
        let interim = "HTTP/1.1 100 Continue\r\n\r\n";
        assert_eq!(
            parse_answer(interim.as_bytes(), false, false),
            answer(100, interim)
        );
    }

    #[test]
    fn server_errors_and_broken_answers_are_invalid() {
        for wrong in [
            "SSH-2.0-x\r\n",
            "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 501 Not Implemented\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1\r\n\r\n{",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nx\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc\r\n",
        ] {
            assert!(
                matches!(parse_answer(wrong.as_bytes(), false, false), Parsed::Invalid(_)),
                "{wrong}"
            );
        }
        let busy = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(parse_answer(busy.as_bytes(), false, false), answer(503, busy));
    }
}

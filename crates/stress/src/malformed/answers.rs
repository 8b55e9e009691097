//! Finding answers in what came over a connection, and what is wrong with them.

use httparse::{EMPTY_HEADER, Response, Status, parse_chunk_size};
use serde_json::Value;

/// Headers that an answer may have.
const HEADERS: usize = 64;
/// How much of an answer is shown.
const SHOWN: usize = 300;
/// What a server may answer although nothing is wrong with the request: there is no room, or no
/// time.
const UNAVAILABLE: [u16; 2] = [503, 504];

/// What stands at the begin of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// An answer of so many bytes.
    Whole { status: u16, length: usize },
    /// The begin of one.
    Part,
    /// What is no answer, or one that must not be.
    Wrong(String),
}

/// How an answer's body ends.
enum Body {
    Length(usize),
    Chunks,
    /// With the connection.
    IdleState,
}

/// Looks at `bytes`; `is_all` if nothing will follow, `is_head` if bodies are only announced.
pub(super) fn find(bytes: &[u8], is_all: bool, is_head: bool) -> Found {
    let mut headers = [EMPTY_HEADER; HEADERS];
    let mut response = Response::new(&mut headers);
    let begin = match response.parse(bytes) {
        Ok(Status::Complete(begin)) => begin,
        Ok(Status::Partial) => return Found::Part,
        Err(error) => return Found::Wrong(format!("no HTTP ({error}): {}", shown(bytes))),
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
            Err(_) => return Found::Wrong(format!("a length of {length}")),
        },
        (None, None) => Body::IdleState,
        (Some(coding), _) => return Found::Wrong(format!("a transfer-encoding of {coding}")),
    };
    let (body, length) = match body {
        Body::Length(length) if length <= rest.len() => (rest[..length].to_vec(), length),
        Body::IdleState if is_all => (rest.to_vec(), rest.len()),
        Body::Chunks => match chunks(rest) {
            Ok(Some(found)) => found,
            Ok(None) => return Found::Part,
            Err(error) => return Found::Wrong(error),
        },
        Body::Length(_) | Body::IdleState => return Found::Part,
    };
    if status >= 500 && !UNAVAILABLE.contains(&status) {
        return Found::Wrong(format!("{status}: {}", shown(&body)));
    }
    let is_json = header("content-type").is_some_and(|kind| kind.starts_with("application/json"));
    if is_json
        && !is_head
        && !body.is_empty()
        && let Err(error) = serde_json::from_slice::<Value>(&body)
    {
        return Found::Wrong(format!(
            "{status} with what is no JSON ({error}): {}",
            shown(&body)
        ));
    }
    Found::Whole {
        status,
        length: begin + length,
    }
}

/// A body in chunks, and how many bytes it took; `None` if its end has not come.
fn chunks(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, String> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let (begin, size) = match parse_chunk_size(&bytes[at..]) {
            Ok(Status::Complete((begin, size))) => (at + begin, size as usize),
            Ok(Status::Partial) => return Ok(None),
            Err(_) => return Err(format!("a chunk of no size: {}", shown(&bytes[at..]))),
        };
        let Some(chunk) = bytes.get(begin..begin.saturating_add(size).saturating_add(2)) else {
            return Ok(None);
        };
        if !chunk.ends_with(b"\r\n") {
            return Err(format!("a chunk without its end: {}", shown(&bytes[at..])));
        }
        body.extend_from_slice(&chunk[..size]);
        at = begin + size + 2;
        if size == 0 {
            return Ok(Some((body, at)));
        }
    }
}

/// The begin of some bytes, for people.
pub(super) fn shown(bytes: &[u8]) -> String {
    let begin = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN)]);
    let more = if bytes.len() > SHOWN { "…" } else { "" };
    format!("{}{more}", begin.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(status: u16, text: &str) -> Found {
        Found::Whole {
            status,
            length: text.len(),
        }
    }

    #[test]
    fn answers_end_by_their_length_their_chunks_or_the_connection() {
        let length = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nab";
        assert_eq!(
            find(format!("{length}HTTP/1.1").as_bytes(), false, false),
            whole(200, length)
        );
        assert_eq!(
            find(&length.as_bytes()[..length.len() - 1], true, false),
            Found::Part
        );
        let chunks = "HTTP/1.1 404 Not Found\r\ntransfer-encoding: chunked\r\n\r\n2;x\r\nab\r\n0\r\n\r\n";
        assert_eq!(find(chunks.as_bytes(), false, false), whole(404, chunks));
        for end in 1..chunks.len() {
            assert_eq!(
                find(&chunks.as_bytes()[..end], false, false),
                Found::Part,
                "{end}"
            );
        }
        let rest = "HTTP/1.0 400 Bad Request\r\n\r\nabc";
        assert_eq!(find(rest.as_bytes(), false, false), Found::Part);
        assert_eq!(find(rest.as_bytes(), true, false), whole(400, rest));
    }

    #[test]
    fn heads_and_interim_answers_have_no_body() {
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n";
        assert_eq!(find(head.as_bytes(), false, true), whole(200, head));
        let interim = "HTTP/1.1 100 Continue\r\n\r\n";
        assert_eq!(find(interim.as_bytes(), false, false), whole(100, interim));
    }

    #[test]
    fn what_must_not_be_is_wrong() {
        for wrong in [
            "SSH-2.0-x\r\n",
            "HTTP/1.1 500 Internal Client Error\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 501 Not Implemented\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1\r\n\r\n{",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nx\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc\r\n",
        ] {
            assert!(
                matches!(find(wrong.as_bytes(), false, false), Found::Wrong(_)),
                "{wrong}"
            );
        }
        let busy = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(find(busy.as_bytes(), false, false), whole(503, busy));
    }
}

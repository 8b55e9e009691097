//! What a client does on one connection, and the answers that are expected.

use std::time::Duration;

use super::routes::Route;

/// One action of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Sends bytes.
    Send(Vec<u8>),
    /// Sends bytes one by one, with this time between two.
    Drip(Vec<u8>, Duration),
    /// Waits.
    Pause(Duration),
    /// Shuts down the sending side of the connection.
    HalfClose,
    /// Resets the connection. Bytes that were sent before may be lost.
    Reset,
}

/// The answers that are expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// An answer: the end of the request is unambiguous.
    Answer,
    /// At least so many answers. After them an answer or the end of the connection, since the end
    /// of the request is ambiguous.
    AtLeast(usize),
    /// The end of the connection within the server's time limits, with an answer or without.
    Disconnect,
    /// Nothing: the client does not read.
    Nothing,
}

/// One connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Case {
    pub steps: Vec<Step>,
    pub expected: Expected,
}

impl Case {
    /// A complete request, which has to be answered.
    pub(super) fn answered(bytes: Vec<u8>) -> Self {
        Self {
            steps: vec![Step::Send(bytes)],
            expected: Expected::Answer,
        }
    }

    /// Bytes that may not be a request, or have no unambiguous end.
    pub(super) fn ambiguous(bytes: Vec<u8>) -> Self {
        Self {
            steps: vec![Step::Send(bytes)],
            expected: Expected::AtLeast(0),
        }
    }

    /// Whether an answer may lack the body that its headers announce, as answers to HEAD do.
    pub(super) fn may_be_head(&self) -> bool {
        self.steps.iter().any(|step| match step {
            Step::Send(bytes) | Step::Drip(bytes, _) => bytes.windows(4).any(|part| part == b"HEAD"),
            _ => false,
        })
    }

    /// Whether it keeps its connection open for long. The number of such cases at once is limited
    /// separately.
    pub(super) fn is_slow(&self) -> bool {
        self.expected == Expected::Disconnect
            || self
                .steps
                .iter()
                .any(|step| matches!(step, Step::Pause(time) if *time > Duration::from_secs(1)))
    }
}

/// Facts about the server from which requests are made.
#[derive(Clone, Debug)]
pub(super) struct ServerFacts {
    /// Its routes.
    pub routes: Vec<Route>,
    /// The secret of an admin's API key.
    pub key: String,
    /// The names of the base and of an adapter. Requests may use both; no request that changes
    /// adapters names the adapter.
    pub models: [String; 2],
    /// The folder of an adapter that the server allows to add.
    pub source: String,
    /// The id of an input file of batches.
    pub file: String,
}

/// Headers in addition to those that every request has.
pub(super) type Headers<'a> = &'a [(&'a str, &'a str)];

impl ServerFacts {
    /// The request line and the headers, without the empty line after them. The request asks to
    /// close its connection.
    pub(super) fn head(&self, method: &str, target: &str, more: Headers<'_>) -> Vec<u8> {
        let mut head = format!(
            "{method} {target} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\nconnection: close\r\n",
            self.key
        );
        for (name, value) in more {
            head += &format!("{name}: {value}\r\n");
        }
        head.into_bytes()
    }

    /// A complete request with the right content length.
    pub(super) fn request(&self, method: &str, target: &str, more: Headers<'_>, body: &[u8]) -> Vec<u8> {
        let mut request = self.head(method, target, more);
        request.extend(format!("content-length: {}\r\n\r\n", body.len()).bytes());
        request.extend(body);
        request
    }

    /// A complete request with a JSON body.
    pub(super) fn json(&self, method: &str, target: &str, body: &[u8]) -> Vec<u8> {
        self.request(method, target, &[("content-type", "application/json")], body)
    }
}

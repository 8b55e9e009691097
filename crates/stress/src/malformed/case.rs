//! What is sent over one connection, and what is due for it.

use std::time::Duration;

use super::routes::Route;

/// One thing that a client does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Send(Vec<u8>),
    /// A byte every so often.
    Drip(Vec<u8>, Duration),
    Pause(Duration),
    /// Says that it sends no more.
    HalfClose,
    /// Is gone, without a word: what it sent may be lost, too.
    Reset,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// An answer: where the request ends is beyond doubt.
    Answer,
    /// So many answers; apart from them an answer or the end of the connection, since nobody can
    /// say where the request ends.
    Either(usize),
    /// The end of the connection within the server's limits, with an answer or without.
    CutOff,
    /// Nothing that the client would see.
    Nothing,
}

/// One connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Case {
    pub steps: Vec<Step>,
    pub due: Due,
}

impl Case {
    /// A whole request that has to be answered.
    pub(super) fn answered(bytes: Vec<u8>) -> Self {
        Self {
            steps: vec![Step::Send(bytes)],
            due: Due::Answer,
        }
    }

    /// Bytes that may not be a request.
    pub(super) fn either(bytes: Vec<u8>) -> Self {
        Self {
            steps: vec![Step::Send(bytes)],
            due: Due::Either(0),
        }
    }

    /// Whether an answer may be without the body that it announces.
    pub(super) fn asks_for_heads(&self) -> bool {
        self.steps.iter().any(|step| match step {
            Step::Send(bytes) | Step::Drip(bytes, _) => bytes.windows(4).any(|part| part == b"HEAD"),
            _ => false,
        })
    }

    /// Whether it holds its connection for long, so that not too many of its kind may run at once.
    pub(super) fn is_slow(&self) -> bool {
        self.due == Due::CutOff
            || self
                .steps
                .iter()
                .any(|step| matches!(step, Step::Pause(time) if *time > Duration::from_secs(1)))
    }
}

/// What cases are made of: a server, and how to ask it.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub routes: Vec<Route>,
    /// The secret of a key that may do everything.
    pub key: String,
    /// The names of the base and of an adapter; requests may use these, and nothing that changes
    /// adapters names the latter.
    pub models: [String; 2],
    /// The folder of an adapter that may be added.
    pub source: String,
    /// A file of lines for batches.
    pub file: String,
}

/// A request's headers beyond those that every request has.
pub(super) type Headers<'a> = &'a [(&'a str, &'a str)];

impl Known {
    /// A request's line and headers up to the empty line, for which `more` may be appended. It
    /// closes its connection.
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

    /// A whole request whose length is right.
    pub(super) fn request(&self, method: &str, target: &str, more: Headers<'_>, body: &[u8]) -> Vec<u8> {
        let mut request = self.head(method, target, more);
        request.extend(format!("content-length: {}\r\n\r\n", body.len()).bytes());
        request.extend(body);
        request
    }

    /// The same, of JSON.
    pub(super) fn json(&self, method: &str, target: &str, body: &[u8]) -> Vec<u8> {
        self.request(method, target, &[("content-type", "application/json")], body)
    }
}

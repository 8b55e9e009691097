//! What a client does on one connection, and the answers that are expected.

use std::time::Duration;

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

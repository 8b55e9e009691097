//! The outcome of one request.

use std::{error::Error, fmt, time::Duration};

use serde::Serialize;
use serde_json::Value;

/// Characters of a server's error message that are kept.
const MESSAGE_CHARACTERS: usize = 160;

/// One request and its answer. Times count from the beginning of the run.
#[derive(Debug)]
pub struct Record {
    /// The adapter's index; `None` is the base.
    pub adapter: Option<usize>,
    /// When it was sent; in an open loop, when it was due.
    pub sent: Duration,
    /// When its first token arrived.
    pub first: Option<Duration>,
    /// When its last token arrived.
    pub last: Option<Duration>,
    /// When it ended.
    pub end: Duration,
    /// Times between neighbouring tokens, in seconds.
    pub gaps: Vec<f64>,
    /// Tokens of the prompt, as the server counts them.
    pub prompt_tokens: Option<usize>,
    /// Tokens of the answer, as the server counts them; if it does not say, the events with text.
    pub output_tokens: usize,
    /// Tokens that were requested.
    pub wanted: usize,
    /// Why there is no complete answer.
    pub failure: Option<Failure>,
}

impl Record {
    /// Seconds to the first token; to the end if there was none.
    #[must_use]
    pub fn ttft(&self) -> f64 {
        (self.first.unwrap_or(self.end).saturating_sub(self.sent)).as_secs_f64()
    }

    /// Seconds to the end of the answer.
    #[must_use]
    pub fn end_to_end(&self) -> f64 {
        self.end.saturating_sub(self.sent).as_secs_f64()
    }

    /// Seconds per token after the first; `None` if there is only one.
    #[must_use]
    pub fn tpot(&self) -> Option<f64> {
        let (first, last) = (self.first?, self.last?);
        let tokens = self.output_tokens.checked_sub(1).filter(|tokens| *tokens > 0)?;
        Some((last - first).as_secs_f64() / tokens as f64)
    }
}

/// Why a request has no complete answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// There was no connection.
    Connect(String),
    /// The connection broke, or the answer ended before it was complete.
    Broken(String),
    /// An HTTP status other than success, and the server's message.
    Status(u16, String),
    /// An error event in the middle of the stream.
    InStream(String),
    /// Nothing arrived for too long.
    TimedOut,
}

impl Failure {
    /// A connection that could not be made.
    #[must_use]
    pub fn connect(error: &std::io::Error) -> Self {
        Self::Connect(error.to_string())
    }

    /// A connection that broke, with the error's cause.
    #[must_use]
    pub fn broken(error: impl Error) -> Self {
        let cause = error.source().map(|cause| format!(": {cause}"));
        Self::Broken(format!("{error}{}", cause.unwrap_or_default()))
    }

    /// A status other than success, with the message in the answer's body.
    #[must_use]
    pub fn status(status: u16, body: &[u8]) -> Self {
        let text = String::from_utf8_lossy(body);
        let message =
            serde_json::from_str(&text).map_or_else(|_| text.trim().to_owned(), |json| message_of(&json));
        Self::Status(status, truncated(&message))
    }

    /// An error event, with its message.
    #[must_use]
    pub fn in_stream(error: &Value) -> Self {
        Self::InStream(truncated(&message_of(error)))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(why) => write!(f, "no connection: {why}"),
            Self::Broken(why) => write!(f, "the answer broke off: {why}"),
            Self::Status(status, message) => write!(f, "HTTP {status}: {message}"),
            Self::InStream(message) => write!(f, "an error in the answer: {message}"),
            Self::TimedOut => f.write_str("timed out"),
        }
    }
}

impl Serialize for Failure {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The message of an error body, in any of the dialects.
fn message_of(error: &Value) -> String {
    let inner = error.get("error").unwrap_or(error);
    let message = inner.get("message").unwrap_or(inner);
    message
        .as_str()
        .map_or_else(|| message.to_string(), str::to_owned)
}

fn truncated(message: &str) -> String {
    match message.char_indices().nth(MESSAGE_CHARACTERS) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_message_is_found_in_every_dialect() {
        for body in [
            r#"{"error":{"message":"no such model","type":"x"}}"#,
            r#"{"error":"no such model","error_type":"x"}"#,
            "no such model\n",
        ] {
            assert_eq!(
                Failure::status(404, body.as_bytes()).to_string(),
                "HTTP 404: no such model"
            );
        }
        let long = Failure::status(500, "é".repeat(1000).as_bytes()).to_string();
        assert!(long.ends_with('…') && long.chars().count() < 200);
    }

    #[test]
    fn times_are_counted_from_when_a_request_was_sent() {
        let ms = Duration::from_millis;
        let record = Record {
            adapter: None,
            sent: ms(10),
            first: Some(ms(30)),
            last: Some(ms(90)),
            end: ms(100),
            gaps: Vec::new(),
            prompt_tokens: None,
            output_tokens: 4,
            wanted: 4,
            failure: None,
        };
        assert_eq!(record.ttft(), 0.02);
        assert_eq!(record.end_to_end(), 0.09);
        assert_eq!(record.tpot(), Some(0.02));
        assert_eq!(
            Record {
                output_tokens: 1,
                ..record
            }
            .tpot(),
            None
        );
    }
}

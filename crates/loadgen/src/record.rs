//! What came of one request.

use std::{error::Error, fmt, time::Duration};

use serde::Serialize;
use serde_json::Value;

/// The most characters of a server's own message that are kept.
const MESSAGE: usize = 160;

/// One request and its answer. Times are from the beginning of the measured run.
#[derive(Debug)]
pub(in crate::commands::bench) struct Record {
    /// The adapter's index; `None` is the base.
    pub adapter: Option<usize>,
    /// When it was sent; in an open loop, when it was due.
    pub sent: Duration,
    /// When its first token came.
    pub first: Option<Duration>,
    /// When its last token came.
    pub last: Option<Duration>,
    /// When it ended.
    pub end: Duration,
    /// Between tokens, in seconds.
    pub gaps: Vec<f64>,
    /// Tokens of the prompt, as the server counts them.
    pub prompt_tokens: Option<usize>,
    /// Tokens of the answer, as the server counts them; without its word, the parts that came.
    pub output_tokens: usize,
    /// Tokens that were asked for.
    pub wanted: usize,
    pub failure: Option<Failure>,
}

impl Record {
    /// Seconds to the first token; to the end if nothing came before.
    pub(in crate::commands::bench) fn ttft(&self) -> f64 {
        (self.first.unwrap_or(self.end).saturating_sub(self.sent)).as_secs_f64()
    }

    /// Seconds to the end.
    pub(in crate::commands::bench) fn end_to_end(&self) -> f64 {
        self.end.saturating_sub(self.sent).as_secs_f64()
    }

    /// Seconds per token after the first.
    pub(in crate::commands::bench) fn tpot(&self) -> Option<f64> {
        let (first, last) = (self.first?, self.last?);
        let tokens = self.output_tokens.checked_sub(1).filter(|tokens| *tokens > 0)?;
        Some((last - first).as_secs_f64() / tokens as f64)
    }
}

/// Why a request has no whole answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::commands::bench) enum Failure {
    /// No connection.
    Connect(String),
    /// The connection broke, or the answer ended before it was complete.
    Broken(String),
    /// An HTTP status that is no success, and the server's message.
    Status(u16, String),
    /// An error in the middle of the answer.
    Midway(String),
    /// Nothing came for too long.
    TimedOut,
}

impl Failure {
    pub(in crate::commands::bench) fn connect(error: &std::io::Error) -> Self {
        Self::Connect(error.to_string())
    }

    pub(in crate::commands::bench) fn broken(error: impl Error) -> Self {
        let cause = error.source().map(|cause| format!(": {cause}"));
        Self::Broken(format!("{error}{}", cause.unwrap_or_default()))
    }

    pub(in crate::commands::bench) fn status(status: u16, body: &[u8]) -> Self {
        let text = String::from_utf8_lossy(body);
        let message = serde_json::from_str(&text).map_or_else(|_| text.trim().to_owned(), |json| said(&json));
        Self::Status(status, short(&message))
    }

    pub(in crate::commands::bench) fn midway(error: &Value) -> Self {
        Self::Midway(short(&said(error)))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(why) => write!(f, "no connection: {why}"),
            Self::Broken(why) => write!(f, "the answer broke off: {why}"),
            Self::Status(status, message) => write!(f, "HTTP {status}: {message}"),
            Self::Midway(message) => write!(f, "an error in the answer: {message}"),
            Self::TimedOut => f.write_str("timed out"),
        }
    }
}

impl Serialize for Failure {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The message in an error body, whichever way its server puts it.
fn said(error: &Value) -> String {
    let inner = error.get("error").unwrap_or(error);
    let message = inner.get("message").unwrap_or(inner);
    message
        .as_str()
        .map_or_else(|| message.to_string(), str::to_owned)
}

fn short(message: &str) -> String {
    match message.char_indices().nth(MESSAGE) {
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

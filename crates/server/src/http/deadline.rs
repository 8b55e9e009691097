//! The deadline of a request, from its headers to the last token of the answer.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName};
use tokio::time::Instant;

use crate::http::error::ApiError;

/// The request header that sets the time limit, in seconds.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-request-timeout");
/// Accepted values of [`HEADER`], in seconds: a millisecond to a week.
pub(crate) const RANGE: std::ops::RangeInclusive<f64> = 0.001..=604_800.0;

/// When a request ends, finished or not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    /// The time limit that led to `at`.
    allowed: Duration,
}

impl Deadline {
    /// The deadline that follows from the shorter of `most`, the server's limit, and the limit in
    /// the request's header. `None` if neither sets one.
    pub(crate) fn of(headers: &HeaderMap, most: Option<Duration>) -> Result<Option<Self>, ApiError> {
        let requested = headers.get(&HEADER).map(|value| {
            let text = value.to_str().unwrap_or_default().trim();
            let seconds = text.parse().ok();
            let seconds = seconds.filter(|seconds| RANGE.contains(seconds));
            seconds.map(Duration::from_secs_f64).ok_or_else(|| {
                let message = format!(
                    "the header `{HEADER}` is {:?}, but must be a number of seconds, {} to {}",
                    String::from_utf8_lossy(value.as_bytes()),
                    RANGE.start(),
                    RANGE.end(),
                );
                ApiError::invalid(HEADER.as_str(), message)
            })
        });
        let allowed = requested.transpose()?.into_iter().chain(most).min();
        Ok(allowed.map(|allowed| Self {
            at: Instant::now() + allowed,
            allowed,
        }))
    }

    /// The error for a request that reached its deadline.
    pub(crate) fn passed(&self) -> ApiError {
        ApiError::TimedOut {
            allowed: self.allowed,
        }
    }
}

/// Marks a request of a batch: no client waits for the answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Background;

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(header: Option<&str>, most: Option<u64>) -> Result<Option<Duration>, ApiError> {
        let mut headers = HeaderMap::new();
        if let Some(header) = header {
            headers.insert(HEADER, header.parse().unwrap());
        }
        let deadline = Deadline::of(&headers, most.map(Duration::from_secs))?;
        Ok(deadline.map(|deadline| deadline.allowed))
    }

    #[test]
    fn the_earlier_of_two_counts() {
        let seconds = |seconds| Ok(Some(Duration::from_secs_f64(seconds)));
        assert_eq!(allowed(None, None), Ok(None));
        assert_eq!(allowed(None, Some(3)), seconds(3.0));
        assert_eq!(allowed(Some("0.5"), None), seconds(0.5));
        assert_eq!(allowed(Some("0.5"), Some(3)), seconds(0.5));
        assert_eq!(allowed(Some("10"), Some(3)), seconds(3.0));
    }

    #[test]
    fn what_is_no_time_is_refused_with_its_value() {
        for wrong in ["", "soon", "0", "-1", "NaN", "inf", "1e300", "604801", "5e-324"] {
            let error = allowed(Some(wrong), Some(3)).unwrap_err();
            assert_eq!(error.field(), Some("x-request-timeout"));
            assert!(error.to_string().contains(&format!("{wrong:?}")), "{error}");
        }
    }
}

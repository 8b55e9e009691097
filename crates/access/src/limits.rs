//! How much a key's requests may take.

use std::num::{NonZeroU32, NonZeroU64};

use serde::{Deserialize, Serialize};

/// The bounds of a key; `None` is no bound. Who serves its requests enforces them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeyLimits {
    /// Requests that are accepted in a minute. So many may come at once after a quiet minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<NonZeroU32>,
    /// Tokens in a minute, of prompts and answers together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<NonZeroU32>,
    /// Requests that wait or run at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrent_requests: Option<NonZeroU32>,
    /// Tokens in a month of the calendar, in UTC, of prompts and answers together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_month: Option<NonZeroU64>,
}

/// What is to be changed of a key's bounds: `None` leaves one as it is, `Some(None)` lifts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitChanges {
    /// Requests in a minute.
    pub requests_per_minute: Option<Option<NonZeroU32>>,
    /// Tokens in a minute.
    pub tokens_per_minute: Option<Option<NonZeroU32>>,
    /// Requests at once.
    pub concurrent_requests: Option<Option<NonZeroU32>>,
    /// Tokens in a month.
    pub tokens_per_month: Option<Option<NonZeroU64>>,
}

impl LimitChanges {
    /// The bounds after the change.
    pub fn of(&self, before: KeyLimits) -> KeyLimits {
        KeyLimits {
            requests_per_minute: self.requests_per_minute.unwrap_or(before.requests_per_minute),
            tokens_per_minute: self.tokens_per_minute.unwrap_or(before.tokens_per_minute),
            concurrent_requests: self.concurrent_requests.unwrap_or(before.concurrent_requests),
            tokens_per_month: self.tokens_per_month.unwrap_or(before.tokens_per_month),
        }
    }
}

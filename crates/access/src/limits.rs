//! Rate limits and quotas of a key.

use std::num::{NonZeroU32, NonZeroU64};

use serde::{Deserialize, Serialize};

/// The limits of a key; `None` is no limit. The server enforces them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeyLimits {
    /// Requests per minute. After a quiet minute that many may arrive at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<NonZeroU32>,
    /// Tokens per minute, of prompts and answers together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<NonZeroU32>,
    /// Requests that wait or run at the same time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrent_requests: Option<NonZeroU32>,
    /// Tokens per calendar month in UTC, of prompts and answers together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_month: Option<NonZeroU64>,
}

/// Changes of a key's limits: `None` leaves a limit as it is, `Some(None)` removes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitChanges {
    /// Requests per minute.
    pub requests_per_minute: Option<Option<NonZeroU32>>,
    /// Tokens per minute.
    pub tokens_per_minute: Option<Option<NonZeroU32>>,
    /// Requests at the same time.
    pub concurrent_requests: Option<Option<NonZeroU32>>,
    /// Tokens per month.
    pub tokens_per_month: Option<Option<NonZeroU64>>,
}

impl LimitChanges {
    /// The limits after the change.
    pub fn apply_to(&self, before: KeyLimits) -> KeyLimits {
        KeyLimits {
            requests_per_minute: self.requests_per_minute.unwrap_or(before.requests_per_minute),
            tokens_per_minute: self.tokens_per_minute.unwrap_or(before.tokens_per_minute),
            concurrent_requests: self.concurrent_requests.unwrap_or(before.concurrent_requests),
            tokens_per_month: self.tokens_per_month.unwrap_or(before.tokens_per_month),
        }
    }
}

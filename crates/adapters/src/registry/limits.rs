//! Limits of a name's requests.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

/// The share and the limits of a name's requests. The registry stores them; the server and the
/// engine enforce them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdapterLimits {
    /// Share of the capacity when requests compete: twice the weight yields twice the tokens.
    pub weight: f32,
    /// Requests that are accepted per minute; `None` means no limit. After an idle minute, as many
    /// may arrive at once.
    pub requests_per_minute: Option<NonZeroU32>,
    /// Tokens per minute, of prompts and answers together.
    pub tokens_per_minute: Option<NonZeroU32>,
    /// Requests that may wait or run concurrently.
    pub concurrent_requests: Option<NonZeroU32>,
    /// Whether tenants share the prefix cache. A tenant that measures response times can then find
    /// out which prompts others sent.
    pub shared_prefixes: bool,
}

impl Default for AdapterLimits {
    /// Equal share, no limits, no shared prefix cache.
    fn default() -> Self {
        Self {
            weight: 1.0,
            requests_per_minute: None,
            tokens_per_minute: None,
            concurrent_requests: None,
            shared_prefixes: false,
        }
    }
}

impl AdapterLimits {
    /// Whether any limit is set.
    pub fn is_bounded(&self) -> bool {
        self.requests_per_minute.is_some()
            || self.tokens_per_minute.is_some()
            || self.concurrent_requests.is_some()
    }
}

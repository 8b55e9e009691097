//! What a name's requests may take of the machine.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

/// The share and the bounds of a name, and what its requests share. Who serves its requests
/// enforces them; the registry keeps them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdapterLimits {
    /// How much it gets where there is not enough for all: twice the weight is twice the tokens.
    pub weight: f32,
    /// Requests that are accepted in a minute; `None` is any number. So many may come at once after
    /// a quiet minute.
    pub requests_per_minute: Option<NonZeroU32>,
    /// Tokens in a minute, of prompts and answers together.
    pub tokens_per_minute: Option<NonZeroU32>,
    /// Requests that wait or run at once.
    pub concurrent_requests: Option<NonZeroU32>,
    /// Whether tenants use each other's computed prefixes. Who can measure times learns by it which
    /// prompts others sent.
    pub shared_prefixes: bool,
}

impl Default for AdapterLimits {
    /// An equal share, no bounds, and nothing shared.
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
    /// Whether anything is bounded.
    pub fn is_bounded(&self) -> bool {
        self.requests_per_minute.is_some()
            || self.tokens_per_minute.is_some()
            || self.concurrent_requests.is_some()
    }
}

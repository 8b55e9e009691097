//! What both kinds of completion have in common on the wire.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use multigraft_engine::{Finish, FinishReason};
use serde::Serialize;

use crate::admission::Served;

/// Tokens that an answer took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Usage {
    pub prompt_tokens: usize,
    pub completion_tokens: usize,
    pub total_tokens: usize,
    pub prompt_tokens_details: PromptTokensDetails,
}

/// What became of the prompts' tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct PromptTokensDetails {
    /// Those that had been computed for an earlier request.
    pub cached_tokens: usize,
}

impl Usage {
    /// Adds a finished choice; `first` if it is the first of its prompt, which is counted once.
    pub(super) fn add(&mut self, finish: &Finish, first: bool) {
        if first {
            self.prompt_tokens += finish.prompt_tokens;
            self.prompt_tokens_details.cached_tokens += finish.cached_tokens;
        }
        self.completion_tokens += finish.completion_tokens;
        self.total_tokens = self.prompt_tokens + self.completion_tokens;
    }
}

/// The fields at the top of every answer and chunk.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Head {
    pub id: String,
    pub object: &'static str,
    pub created: u64,
    pub model: String,
    pub system_fingerprint: String,
}

impl Head {
    pub(super) fn new(prefix: &str, object: &'static str, served: &Served) -> Self {
        Self {
            id: unique_id(&format!("{prefix}-")),
            object,
            created: seconds(SystemTime::now()),
            model: served.name.clone(),
            system_fingerprint: served.fingerprint(),
        }
    }
}

/// An answer or a chunk of one: what it begins with, its choices, its usage.
#[derive(Debug, Serialize)]
pub(super) struct Body<'a, C> {
    #[serde(flatten)]
    pub head: &'a Head,
    pub choices: Vec<C>,
    /// In a stream with usage every chunk says null, and an extra last one the figures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Option<Usage>>,
}

pub(super) fn finish_reason(reason: &FinishReason) -> &'static str {
    match reason {
        FinishReason::Length => "length",
        FinishReason::Eos(_)
        | FinishReason::StopToken(_)
        | FinishReason::StopString(_)
        | FinishReason::Complete => "stop",
    }
}

/// Seconds since 1970.
pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// An id that is unique over restarts: when, and the how-manieth.
pub(crate) fn unique_id(prefix: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let nanoseconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos());
    format!(
        "{prefix}{nanoseconds:x}{:04x}",
        COUNT.fetch_add(1, Ordering::Relaxed)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ() {
        assert_ne!(unique_id("cmpl-"), unique_id("cmpl-"));
    }
}

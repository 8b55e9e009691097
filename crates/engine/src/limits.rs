//! Limits of the engine and of its requests.

use std::ops::RangeInclusive;

use multigraft_model::Limits;

/// The longest stop string, in bytes. The thread that serves all requests searches for stop strings
/// at every token.
pub const MAX_STOP_BYTES: usize = 1024;

/// The most stop strings, and the most stop tokens, of a request.
pub const MAX_STOPS: usize = 128;

/// The allowed weights of shares.
pub const WEIGHTS: RangeInclusive<f32> = 0.01..=100.0;

/// The most alternatives per position whose log-probabilities a request may ask for.
pub const MAX_LOGPROBS: usize = 20;

/// How much an engine computes at once, and how many requests may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// The most rows of one step, bounded by the backend's limit. More rows make prefill cheaper
    /// per token, and the steps of decoding sequences longer.
    pub step_tokens: usize,
    /// The most sequences that run at once: at most `step_tokens`, so that each has a row in every
    /// step.
    pub max_running: usize,
    /// The most waiting requests of one adapter and tenant; all together may have eight times as
    /// many. Further requests are refused.
    pub max_waiting: usize,
    /// Whether sequences with a common prefix share its KV blocks.
    pub prefix_cache: bool,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            step_tokens: 128,
            max_running: 64,
            max_waiting: 1024,
            prefix_cache: true,
        }
    }
}

impl EngineOptions {
    /// These options, bounded by the limits of `backend`.
    pub(crate) fn limits(self, backend: &Limits) -> EngineLimits {
        let step_tokens = self.step_tokens.min(backend.step_rows).max(1);
        EngineLimits {
            vocab: backend.vocab,
            context: backend.context,
            cache_tokens: backend.blocks.saturating_mul(backend.block_tokens),
            block_tokens: backend.block_tokens,
            step_tokens,
            max_running: self.max_running.clamp(1, step_tokens),
            max_waiting: self.max_waiting.max(1),
            prefix_cache: self.prefix_cache,
        }
    }
}

/// The limits of a running engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineLimits {
    /// Size of the vocabulary.
    pub vocab: usize,
    /// The longest sequence, in tokens.
    pub context: usize,
    /// Capacity of the KV cache, in tokens.
    pub cache_tokens: usize,
    /// Positions that a KV block holds.
    pub block_tokens: usize,
    /// The most rows of one step.
    pub step_tokens: usize,
    /// The most sequences that run at once.
    pub max_running: usize,
    /// The most waiting requests of one adapter and tenant.
    pub max_waiting: usize,
    /// Whether sequences with a common prefix share its KV blocks.
    pub prefix_cache: bool,
}

impl EngineLimits {
    /// The most tokens that can be generated after a prompt of `prompt` tokens; 0 if there is no
    /// room for any.
    pub fn room_after(&self, prompt: usize) -> usize {
        self.context.min(self.cache_tokens).saturating_sub(prompt)
    }
}

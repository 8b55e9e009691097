//! How much the engine does at once, and what a request may ask for.

use std::ops::RangeInclusive;

use multigraft_model::Limits;

/// The longest stop string, in bytes: stops are looked for at every token, on the thread that
/// serves everybody.
pub const MAX_STOP_BYTES: usize = 1024;

/// The most stop strings, and the most stop tokens.
pub const MAX_STOPS: usize = 128;

/// Weights of shares.
pub const WEIGHTS: RangeInclusive<f32> = 0.01..=100.0;

/// The most alternatives whose log-probabilities can be asked for at each position.
pub const MAX_LOGPROBS: usize = 20;

/// How much the engine does at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// The most rows of one step, at most what the backend can do. More make prefill cheaper per
    /// token and the steps of those who generate longer.
    pub step_tokens: usize,
    /// The most sequences that run at once, at most `step_tokens`, so that each gets its row in
    /// every step.
    pub max_running: usize,
    /// The most requests of one adapter and tenant that wait to be started, and an eighth of the
    /// most of all; more are refused.
    pub max_waiting: usize,
    /// Whether sequences that begin alike share what was computed for their beginning.
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
    /// These options within what `backend` can do.
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

/// What the engine can take on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineLimits {
    /// Size of the vocabulary.
    pub vocab: usize,
    /// The model's context: the longest sequence, in tokens.
    pub context: usize,
    /// What all KV blocks hold together, in tokens.
    pub cache_tokens: usize,
    /// Positions that a KV block holds.
    pub block_tokens: usize,
    /// The most rows of one step.
    pub step_tokens: usize,
    /// The most sequences that run at once.
    pub max_running: usize,
    /// The most requests of one adapter and tenant that wait.
    pub max_waiting: usize,
    /// Whether sequences that begin alike share what was computed for their beginning.
    pub prefix_cache: bool,
}

impl EngineLimits {
    /// The most tokens that can be generated after a prompt of `prompt` tokens; 0 if there is no
    /// room for any.
    pub fn room_after(&self, prompt: usize) -> usize {
        self.context.min(self.cache_tokens).saturating_sub(prompt)
    }
}

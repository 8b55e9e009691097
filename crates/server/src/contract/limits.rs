//! What a single request may ask for.

use std::time::Duration;

use multigraft_batches::LineLimits;

/// What a single request may ask for. The defaults suit a machine of a few cores.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The largest body, in bytes.
    pub body_bytes: usize,
    /// The largest upload of an adapter, all of its body, in bytes.
    pub upload_bytes: usize,
    /// The largest file of requests, in bytes.
    pub file_bytes: usize,
    /// The most bytes of files that one tenant keeps.
    pub stored_bytes: u64,
    /// The most files that one tenant keeps.
    pub stored_files: u64,
    /// The most requests of one batch.
    pub batch_lines: usize,
    /// The most batches of one tenant that have not ended.
    pub batches: u64,
    /// Tokens that are generated where the request says nothing (less if the context ends before).
    pub default_max_tokens: usize,
    /// The most stop strings.
    pub stop_strings: usize,
    /// The most answers in one request: prompts times `n`.
    pub choices: usize,
    /// The most alternatives per token (`top_logprobs`, `top_n_tokens`).
    pub alternatives: usize,
    /// How long a request waits for its adapter to be loaded.
    pub load_wait: Duration,
    /// How long a request may take from its head to the answer's last token, if that is bounded.
    pub request_time: Option<Duration>,
    /// How long a step may take before the server counts as not ready.
    pub step_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 8 << 20,
            upload_bytes: 2 << 30,
            file_bytes: 200_000_000,
            stored_bytes: 4 << 30,
            stored_files: 10_000,
            batch_lines: 50_000,
            batches: 100,
            default_max_tokens: 1024,
            stop_strings: 16,
            choices: 128,
            alternatives: 20,
            load_wait: Duration::from_secs(30),
            request_time: None,
            step_time: Duration::from_secs(60),
        }
    }
}

impl Limits {
    /// How much a batch may be.
    pub(crate) fn lines(&self) -> LineLimits {
        LineLimits {
            lines: self.batch_lines,
            bytes: self.body_bytes,
        }
    }
}

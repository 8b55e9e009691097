//! Bounds on requests, uploads and batches.

use std::time::Duration;

use multigraft_batches::LineLimits;

/// Bounds on single requests, uploads and batches. The defaults suit a machine of a few cores.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest request body, in bytes.
    pub body_bytes: usize,
    /// Largest upload of an adapter, in bytes of the whole form.
    pub upload_bytes: usize,
    /// Largest input file of a batch, in bytes.
    pub file_bytes: usize,
    /// Bytes of files that one tenant may store.
    pub stored_bytes: u64,
    /// Number of files that one tenant may store.
    pub stored_files: u64,
    /// Number of requests in one batch.
    pub batch_lines: usize,
    /// Number of unfinished batches of one tenant.
    pub batches: u64,
    /// `max_tokens` of requests that set none. The end of the context may come earlier.
    pub default_max_tokens: usize,
    /// Number of stop strings in one request.
    pub stop_strings: usize,
    /// Number of answers in one request: prompts times `n`.
    pub choices: usize,
    /// Alternatives per token (`top_logprobs`, `top_n_tokens`).
    pub alternatives: usize,
    /// How long a request waits while its adapter is loaded.
    pub load_wait: Duration,
    /// Time limit of a request, from its headers to the last token of the answer. `None`: no limit.
    pub request_time: Option<Duration>,
    /// Duration of an engine step after which the server reports that it is not ready.
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
    /// The bounds that the input file of a batch is checked against.
    pub(crate) fn lines(&self) -> LineLimits {
        LineLimits {
            lines: self.batch_lines,
            bytes: self.body_bytes,
        }
    }
}

//! What every handler shares.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use multigraft_access::Access;
use multigraft_adapters::Registry;
use multigraft_engine::Engine;
use multigraft_sources::AllowedSources;
use multigraft_text::{ChatTemplate, Tokenizer};

use crate::{
    batches::Batches, constraints::Constraints, metering::Meters, metrics::Metrics, telemetry::Telemetry,
    underway::Underway,
};

/// The state as handlers get it.
pub(crate) type Shared = Arc<AppState>;

/// What the server serves, and within which limits.
#[derive(Debug)]
pub struct AppState {
    /// Runs the requests.
    pub engine: Engine,
    /// The base's tokenizer, which all adapters share.
    pub tokenizer: Arc<Tokenizer>,
    /// The base's: turns messages into a prompt. Without it chat is refused, but by adapters with a
    /// template of their own.
    pub template: Option<Arc<ChatTemplate>>,
    /// Makes grammars of what answers must be.
    pub constraints: Arc<Constraints>,
    /// The names and what they stand for.
    pub registry: Registry,
    /// Who may do what; without it, and as long as it holds no keys, everybody everything.
    pub access: Option<Arc<Access>>,
    /// Where adapters may be added from over HTTP.
    pub sources: AllowedSources,
    /// The requests that adapters answer.
    pub underway: Underway,
    /// Facts about the base model.
    pub base: BaseInfo,
    /// What a request may ask for.
    pub limits: Limits,
    /// When the server started; `created` of every model.
    pub started: SystemTime,
    /// The files and batches; without a place for them there are none.
    pub batches: Option<Batches>,
    /// What is left of what adapters' requests may take.
    pub meters: Meters,
    /// What is counted for Prometheus.
    pub metrics: Metrics,
    /// What is told of single requests.
    pub telemetry: Telemetry,
}

/// Facts about the base model that answers report.
#[derive(Clone, Debug)]
pub struct BaseInfo {
    /// Its file or folder.
    pub path: PathBuf,
    /// Architecture, such as `llama`.
    pub architecture: String,
    /// Number of parameters.
    pub parameters: u64,
    /// Longest sequence, prompt and answer together, in tokens.
    pub context: usize,
    /// Size of the vocabulary.
    pub vocab: usize,
    /// Width of hidden states: the length of embeddings.
    pub hidden: usize,
}

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

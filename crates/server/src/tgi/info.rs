//! `GET /info`, `GET /version` and `GET /stats`: the model, its limits and adapters, and the state
//! of the engine.

use axum::Json;
use multigraft_adapters::{Listed, Residency};
use schemars::JsonSchema;
use serde::Serialize;

use crate::{caller::session::Session, http::error::ApiError};

/// The answer of `/info`: TGI's fields and some of multigraft's.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Info {
    model_id: String,
    model_sha: Option<String>,
    model_pipeline_tag: &'static str,
    max_concurrent_requests: usize,
    max_best_of: usize,
    max_stop_sequences: usize,
    max_input_tokens: usize,
    max_total_tokens: usize,
    validation_workers: usize,
    max_client_batch_size: usize,
    router: &'static str,
    version: &'static str,
    sha: Option<&'static str>,
    docker_label: Option<&'static str>,
    model_architecture: String,
    model_parameters: u64,
    adapters: Vec<Adapter>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Adapter {
    id: String,
    /// Null until the files of the adapter are read.
    hash: Option<String>,
    /// Smallest and largest rank, if the adapter is in memory.
    #[schemars(with = "Option<[usize; 2]>")]
    ranks: Option<(usize, usize)>,
    /// The memory that the adapter takes, in bytes.
    bytes: usize,
}

impl Adapter {
    fn of(listed: &Listed) -> Self {
        let (ranks, bytes) = match &listed.residency {
            Residency::Resident { bytes, info } => (info.ranks, *bytes),
            Residency::Cold | Residency::Loading | Residency::Failed { .. } => (None, 0),
        };
        let hash = listed.active().and_then(|version| version.hash);
        Self {
            id: listed.name.clone(),
            hash: hash.map(|hash| hash.to_string()),
            ranks,
            bytes,
        }
    }
}

/// vLLM's `/version`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Version {
    version: &'static str,
}

/// `GET /version`.
pub(crate) async fn version(_: Session) -> Json<Version> {
    Json(Version {
        version: env!("CARGO_PKG_VERSION"),
    })
}

/// `GET /info`.
pub(crate) async fn info(state: Session) -> Json<Info> {
    let limits = state.engine().limits();
    let total = limits.room_after(0);
    let adapters = state.list();
    let adapters = adapters.iter().map(Adapter::of).collect();
    Json(Info {
        model_id: state.base_name().to_owned(),
        model_sha: None,
        model_pipeline_tag: "text-generation",
        max_concurrent_requests: limits.max_running + limits.max_waiting,
        max_best_of: state.limits().choices,
        max_stop_sequences: state.limits().stop_strings,
        max_input_tokens: total.saturating_sub(1),
        max_total_tokens: total,
        validation_workers: 1,
        max_client_batch_size: 1,
        router: "multigraft",
        version: env!("CARGO_PKG_VERSION"),
        sha: None,
        docker_label: None,
        model_architecture: state.base().architecture.clone(),
        model_parameters: state.base().parameters,
        adapters,
    })
}

/// The engine's figures after its last step.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Figures {
    running: usize,
    waiting: usize,
    preempted: usize,
    /// Requests of batches, which the fields above do not count.
    background: usize,
    resident_adapters: usize,
    kv_blocks_used: usize,
    kv_blocks_cached: usize,
    kv_blocks_total: usize,
    steps: u64,
    step_seconds: f64,
    prompt_tokens: u64,
    cached_tokens: u64,
    generated_tokens: u64,
    preemptions: u64,
    finished: u64,
    failed: u64,
    cancelled: u64,
}

/// `GET /stats`.
pub(crate) async fn stats(state: Session) -> Result<Json<Figures>, ApiError> {
    // The figures count the requests of all keys.
    let Some(view) = state.admin_view() else {
        return Err(ApiError::Forbidden("only admin keys may see /stats".to_owned()));
    };
    let stats = view.engine().stats();
    Ok(Json(Figures {
        running: stats.running,
        waiting: stats.waiting,
        preempted: stats.preempted,
        background: stats.background,
        resident_adapters: stats.resident.len(),
        kv_blocks_used: stats.blocks_used,
        kv_blocks_cached: stats.blocks_cached,
        kv_blocks_total: stats.blocks_total,
        steps: stats.steps,
        step_seconds: stats.step_time.as_secs_f64(),
        prompt_tokens: stats.prompt_tokens,
        cached_tokens: stats.cached_tokens,
        generated_tokens: stats.generated_tokens,
        preemptions: stats.preemptions,
        finished: stats.finished,
        failed: stats.failed,
        cancelled: stats.cancelled,
    }))
}

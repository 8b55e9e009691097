//! `GET /metrics`: the counters, and gauges that are read at the scrape.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use multigraft_adapters::{Listed, Residency};
use multigraft_engine::{Sizes, StepKinds};
use multigraft_model::StepTime;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{
    MetricType, counter::ConstCounter, family::Family, gauge::Gauge, info::Info,
};
use prometheus_client::registry::{Registry, Unit};

use crate::{
    caller::session::{AdminView, Session},
    http::error::ApiError,
    observe::metrics::{MOST_ADAPTERS, plain},
};

/// The content type for scrapers that do not accept OpenMetrics.
const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Model {
    model_name: String,
}

/// The labels of adapters for the Gateway API's inference extension. Lists are comma-separated.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Lora {
    max_lora: usize,
    running_lora_adapters: String,
    waiting_lora_adapters: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Loaded {
    adapter_name: String,
    level: &'static str,
    pinned: String,
    rank: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CacheConfig {
    block_size: usize,
    num_gpu_blocks: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    version: &'static str,
    base: String,
}

/// `GET /metrics`.
pub(crate) async fn metrics(session: Session, headers: HeaderMap) -> Result<Response, ApiError> {
    // The metrics name the adapters of all tenants.
    let Some(view) = session.admin_view() else {
        return Err(ApiError::Forbidden("only admin keys may see /metrics".to_owned()));
    };
    let adapters = view.registry().list();
    let names: HashSet<&str> = adapters.iter().map(|listed| listed.name.as_str()).collect();
    let base = view.registry().base();
    view.metrics().retain(|name| name == base || names.contains(name));
    let listed = adapters.iter().map(|listed| listed.name.as_str());
    let served: Vec<&str> = listed.chain([base]).collect();
    view.metrics().begin(served.into_iter());
    let mut text = String::new();
    let encoded = view
        .metrics()
        .encode(&mut text)
        .and_then(|()| encode_registry(&mut text, &current(view, &adapters)))
        .and_then(|()| encode_registry(&mut text, &as_vllm(view, &adapters)))
        .and_then(|()| encode_eof(&mut text));
    encoded.map_err(|fmt::Error| ApiError::Failed("the metrics cannot be encoded".to_owned()))?;
    let accepted = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    let answer = match accepted.is_some_and(|accept| accept.contains("application/openmetrics-text")) {
        true => ([(CONTENT_TYPE, OPEN_METRICS)], text),
        false => ([(CONTENT_TYPE, PLAIN)], plain(&text)),
    };
    Ok(answer.into_response())
}

/// Writes the gauges, and the counters that other parts of the server keep.
fn current(view: AdminView<'_>, adapters: &[Listed]) -> Registry {
    let mut registry = Registry::with_prefix("multigraft");
    let stats = view.engine().stats();
    let build = Build {
        version: env!("CARGO_PKG_VERSION"),
        base: view.registry().base().to_owned(),
    };
    registry.register(
        "build",
        "Version of the server and the base model that it serves",
        Info::new(build),
    );

    gauge(
        &mut registry,
        "running_requests",
        "Answers that are being generated",
        stats.running,
    );
    gauge(
        &mut registry,
        "waiting_requests",
        "Answers that wait to be started, including preempted ones",
        stats.waiting + stats.preempted,
    );
    by_kind(
        &mut registry,
        "kv_blocks",
        "Blocks of the KV cache: used by requests, kept in the prefix cache, and the total",
        None,
        [
            ("used", stats.blocks_used),
            ("cached", stats.blocks_cached),
            ("total", stats.blocks_total),
        ],
    );
    gauge(
        &mut registry,
        "step_stuck",
        "1 while an engine step takes so long that no request is answered, else 0",
        usize::from(view.is_stuck()),
    );
    let (adapter_bytes, limit) = view.registry().memory();
    let limit = (limit < usize::MAX).then_some(("adapters_limit", limit));
    let budget = view
        .registry()
        .budget()
        .map(|budget| [("budget", budget.total()), ("keys_and_values", budget.taken().0)]);
    by_kind(
        &mut registry,
        "memory",
        "Memory of adapters and its limit, and the budget that adapters share with the KV cache",
        Some(Unit::Bytes),
        [("adapters", adapter_bytes)]
            .into_iter()
            .chain(limit)
            .chain(budget.into_iter().flatten()),
    );
    let in_state = |wanted: &str| {
        adapters
            .iter()
            .filter(|listed| name_of(&listed.residency) == wanted)
            .count()
    };
    by_kind(
        &mut registry,
        "adapters",
        "Adapters by state",
        None,
        ["resident", "cold", "loading", "failed"].map(|state| (state, in_state(state))),
    );

    for (name, help, value) in [
        ("steps", "Engine steps", stats.steps),
        (
            "prefill_rows",
            "Rows of steps that belong to prompts",
            stats.prefill_rows,
        ),
        (
            "decode_rows",
            "Rows of steps that generated a token each",
            stats.decode_rows,
        ),
        (
            "preemptions",
            "Preemptions of running sequences",
            stats.preemptions,
        ),
        (
            "adapter_evictions",
            "Adapters that were evicted for other adapters or for the KV cache",
            view.registry().evictions(),
        ),
    ] {
        registry.register(name, help, ConstCounter::new(value));
    }
    let StepKinds {
        prefill,
        decode,
        mixed,
    } = stats.step_kinds;
    seconds(
        &mut registry,
        "step_time",
        "Time of engine steps by kind: prompts, answers or both",
        "kind",
        [("prefill", prefill), ("decode", decode), ("mixed", mixed)],
    );
    let StepTime {
        matmul,
        lora,
        attention,
    } = stats.step_parts;
    let parts = matmul + lora + attention;
    seconds(
        &mut registry,
        "step_part",
        "Time of engine steps by part, and the time of sampling after them",
        "part",
        [
            ("matmul", matmul),
            ("lora", lora),
            ("attention", attention),
            ("other", stats.step_time.saturating_sub(parts)),
            ("sampling", stats.sampling_time),
        ],
    );
    registry.register(
        "step_rows",
        "Rows of a step: tokens of prompts and of answers",
        SizesOf(stats.step_rows),
    );
    registry.register(
        "step_sequences",
        "Sequences of a step",
        SizesOf(stats.step_sequences),
    );
    registry
}

/// Encodes a histogram of the engine.
#[derive(Debug)]
struct SizesOf(Sizes);

impl EncodeMetric for SizesOf {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let bounds = Sizes::BOUNDS.map(|bound| bound as f64).into_iter();
        let bounds = bounds.chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(self.0.steps).collect();
        encoder.encode_histogram::<NoLabelSet>(self.0.sum as f64, self.0.steps.iter().sum(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

/// Counters of seconds that other parts keep, by one label.
#[derive(Debug)]
struct SecondsBy<const N: usize> {
    label: &'static str,
    values: [(&'static str, Duration); N],
}

impl<const N: usize> EncodeMetric for SecondsBy<N> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (value, time) in self.values {
            encoder
                .encode_family(&[(self.label, value)])?
                .encode_counter::<NoLabelSet, _, f64>(&time.as_secs_f64(), None)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

fn seconds<const N: usize>(
    registry: &mut Registry,
    name: &str,
    help: &str,
    label: &'static str,
    values: [(&'static str, Duration); N],
) {
    registry.register_with_unit(name, help, Unit::Seconds, SecondsBy { label, values });
}

/// The metrics that the Gateway API's inference extension and llm-d read, under vLLM's names and
/// with the extension's meaning: adapters in memory are "running"; adapters that are being loaded
/// or have queued requests are "waiting".
fn as_vllm(view: AdminView<'_>, adapters: &[Listed]) -> Registry {
    let mut registry = Registry::default();
    let stats = view.engine().stats();
    let model = Model {
        model_name: view.registry().base().to_owned(),
    };
    let used = stats.blocks_used as f64 / stats.blocks_total.max(1) as f64;
    for (name, help, value) in [
        (
            "vllm:num_requests_running",
            "Answers that are being generated",
            stats.running as f64,
        ),
        (
            "vllm:num_requests_waiting",
            "Answers that wait to be started",
            (stats.waiting + stats.preempted) as f64,
        ),
        (
            "vllm:kv_cache_usage_perc",
            "Used share of the KV cache, from 0 to 1",
            used,
        ),
    ] {
        let family = Family::<Model, Gauge<f64, AtomicU64>>::default();
        family.get_or_create(&model).set(value);
        registry.register(name, help, family);
    }
    registry.register(
        "vllm:cache_config",
        "Blocks of the KV cache",
        Info::new(CacheConfig {
            block_size: view.engine().limits().block_tokens,
            num_gpu_blocks: stats.blocks_total,
        }),
    );

    let waiting: HashSet<_> = view.engine().waiting_adapters().into_iter().collect();
    let mut running_names = Vec::new();
    let mut waiting_names = Vec::new();
    let loaded = Family::<Loaded, Gauge>::default();
    let mut resident = 0;
    for listed in adapters {
        match &listed.residency {
            Residency::Resident { info, .. } => {
                resident += 1;
                if running_names.len() < MOST_ADAPTERS {
                    running_names.push(listed.name.as_str());
                    let series = Loaded {
                        adapter_name: listed.name.clone(),
                        // Routers expect `gpu` for adapters that are ready on the device that
                        // computes the model.
                        level: "gpu",
                        pinned: listed.pinned.to_string(),
                        rank: info.ranks.map_or(0, |(_, most)| most),
                    };
                    loaded.get_or_create(&series).set(1);
                }
            }
            Residency::Loading if waiting_names.len() < MOST_ADAPTERS => {
                waiting_names.push(listed.name.as_str())
            }
            Residency::Loading | Residency::Cold | Residency::Failed { .. } => {}
        }
        let hash = listed.active().and_then(|version| version.hash);
        if hash.is_some_and(|hash| waiting.contains(&hash)) && waiting_names.len() < MOST_ADAPTERS {
            waiting_names.push(listed.name.as_str());
        }
    }
    // There is no fixed number of slots; memory bounds the number of loaded adapters.
    let lora = Lora {
        max_lora: adapters.len(),
        running_lora_adapters: running_names.join(","),
        waiting_lora_adapters: waiting_names.join(","),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let info = Family::<Lora, Gauge<f64, AtomicU64>>::default();
    info.get_or_create(&lora).set(now.as_secs_f64());
    registry.register(
        "vllm:lora_requests_info",
        "Adapters in memory, and adapters that requests wait for; the value is the present time",
        info,
    );
    registry.register("vllm:lora_adapter_loaded", "Adapters in memory", loaded);
    gauge(
        &mut registry,
        "vllm:num_gpu_loaded_lora_adapters",
        "Number of adapters in memory",
        resident,
    );
    gauge(
        &mut registry,
        "vllm:max_gpu_lora_adapters",
        "Number of adapters: only memory limits how many are loaded",
        adapters.len(),
    );
    registry
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: usize) {
    let gauge = Gauge::<f64, AtomicU64>::default();
    gauge.set(value as f64);
    registry.register(name, help, gauge);
}

fn by_kind(
    registry: &mut Registry,
    name: &str,
    help: &str,
    unit: Option<Unit>,
    values: impl IntoIterator<Item = (&'static str, usize)>,
) {
    let family = Family::<Kind, Gauge<f64, AtomicU64>>::default();
    for (kind, value) in values {
        family.get_or_create(&Kind { kind }).set(value as f64);
    }
    match unit {
        Some(unit) => registry.register_with_unit(name, help, unit, family),
        None => registry.register(name, help, family),
    }
}

fn name_of(residency: &Residency) -> &'static str {
    match residency {
        Residency::Resident { .. } => "resident",
        Residency::Cold => "cold",
        Residency::Loading => "loading",
        Residency::Failed { .. } => "failed",
    }
}

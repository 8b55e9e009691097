//! Metrics for Prometheus (`GET /metrics`), in the OpenMetrics text format.
//!
//! Counters and histograms are updated as requests run ([`Watch`]); gauges are read at the scrape
//! (`manage::scrape`). Each of the first [`MOST_ADAPTERS`] adapters has its own series.

mod names;
mod plain;
mod watch;

use std::fmt::Debug;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use prometheus_client::encoding::{EncodeLabelSet, text::encode_registry};
use prometheus_client::metrics::{counter::Counter, family::Family, histogram::Histogram};
use prometheus_client::registry::{Registry, Unit};

use names::Names;
pub(crate) use plain::plain;
pub(crate) use watch::Watch;

/// The `adapter` label of merges of several adapters.
pub(crate) const MERGED: &str = "merged";

/// Number of adapters with their own series.
pub(crate) const MOST_ADAPTERS: usize = 200;

/// Upper bounds of histogram buckets, in seconds: from a step of a small model to a long answer of
/// a large one.
const SECONDS: [f64; 15] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0,
];

/// The adapter of a series: its name, the name of the base, `merged` for a merge of several
/// adapters, or `other` beyond [`MOST_ADAPTERS`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfAdapter {
    adapter: String,
}

/// The ends of an answer.
const OUTCOMES: [&str; 4] = ["finished", "failed", "cancelled", "refused"];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    adapter: String,
    /// One of [`OUTCOMES`].
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Response {
    route: String,
    status: u16,
}

/// A histogram of seconds per adapter.
type Seconds = Family<OfAdapter, Histogram, fn() -> Histogram>;

/// All metrics. Clones share them.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    names: Mutex<Names>,
    requests: Family<Ended, Counter>,
    prompt_tokens: Family<OfAdapter, Counter>,
    cached_tokens: Family<OfAdapter, Counter>,
    generated_tokens: Family<OfAdapter, Counter>,
    queue: Seconds,
    first_token: Seconds,
    between_tokens: Seconds,
    whole: Seconds,
    responses: Family<Response, Counter>,
    loads: Family<Load, Counter>,
    load: Histogram,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Load {
    /// `loaded` or `failed`.
    outcome: &'static str,
}

fn histogram() -> Histogram {
    Histogram::new(SECONDS)
}

fn seconds() -> Seconds {
    Family::new_with_constructor(histogram)
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("multigraft");
        let inner = Inner {
            names: Mutex::new(Names::new(MOST_ADAPTERS)),
            requests: counter(
                &mut registry,
                "requests",
                "Answers by outcome; a request with n choices counts n times, a refused request once",
            ),
            prompt_tokens: counter(
                &mut registry,
                "prompt_tokens",
                "Prompt tokens of finished answers",
            ),
            cached_tokens: counter(
                &mut registry,
                "cached_prompt_tokens",
                "Prompt tokens of finished answers that were found in the prefix cache",
            ),
            generated_tokens: counter(&mut registry, "generated_tokens", "Generated tokens"),
            queue: timed(
                &mut registry,
                "queue",
                "Time from the acceptance of a request until it left the queue",
            ),
            first_token: timed(
                &mut registry,
                "time_to_first_token",
                "Time from the acceptance of a request to its first token",
            ),
            between_tokens: timed(&mut registry, "inter_token_latency", "Time between two tokens"),
            whole: timed(
                &mut registry,
                "request_duration",
                "Time from the acceptance of a request to its end",
            ),
            responses: counter(
                &mut registry,
                "http_responses",
                "HTTP responses by route and status",
            ),
            loads: counter(
                &mut registry,
                "adapter_loads",
                "Loads of adapters by outcome, including loads that no request caused",
            ),
            load: {
                let load = histogram();
                registry.register_with_unit(
                    "adapter_load",
                    "Time from the order to load an adapter until it is ready",
                    Unit::Seconds,
                    load.clone(),
                );
                load
            },
            registry,
        };
        for outcome in ["loaded", "failed"] {
            drop(inner.loads.get_or_create(&Load { outcome }));
        }
        Self(Arc::new(inner))
    }
}

fn counter<S>(registry: &mut Registry, name: &str, help: &str) -> Family<S, Counter>
where
    S: EncodeLabelSet + Clone + std::hash::Hash + Eq + Debug + Send + Sync + 'static,
{
    let family = Family::<S, Counter>::default();
    registry.register(name, help, family.clone());
    family
}

fn timed(registry: &mut Registry, name: &str, help: &str) -> Seconds {
    let family = seconds();
    registry.register_with_unit(name, help, Unit::Seconds, family.clone());
    family
}

impl Metrics {
    /// Measures an answer of `name`; `None` is a merge of several adapters. The answer counts once
    /// `accepted` is true, and its durations only if `timed`.
    pub(crate) fn watch(&self, name: Option<&str>, accepted: Arc<AtomicBool>, timed: bool) -> Watch {
        Watch::new(self, self.label(name), accepted, timed)
    }

    /// Counts a request for `name` that a limit refused.
    pub(crate) fn refused(&self, name: Option<&str>) {
        let adapter = self.label(name);
        let ended = Ended {
            adapter,
            outcome: "refused",
        };
        self.0.requests.get_or_create(&ended).inc();
    }

    /// Counts a response of `route`, a path of the table of routes.
    fn responded(&self, route: &str, status: u16) {
        let response = Response {
            route: route.to_owned(),
            status,
        };
        self.0.responses.get_or_create(&response).inc();
    }

    /// Counts a load of an adapter and its duration; `ok` says whether it succeeded.
    pub fn loaded(&self, time: std::time::Duration, ok: bool) {
        let outcome = if ok { "loaded" } else { "failed" };
        self.0.loads.get_or_create(&Load { outcome }).inc();
        self.0.load.observe(time.as_secs_f64());
    }

    /// Whether `label` still has series. The adapter may have been removed while a request ran.
    fn has(&self, label: &str) -> bool {
        let names = self.0.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.has(label)
    }

    /// The `adapter` label of `name`.
    fn label(&self, name: Option<&str>) -> String {
        let mut names = self.0.names.lock().unwrap_or_else(PoisonError::into_inner);
        let adapter = match name {
            None => MERGED.to_owned(),
            Some(name) => names.label(name).to_owned(),
        };
        // Creates the counters with 0: to PromQL's `rate`, a counter that begins with 1 has not
        // grown.
        for outcome in OUTCOMES {
            let adapter = adapter.clone();
            drop(self.0.requests.get_or_create(&Ended { adapter, outcome }));
        }
        adapter
    }

    /// Writes all metrics in the OpenMetrics text format, without `# EOF`.
    pub(crate) fn encode(&self, text: &mut String) -> std::fmt::Result {
        encode_registry(text, &self.0.registry)
    }

    /// Creates the series of `served`, if there are few enough names.
    pub(crate) fn begin<'a>(&self, served: impl ExactSizeIterator<Item = &'a str>) {
        // Otherwise names without requests would take the series of names with requests.
        if served.len() <= MOST_ADAPTERS {
            served.for_each(|name| drop(self.label(Some(name))));
        }
    }

    /// Removes the series of names that are not `served` any more, which frees them for others.
    pub(crate) fn retain(&self, served: impl Fn(&str) -> bool) {
        let mut names = self.0.names.lock().unwrap_or_else(PoisonError::into_inner);
        for adapter in names.remove_others(served) {
            for outcome in OUTCOMES {
                self.0.requests.remove(&Ended {
                    adapter: adapter.clone(),
                    outcome,
                });
            }
            let label = OfAdapter { adapter };
            let inner = &self.0;
            for counter in [
                &inner.prompt_tokens,
                &inner.cached_tokens,
                &inner.generated_tokens,
            ] {
                counter.remove(&label);
            }
            for histogram in [
                &inner.queue,
                &inner.first_token,
                &inner.between_tokens,
                &inner.whole,
            ] {
                histogram.remove(&label);
            }
        }
    }
}

/// Middleware: counts responses by route. All unknown paths count as the route `none`.
pub(crate) async fn count(
    State(metrics): State<Metrics>,
    request: Request,
    next: Next,
) -> axum::response::Response {
    let path = request.extensions().get::<MatchedPath>();
    let route = path.map_or("none", MatchedPath::as_str).to_owned();
    let response = next.run(request).await;
    metrics.responded(&route, response.status().as_u16());
    response
}

//! What Prometheus is told: `GET /metrics`, in the OpenMetrics text format.
//!
//! Counters and histograms grow as requests go ([`Watch`]); what there is just now is looked up
//! when it is asked for (`manage::scrape`). Each adapter has series of its own, up to a number of them.

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

/// The label of what several adapters make together.
pub(crate) const MERGED: &str = "merged";

/// Adapters with series of their own.
pub(crate) const MOST_ADAPTERS: usize = 200;

/// Upper ends of buckets, in seconds: from a step of a small model to a long answer of a large one.
const SECONDS: [f64; 15] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0,
];

/// The adapter that a series is of: its name, the base's, `merged` for what several make together,
/// or `other` once there are too many.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfAdapter {
    adapter: String,
}

/// How answers end.
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

/// A histogram of seconds for each adapter.
type Seconds = Family<OfAdapter, Histogram, fn() -> Histogram>;

/// Everything that is counted. Clones are handles to the same.
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
                "Answers by how they ended; those of n count n times, refused ones once",
            ),
            prompt_tokens: counter(
                &mut registry,
                "prompt_tokens",
                "Tokens of prompts of finished answers",
            ),
            cached_tokens: counter(
                &mut registry,
                "cached_prompt_tokens",
                "Those of them that were found in the prefix cache",
            ),
            generated_tokens: counter(&mut registry, "generated_tokens", "Tokens that were generated"),
            queue: timed(
                &mut registry,
                "queue",
                "From a request's acceptance until it left the queue",
            ),
            first_token: timed(
                &mut registry,
                "time_to_first_token",
                "From a request's acceptance to its first token",
            ),
            between_tokens: timed(&mut registry, "inter_token_latency", "From a token to the next"),
            whole: timed(
                &mut registry,
                "request_duration",
                "From a request's acceptance to its end",
            ),
            responses: counter(
                &mut registry,
                "http_responses",
                "HTTP responses by route and status",
            ),
            loads: counter(
                &mut registry,
                "adapter_loads",
                "Loads of adapters, the registry's own included, by how they ended",
            ),
            load: {
                let load = histogram();
                registry.register_with_unit(
                    "adapter_load",
                    "From the order to load an adapter until it is ready",
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
    /// Watches an answer of what is called `name`: `None` is what several adapters make together.
    /// It counts once it is `accepted`, and its times if somebody waits for it.
    pub(crate) fn watch(&self, name: Option<&str>, accepted: Arc<AtomicBool>, timed: bool) -> Watch {
        Watch::new(self, self.label(name), accepted, timed)
    }

    /// A request for `name` was refused: too many, too much.
    pub(crate) fn refused(&self, name: Option<&str>) {
        let adapter = self.label(name);
        let ended = Ended {
            adapter,
            outcome: "refused",
        };
        self.0.requests.get_or_create(&ended).inc();
    }

    /// A response to a request for `route`, as the table of routes has it.
    fn responded(&self, route: &str, status: u16) {
        let response = Response {
            route: route.to_owned(),
            status,
        };
        self.0.responses.get_or_create(&response).inc();
    }

    /// An adapter was loaded, or could not be.
    pub fn loaded(&self, time: std::time::Duration, ok: bool) {
        let outcome = if ok { "loaded" } else { "failed" };
        self.0.loads.get_or_create(&Load { outcome }).inc();
        self.0.load.observe(time.as_secs_f64());
    }

    /// Whether a label still has series: its name may have been removed while its request ran.
    fn has(&self, label: &str) -> bool {
        let names = self.0.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.has(label)
    }

    /// The label of a name.
    fn label(&self, name: Option<&str>) -> String {
        let mut names = self.0.names.lock().unwrap_or_else(PoisonError::into_inner);
        let adapter = match name {
            None => MERGED.to_owned(),
            Some(name) => names.label(name).to_owned(),
        };
        // To `rate`, a counter whose first value is 1 has not grown.
        for outcome in OUTCOMES {
            let adapter = adapter.clone();
            drop(self.0.requests.get_or_create(&Ended { adapter, outcome }));
        }
        adapter
    }

    /// Writes what was counted, in the OpenMetrics text format without its end.
    pub(crate) fn encode(&self, text: &mut String) -> std::fmt::Result {
        encode_registry(text, &self.0.registry)
    }

    /// Gives each of these names its series, if all of them can have some.
    pub(crate) fn begin<'a>(&self, served: impl ExactSizeIterator<Item = &'a str>) {
        // Else those that are never asked for would take the places of those that are.
        if served.len() <= MOST_ADAPTERS {
            served.for_each(|name| drop(self.label(Some(name))));
        }
    }

    /// Forgets the series of names that are not `served` any more, so that others can have theirs.
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

/// Middleware: counts responses. Paths that lead nowhere are one route.
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

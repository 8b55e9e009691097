//! The state that all handlers share.
//!
//! Modules that [`AppState`] holds stand below it; modules that take it stand above.

pub(crate) mod adapters;
pub(crate) mod batches;
pub(crate) mod grammars;
pub(crate) mod in_flight;
pub(crate) mod meters;
pub(crate) mod stuck;

use std::{
    sync::{Arc, Weak},
    time::SystemTime,
};

use axum::extract::FromRef;
use multigraft_access::Access;
use multigraft_adapters::Registry;
use multigraft_engine::Engine;
use multigraft_sources::AllowedSources;
use multigraft_text::{ChatTemplate, Tokenizer};

use crate::{
    contract::{limits::Limits, model::BaseInfo},
    observe::{metrics::Metrics, telemetry::Telemetry},
};
use adapters::Adapters;
use batches::Batches;
use grammars::Constraints;
use in_flight::InFlight;
use meters::Meters;

/// The shared state of the server. Clones are handles to the same state.
#[derive(Clone, Debug)]
pub struct AppState(Arc<Parts>);

/// A weak handle to [`AppState`], which does not keep the server in memory.
#[derive(Clone, Debug)]
pub(crate) struct WeakState(Weak<Parts>);

#[derive(Debug)]
struct Parts {
    /// Runs the requests.
    engine: Engine,
    /// The tokenizer of the base, which all adapters share.
    tokenizer: Arc<Tokenizer>,
    /// The chat template of the base. Without it, only adapters with their own template answer
    /// chats.
    template: Option<Arc<ChatTemplate>>,
    /// Compiles constraints on answers into grammars.
    constraints: Arc<Constraints>,
    /// The adapters, which are accessible only for a caller.
    adapters: Adapters,
    /// API keys. Without them, or while there are none, anybody may do everything.
    access: Option<Arc<Access>>,
    /// The requests in flight, by adapter.
    in_flight: InFlight,
    /// Facts about the base model.
    base: BaseInfo,
    /// Bounds on requests.
    limits: Limits,
    /// The server's start time, which is `created` of every model.
    started: SystemTime,
    /// Files and batches, if the server has a data folder.
    batches: Option<Batches>,
    /// Rate limits and concurrency limits of adapters and keys.
    meters: Meters,
    /// Metrics for Prometheus.
    metrics: Metrics,
    /// Traces and the log of prompts.
    telemetry: Telemetry,
}

/// Builds an [`AppState`]. Parts that are not set are absent or have their defaults.
#[derive(Debug)]
pub struct AppStateBuilder(Parts);

impl AppState {
    /// A server of one base model: `engine` runs the requests, `registry` holds the adapters.
    pub fn builder(
        engine: Engine,
        tokenizer: Arc<Tokenizer>,
        registry: Registry,
        base: BaseInfo,
    ) -> AppStateBuilder {
        AppStateBuilder(Parts {
            engine,
            constraints: Arc::new(Constraints::new(Arc::clone(&tokenizer))),
            tokenizer,
            template: None,
            adapters: Adapters::new(registry),
            access: None,
            in_flight: InFlight::default(),
            base,
            limits: Limits::default(),
            started: SystemTime::now(),
            batches: None,
            meters: Meters::default(),
            metrics: Metrics::default(),
            telemetry: Telemetry::default(),
        })
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.0.engine
    }

    pub(crate) fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.0.tokenizer
    }

    /// The chat template of the base.
    pub(crate) fn template(&self) -> Option<&Arc<ChatTemplate>> {
        self.0.template.as_ref()
    }

    pub(crate) fn constraints(&self) -> &Arc<Constraints> {
        &self.0.constraints
    }

    pub(crate) fn adapters(&self) -> &Adapters {
        &self.0.adapters
    }

    pub(crate) fn access(&self) -> Option<&Arc<Access>> {
        self.0.access.as_ref()
    }

    pub(crate) fn in_flight(&self) -> &InFlight {
        &self.0.in_flight
    }

    pub(crate) fn base(&self) -> &BaseInfo {
        &self.0.base
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.0.limits
    }

    pub(crate) fn started(&self) -> SystemTime {
        self.0.started
    }

    pub(crate) fn batches(&self) -> Option<&Batches> {
        self.0.batches.as_ref()
    }

    pub(crate) fn meters(&self) -> &Meters {
        &self.0.meters
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    pub(crate) fn telemetry(&self) -> &Telemetry {
        &self.0.telemetry
    }

    /// A handle that does not keep the server in memory.
    pub(crate) fn downgrade(&self) -> WeakState {
        WeakState(Arc::downgrade(&self.0))
    }
}

impl WeakState {
    /// The state, unless it has been dropped.
    pub(crate) fn upgrade(&self) -> Option<AppState> {
        self.0.upgrade().map(AppState)
    }
}

impl AppStateBuilder {
    /// The chat template of the base.
    pub fn template(self, template: Option<Arc<ChatTemplate>>) -> Self {
        Self(Parts { template, ..self.0 })
    }

    /// API keys and their accounts.
    pub fn access(self, access: Option<Arc<Access>>) -> Self {
        Self(Parts { access, ..self.0 })
    }

    /// The sources from which adapters may be added over HTTP.
    pub fn sources(self, sources: AllowedSources) -> Self {
        let adapters = self.0.adapters.with_sources(sources);
        Self(Parts { adapters, ..self.0 })
    }

    /// Bounds on requests.
    pub fn limits(self, limits: Limits) -> Self {
        Self(Parts { limits, ..self.0 })
    }

    /// The files and batches.
    pub fn batches(self, batches: Option<Batches>) -> Self {
        Self(Parts { batches, ..self.0 })
    }

    /// Metrics that the caller has already registered elsewhere, such as with the registry.
    pub fn metrics(self, metrics: Metrics) -> Self {
        Self(Parts { metrics, ..self.0 })
    }

    /// Traces and the log of prompts.
    pub fn telemetry(self, telemetry: Telemetry) -> Self {
        Self(Parts { telemetry, ..self.0 })
    }

    /// Builds the state.
    pub fn build(self) -> AppState {
        AppState(Arc::new(self.0))
    }
}

impl FromRef<AppState> for Engine {
    fn from_ref(state: &AppState) -> Self {
        state.engine().clone()
    }
}

impl FromRef<AppState> for Limits {
    fn from_ref(state: &AppState) -> Self {
        state.limits().clone()
    }
}

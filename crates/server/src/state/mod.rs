//! What every handler shares.
//!
//! What [`AppState`] holds stands below it; what takes it stands above.

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

/// What the server serves, and within which limits. Clones are handles to the same.
#[derive(Clone, Debug)]
pub struct AppState(Arc<Parts>);

/// The same, which does not keep the server in memory.
#[derive(Clone, Debug)]
pub(crate) struct WeakState(Weak<Parts>);

#[derive(Debug)]
struct Parts {
    /// Runs the requests.
    engine: Engine,
    /// The base's tokenizer, which all adapters share.
    tokenizer: Arc<Tokenizer>,
    /// The base's: turns messages into a prompt. Without it chat is refused, but by adapters with a
    /// template of their own.
    template: Option<Arc<ChatTemplate>>,
    /// Makes grammars of what answers must be.
    constraints: Arc<Constraints>,
    /// The adapters, which are seen through a caller's eyes.
    adapters: Adapters,
    /// Who may do what; without it, and as long as it holds no keys, everybody everything.
    access: Option<Arc<Access>>,
    /// The requests that adapters answer.
    in_flight: InFlight,
    /// Facts about the base model.
    base: BaseInfo,
    /// What a request may ask for.
    limits: Limits,
    /// When the server started; `created` of every model.
    started: SystemTime,
    /// The files and batches; without a place for them there are none.
    batches: Option<Batches>,
    /// What is left of what adapters' requests may take.
    meters: Meters,
    /// What is counted for Prometheus.
    metrics: Metrics,
    /// What is told of single requests.
    telemetry: Telemetry,
}

/// A state that is being put together. What is not said is left out or has its default.
#[derive(Debug)]
pub struct AppStateBuilder(Parts);

impl AppState {
    /// A server of one base model: `engine` runs its requests, `registry` holds its adapters.
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

    /// The base's chat template.
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
    /// The state, unless the server is gone.
    pub(crate) fn upgrade(&self) -> Option<AppState> {
        self.0.upgrade().map(AppState)
    }
}

impl AppStateBuilder {
    /// The base's chat template.
    pub fn template(self, template: Option<Arc<ChatTemplate>>) -> Self {
        Self(Parts { template, ..self.0 })
    }

    /// Who may do what.
    pub fn access(self, access: Option<Arc<Access>>) -> Self {
        Self(Parts { access, ..self.0 })
    }

    /// Where adapters may be added from over HTTP.
    pub fn sources(self, sources: AllowedSources) -> Self {
        let adapters = self.0.adapters.with_sources(sources);
        Self(Parts { adapters, ..self.0 })
    }

    /// What a request may ask for.
    pub fn limits(self, limits: Limits) -> Self {
        Self(Parts { limits, ..self.0 })
    }

    /// The files and batches.
    pub fn batches(self, batches: Option<Batches>) -> Self {
        Self(Parts { batches, ..self.0 })
    }

    /// What is counted for Prometheus, where something was counted before.
    pub fn metrics(self, metrics: Metrics) -> Self {
        Self(Parts { metrics, ..self.0 })
    }

    /// What is told of single requests.
    pub fn telemetry(self, telemetry: Telemetry) -> Self {
        Self(Parts { telemetry, ..self.0 })
    }

    /// The state; the server has started.
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

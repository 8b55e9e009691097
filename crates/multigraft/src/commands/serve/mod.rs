//! `multigraft serve`: puts the server together from the settings, and runs it.

mod overview;

use std::{path::Path, process::ExitCode, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use multigraft_access::{Access, Store};
use multigraft_adapters::{IsBusy, OnLoad, Registry, RegistryOptions};
use multigraft_engine::Engine;
use multigraft_model::MemoryBudget;
use multigraft_server::{
    AppState, BaseInfo, Batches, Ended, Metrics, Reconciler, Telemetry, Tls, interrupt, serve,
};
use multigraft_sources::{AllowedSource, AllowedSources, Fetcher};
use tokio::{
    net::TcpListener,
    runtime::{self, Runtime},
};

use crate::{
    cli::ServeArguments,
    config::{ConfigFile, ModelSettings, ServerSettings, Switch},
    idle_reclaim,
    load::{Base, fetcher, load_all},
    reload::Reload,
    traces::Traces,
};

pub(crate) use overview::count;
use overview::{Greeting, overview};

/// Threads for HTTP. They only parse, tokenise and write: the computing threads are the engine's.
const HTTP_THREADS: usize = 2;

/// Threads for work that takes long or waits for disks: long prompts, grammars, databases. Without
/// a bound, traffic that needs few of them at once leaves a hundred behind, each with freed memory
/// that the allocator keeps for it.
const BLOCKING_THREADS: usize = 16;

pub(crate) fn run(arguments: ServeArguments, config: Option<&Path>) -> Result<ExitCode> {
    let file = ConfigFile::read(config)?;
    let settings = ServerSettings::resolve(arguments.server, file.server)?;
    let model = ModelSettings::resolve(arguments.model, file.model)?;
    // First what may fail: loading the model takes long.
    let access = access(&settings)?;
    let tls = settings
        .tls()
        .map(|(cert, key)| Tls::open(cert, key))
        .transpose()?;
    let reload = Reload::new(config, tls.clone())?;
    let traces = settings.traces()?.as_ref().map(Traces::start).transpose()?;
    let sources = allowed_sources(&settings, &model)?;

    let fetcher = fetcher(&model, sources.hosts());
    let base = Base::open(&model, &fetcher)?;
    let budget = base.budget(&model)?;
    let engine = base.engine(&model, Arc::clone(&budget))?;
    let metrics = Metrics::default();
    let registry = registry(&base, &engine, &metrics, fetcher, budget, &settings, &model)?;
    if let Some(file) = &settings.adapters_file {
        let audit = access.as_ref().map(|access| access.store().audit().clone());
        Reconciler::new(file, registry.clone(), audit).start()?;
    }

    let greeting = Greeting {
        overview: overview(&base, &registry, &engine, &model),
        model: registry.names().into_iter().next().unwrap_or(base.name.clone()),
        is_tls: tls.is_some(),
        is_open: access.as_ref().is_none_or(|access| access.is_empty()),
    };
    let info = base_info(&base, &engine);
    let state = AppState::builder(engine.clone(), base.tokenizer, registry, info)
        .template(base.template.map(Arc::new))
        .access(access.clone())
        .sources(sources)
        .limits(settings.limits()?)
        .batches(batches(&settings)?)
        .metrics(metrics)
        .telemetry(telemetry(&settings, traces.as_ref()))
        .build();

    let runtime = http_runtime()?;
    let ended = runtime.block_on(async {
        let address = settings.address();
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}"))?;
        greeting.print(listener.local_addr()?)?;
        // Both end with the runtime.
        tokio::spawn(reload.on_hangup());
        tokio::spawn(idle_reclaim::run());
        let (connections, grace) = (settings.connections(), settings.grace());
        let serving = serve(listener, state, connections, tls, grace, interrupt);
        Ok::<_, anyhow::Error>(serving.await?)
    })?;
    match ended {
        Ended::Drained => engine.shutdown(),
        Ended::CutOff => engine.abort(),
    }
    runtime.shutdown_background();
    if let Some(traces) = traces {
        traces.flush();
    }
    if let Some(access) = &access
        && let Err(error) = access.save()
    {
        tracing::error!(%error, "the keys' tokens of this month could not be written");
    }
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Where adapters may be added from. If nothing is said, from the folder of adapters.
fn allowed_sources(settings: &ServerSettings, model: &ModelSettings) -> Result<AllowedSources> {
    let mut allowed = settings.allow_source.clone();
    if allowed.is_empty() {
        allowed.extend(model.adapters.clone().map(AllowedSource::Folder));
    }
    AllowedSources::new(&allowed).context("--allow-source")
}

/// The registry of adapters, loaded as far as `preload` says so.
fn registry(
    base: &Base,
    engine: &Engine,
    metrics: &Metrics,
    fetcher: Arc<Fetcher>,
    budget: Arc<MemoryBudget>,
    settings: &ServerSettings,
    model: &ModelSettings,
) -> Result<Registry> {
    let (engine, metrics) = (engine.clone(), metrics.clone());
    let options = RegistryOptions {
        data: settings.data.clone(),
        is_busy: IsBusy::new(move || engine.stats().running > 0),
        fetcher,
        budget,
        on_load: OnLoad::new(move |time, loaded| metrics.loaded(time, loaded)),
        ..RegistryOptions::default()
    };
    let registry = base.registry(model, options)?;
    if settings.preload == Switch::On {
        load_all(&registry)?;
    }
    Ok(registry)
}

fn base_info(base: &Base, engine: &Engine) -> BaseInfo {
    let config = base.model.config();
    BaseInfo {
        path: base.path.clone(),
        architecture: config.architecture.clone(),
        parameters: base.parameters,
        context: engine.limits().room_after(0),
        vocab: config.vocab,
        hidden: config.hidden,
    }
}

/// The files and batches in the data folder.
fn batches(settings: &ServerSettings) -> Result<Option<Batches>> {
    let Some(folder) = &settings.data else {
        return Ok(None);
    };
    Ok(Some(Batches::new(multigraft_batches::Store::open(folder)?)))
}

fn http_runtime() -> Result<Runtime> {
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(HTTP_THREADS)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("http")
        .enable_all()
        .build();
    Ok(runtime?)
}

/// What is recorded of single requests: spans, and prompts and answers in the log.
fn telemetry(settings: &ServerSettings, traces: Option<&Traces>) -> Telemetry {
    if settings.log_prompts {
        tracing::warn!("prompts and answers are written to this log (--log-prompts)");
    }
    Telemetry {
        log_prompts: settings.log_prompts,
        tracer: traces.map(Traces::tracer),
    }
}

/// The API keys in the data folder, which are read again when they change. Without keys, listening
/// for other machines takes `--no-auth`.
fn access(settings: &ServerSettings) -> Result<Option<Arc<Access>>> {
    let access = match &settings.data {
        None => None,
        Some(folder) => Some(Arc::new(Access::new(Store::open(folder)?)?)),
    };
    let is_open = access.as_ref().is_none_or(|access| access.is_empty());
    ensure!(
        !is_open || settings.no_auth || settings.address().ip().is_loopback(),
        "{} can be reached from other machines, and there are no API keys: make one with `multigraft keys add NAME --data FOLDER` \
         and serve with --data FOLDER, or leave --host out, or accept with --no-auth that everybody may do everything",
        settings.address().ip()
    );
    if let Some(access) = &access {
        access.follow()?;
    }
    Ok(access)
}

//! `multigraft serve`.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    net::SocketAddr,
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::SystemTime,
};

use anyhow::{Context as _, Result, ensure};
use multigraft_access::{Access, Store};
use multigraft_adapters::{
    AllowedSource, AllowedSources, IsBusy, OnLoad, Registry, RegistryOptions, Residency,
};
use multigraft_engine::Engine;
use multigraft_server::{
    AppState, BaseInfo, Batches, Constraints, Ended, Meters, Metrics, Telemetry, Tls, Underway, interrupt,
    serve,
};
use tokio::{net::TcpListener, runtime};

use crate::{
    cli::ServeArguments,
    config::{ConfigFile, ModelSettings, ServerSettings},
    idle_reclaim,
    load::{Base, fetcher, load_all},
    memory::Bytes,
    reconcile::Reconciler,
    reload::Reload,
    traces::Traces,
};

/// Threads for HTTP. They only parse, tokenise and write: the computing threads are the engine's.
const HTTP_THREADS: usize = 2;

/// Threads beside these for what takes long or waits for disks: long prompts, grammars, databases.
/// Without a bound, traffic that needs few of them at once leaves a hundred behind, each with
/// memory that it has freed and the allocator keeps for it.
const BLOCKING_THREADS: usize = 16;

pub(crate) fn run(arguments: ServeArguments, config: Option<&Path>) -> Result<ExitCode> {
    let file = ConfigFile::read(config)?;
    let server = ServerSettings::resolve(&arguments.server, &file.server)?;
    let settings = ModelSettings::resolve(arguments.model, file.model)?;
    let access = access(&server)?;
    // Before the model, which takes long to load.
    let tls = server.tls.as_ref().map(|(cert, key)| Tls::open(cert, key));
    let tls = tls.transpose()?;
    let reload = Reload::new(config, tls.clone())?;
    let traces = server.traces.as_ref().map(Traces::start).transpose()?;

    let mut allowed = server.allow_source.clone();
    if allowed.is_empty() {
        allowed.extend(settings.adapters.clone().map(AllowedSource::Folder));
    }
    let sources = AllowedSources::new(&allowed).context("--allow-source")?;
    let fetcher = fetcher(&settings, sources.hosts());
    let base = Base::open(&settings, &fetcher)?;
    let budget = base.budget(&settings)?;
    let engine = base.engine(&settings, Arc::clone(&budget))?;
    let watched = engine.clone();
    let is_busy = IsBusy::new(move || watched.stats().running > 0);
    let metrics = Metrics::default();
    let counted = metrics.clone();
    let on_load = OnLoad::new(move |time, loaded| counted.loaded(time, loaded));
    let options = RegistryOptions {
        data: server.data.clone(),
        is_busy,
        fetcher,
        budget,
        on_load,
        ..RegistryOptions::default()
    };
    let registry = base.registry(&settings, options)?;
    if server.preload {
        load_all(&registry)?;
    }
    if let Some(file) = &server.adapters_file {
        let audit = access.as_ref().map(|access| access.store().audit().clone());
        Reconciler::new(file, registry.clone(), audit).start()?;
    }
    let overview = overview(&base, &registry, &engine, &settings);
    let example = registry.names().into_iter().next().unwrap_or(base.name.clone());
    let batches = match &server.data {
        Some(folder) => Some(Batches::new(multigraft_batches::Store::open(folder)?)),
        None => None,
    };
    let state = AppState {
        engine: engine.clone(),
        registry,
        sources,
        constraints: Arc::new(Constraints::new(Arc::clone(&base.tokenizer))),
        underway: Underway::default(),
        access: access.clone(),
        base: BaseInfo {
            architecture: base.model.config().architecture.clone(),
            parameters: base.parameters,
            context: engine.limits().room_after(0),
            vocab: base.model.config().vocab,
            hidden: base.model.config().hidden,
            path: base.path,
        },
        tokenizer: base.tokenizer,
        template: base.template.map(Arc::new),
        limits: server.limits.clone(),
        started: SystemTime::now(),
        meters: Meters::default(),
        batches,
        metrics,
        telemetry: telemetry(&server, traces.as_ref()),
    };

    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(HTTP_THREADS)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("http")
        .enable_all()
        .build()?;
    let ended = runtime.block_on(async {
        let listener = TcpListener::bind(server.address)
            .await
            .with_context(|| format!("cannot listen on {}", server.address))?;
        let is_open = access.as_ref().is_none_or(|access| access.is_empty());
        announce(
            &overview,
            listener.local_addr()?,
            tls.is_some(),
            &example,
            is_open,
        )?;
        tokio::spawn(reload.on_hangup());
        let state = Arc::new(state);
        // It ends with the runtime.
        tokio::spawn(idle_reclaim::run());
        let serving = serve(listener, state, server.connections, tls, server.grace, interrupt);
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

/// What is told of single requests.
fn telemetry(server: &ServerSettings, traces: Option<&Traces>) -> Telemetry {
    if server.log_prompts {
        tracing::warn!("prompts and answers are written to this log (--log-prompts)");
    }
    Telemetry {
        log_prompts: server.log_prompts,
        tracer: traces.map(Traces::tracer),
    }
}

/// The keys of the data folder, which are followed as they change. Without any, only this machine
/// is served, unless others were meant.
fn access(server: &ServerSettings) -> Result<Option<Arc<Access>>> {
    let access = match &server.data {
        None => None,
        Some(folder) => Some(Arc::new(Access::new(Store::open(folder)?)?)),
    };
    let is_open = access.as_ref().is_none_or(|access| access.is_empty());
    ensure!(
        !is_open || server.no_auth || server.address.ip().is_loopback(),
        "{} can be reached from other machines, and there are no API keys: make one with `multigraft keys add NAME --data FOLDER` \
         and serve with --data FOLDER, or leave --host out, or accept with --no-auth that everybody may do everything",
        server.address.ip()
    );
    if let Some(access) = &access {
        access.follow()?;
    }
    Ok(access)
}

/// Adapters that the terminal shows one by one.
const SHOWN: usize = 40;

/// What is served and what it takes, for the terminal.
fn overview(base: &Base, registry: &Registry, engine: &Engine, settings: &ModelSettings) -> String {
    let limits = engine.limits();
    let config = base.model.config();
    let adapters = registry.list();
    let kv_bytes = Bytes::from(
        base.model.kv_block(settings.kv_dtype.into()).bytes * limits.cache_tokens / limits.block_tokens,
    );
    let (adapter_bytes, most) = registry.memory();
    let up_to = match most {
        usize::MAX => String::new(),
        most => format!(" of up to {}", Bytes::from(most)),
    };
    let together = settings
        .memory
        .map_or_else(String::new, |memory| format!(", {memory} together"));
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "base      {} ({}, {} parameters)\nfile      {}\nmemory    weights {}, adapters {}{up_to}, keys and values up \
         to {} ({} tokens){together}\ncontext   {} tokens\nthreads   {}\nadapters  {}",
        base.name,
        config.architecture,
        count(base.parameters),
        base.path.display(),
        Bytes::from(base.model.bytes()),
        Bytes::from(adapter_bytes),
        kv_bytes,
        limits.cache_tokens,
        limits.context,
        settings.threads,
        if adapters.is_empty() {
            "none".to_owned()
        } else {
            adapters.len().to_string()
        },
    );
    let width = adapters
        .iter()
        .take(SHOWN)
        .map(|listed| listed.name.chars().count())
        .max()
        .unwrap_or(0);
    for listed in adapters.iter().take(SHOWN) {
        let _ = match &listed.residency {
            Residency::Resident { bytes, info } => {
                let rank = match info.ranks {
                    None => "-".to_owned(),
                    Some((least, most)) if least == most => least.to_string(),
                    Some((least, most)) => format!("{least}-{most}"),
                };
                let (bytes, hash) = (
                    Bytes::from(*bytes).to_string(),
                    info.hash.get(..12).unwrap_or_default(),
                );
                writeln!(
                    text,
                    "  {:width$}  rank {rank:<5} {bytes:>9}  {hash}",
                    listed.name
                )
            }
            _ => writeln!(text, "  {:width$}  loaded when it is asked for", listed.name),
        };
    }
    if let Some(more) = adapters.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        let _ = writeln!(text, "  and {more} more");
    }
    text
}

/// Says on stdout that the server answers now, and how to ask it.
fn announce(overview: &str, address: SocketAddr, is_tls: bool, model: &str, is_open: bool) -> Result<()> {
    let mut out = io::stdout().lock();
    let body = serde_json::json!({"model": model, "messages": [{"role": "user", "content": "Hello"}]});
    let scheme = if is_tls { "https" } else { "http" };
    let key = if is_open {
        ""
    } else {
        "-H 'authorization: Bearer mg-…' "
    };
    writeln!(
        out,
        "{overview}\nlistening on {scheme}://{address} (Ctrl-C stops)\n\ntry:\n  curl {scheme}://{address}/v1/chat/completions \
         {key}-H 'content-type: application/json' \\\n    -d '{body}'\n"
    )?;
    out.flush()?;
    if is_open && !address.ip().is_loopback() {
        tracing::warn!(
            "{address} can be reached from other machines, and there are no API keys: everybody who reaches it \
             can use every model"
        );
    }
    Ok(())
}

/// A number of parameters as people say it.
#[expect(clippy::cast_precision_loss, reason = "four digits are shown")]
pub(crate) fn count(parameters: u64) -> String {
    let parameters = parameters as f64;
    match parameters {
        n if n >= 1e9 => format!("{:.2} billion", n / 1e9),
        n if n >= 1e6 => format!("{:.1} million", n / 1e6),
        n if n >= 1e3 => format!("{:.1} thousand", n / 1e3),
        n => format!("{n}"),
    }
}

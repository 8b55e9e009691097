//! What holds after flags, environment, file and defaults were put together.

use std::{
    collections::BTreeMap,
    env,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    thread,
    time::Duration,
};

use anyhow::{Result, anyhow, ensure};
use multigraft_adapters::AllowedSource;
use multigraft_engine::EngineOptions;
use multigraft_server::{ConnectionLimits, Limits};
use reqwest::Url;

use super::options::{
    AdapterDtype, BaseAlias, KvDtype, ModelOptions, NamedSource, SelfTestMode, ServerOptions, Switch,
};
use crate::{device::Device, memory::Bytes};

/// The base model, its adapters, and what they may use.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ModelSettings {
    /// The base as it was named: a path or a name. `None`: the one that the first adapter was made
    /// for.
    pub base: Option<String>,
    /// Where bases are that adapters call by these names.
    pub base_alias: BTreeMap<String, PathBuf>,
    /// The name that requests call the base by, if not its own.
    pub base_name: Option<String>,
    /// Single adapters, each name once.
    pub adapter: Vec<NamedSource>,
    /// A folder of adapters.
    pub adapters: Option<PathBuf>,
    /// How adapters are kept in memory.
    pub adapter_dtype: AdapterDtype,
    /// Memory for adapters, if it is bounded.
    pub adapter_memory: Option<Bytes>,
    /// Memory for adapters and keys and values together, if they have one budget.
    pub memory: Option<Bytes>,
    /// What becomes of adapters that fail their self test.
    pub self_test: SelfTestMode,
    /// Disk space for what is fetched of adapters.
    pub disk_cache: Bytes,
    /// What computes.
    pub device: Device,
    /// Threads that compute, at least 1.
    pub threads: usize,
    /// The longest sequence, if not the model's own context.
    pub context: Option<usize>,
    /// Memory for keys and values, if not the default for the model.
    pub kv_memory: Option<Bytes>,
    /// How keys and values are kept in memory.
    pub kv_dtype: KvDtype,
    /// What the engine does at once.
    pub engine: EngineOptions,
}

/// The HTTP server.
#[derive(Clone, Debug)]
pub(crate) struct ServerSettings {
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether it may do so for others without API keys.
    pub no_auth: bool,
    /// What a single request may ask for.
    pub limits: Limits,
    /// Where traces are sent, if anywhere: the whole URL.
    pub traces: Option<Url>,
    /// Whether prompts and answers are logged.
    pub log_prompts: bool,
    /// The files of the certificate and the key, if it speaks TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// What connections may take.
    pub connections: ConnectionLimits,
    /// How long requests under way may go on after the first signal.
    pub grace: Duration,
    /// Whether adapters are loaded before the first request.
    pub preload: bool,
    /// Where what is to survive a restart is kept.
    pub data: Option<PathBuf>,
    /// A file that says which adapters are served.
    pub adapters_file: Option<PathBuf>,
    /// Where adapters may be added from; empty if nothing was said.
    pub allow_source: Vec<AllowedSource>,
}

impl ModelSettings {
    /// Flags and environment (clap has put these together) over the file over the defaults.
    pub(crate) fn resolve(flags: ModelOptions, file: ModelOptions) -> Result<Self> {
        let engine = EngineOptions::default();
        let given = match flags.adapter.is_empty() {
            true => lora_adapters(env::var("LORA_ADAPTERS").ok())?,
            false => flags.adapter,
        };
        let settings = Self {
            base: flags.base.or(file.base),
            base_alias: aliases(file.base_alias.into_iter().chain(flags.base_alias)),
            base_name: flags.base_name.or(file.base_name),
            adapter: merge(given, file.adapter)?,
            adapters: flags.adapters.or(file.adapters),
            adapter_dtype: flags
                .adapter_dtype
                .or(file.adapter_dtype)
                .unwrap_or(AdapterDtype::Bf16),
            adapter_memory: flags.adapter_memory.or(file.adapter_memory),
            memory: flags.memory.or(file.memory),
            self_test: flags.self_test.or(file.self_test).unwrap_or(SelfTestMode::Warn),
            disk_cache: flags.disk_cache.or(file.disk_cache).unwrap_or(DISK_CACHE),
            device: flags.device.or(file.device).unwrap_or_default(),
            threads: flags.threads.or(file.threads).unwrap_or_else(default_threads),
            context: flags.context.or(file.context),
            kv_memory: flags.kv_memory.or(file.kv_memory),
            kv_dtype: flags.kv_dtype.or(file.kv_dtype).unwrap_or(KvDtype::Bf16),
            engine: EngineOptions {
                step_tokens: flags
                    .max_batch_tokens
                    .or(file.max_batch_tokens)
                    .unwrap_or(engine.step_tokens),
                max_running: flags
                    .max_running
                    .or(file.max_running)
                    .unwrap_or(engine.max_running),
                max_waiting: flags
                    .max_waiting
                    .or(file.max_waiting)
                    .unwrap_or(engine.max_waiting),
                prefix_cache: flags
                    .prefix_cache
                    .or(file.prefix_cache)
                    .map_or(engine.prefix_cache, |switch| switch == Switch::On),
            },
        };
        ensure!(
            settings.base.is_some() || !settings.adapter.is_empty() || settings.adapters.is_some(),
            "no base model: give one with --base, such as --base model.gguf or --base smollm2, or an adapter whose base is to be \
             served, such as --adapter org/repo",
        );
        for (name, value) in [
            ("threads", Some(settings.threads)),
            ("context", settings.context),
            ("max-batch-tokens", Some(settings.engine.step_tokens)),
            ("max-running", Some(settings.engine.max_running)),
            ("max-waiting", Some(settings.engine.max_waiting)),
        ] {
            ensure!(value != Some(0), "{name} is 0, but must be 1 or more");
        }
        ensure!(
            settings.threads <= MAX_THREADS,
            "threads is {}, but may be at most {MAX_THREADS}; this machine has {}",
            settings.threads,
            default_threads()
        );
        Ok(settings)
    }
}

impl ServerSettings {
    /// Flags and environment over the file over the defaults.
    pub(crate) fn resolve(flags: &ServerOptions, file: &ServerOptions) -> Result<Self> {
        let limits = Limits::default();
        let body = flags.max_body.or(file.max_body);
        let upload = flags.max_upload.or(file.max_upload);
        let connections = ConnectionLimits::default();
        let most = flags
            .max_connections
            .or(file.max_connections)
            .unwrap_or(connections.most);
        let time = flags.request_timeout.or(file.request_timeout);
        ensure!(
            time != Some(0),
            "request-timeout is 0, but must be 1 second or more; without it requests take as long as they take"
        );
        let cert = flags.tls_cert.clone().or_else(|| file.tls_cert.clone());
        let key = flags.tls_key.clone().or_else(|| file.tls_key.clone());
        ensure!(
            cert.is_some() == key.is_some(),
            "TLS needs both a certificate (--tls-cert FILE) and its key (--tls-key FILE); one is missing"
        );
        ensure!(most > 0, "max-connections is 0, but must be 1 or more");
        Ok(Self {
            address: SocketAddr::new(
                flags
                    .host
                    .or(file.host)
                    .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
                flags.port.or(file.port).unwrap_or(8080),
            ),
            no_auth: flags.no_auth || file.no_auth,
            traces: traces(
                flags.otlp_endpoint.as_deref().or(file.otlp_endpoint.as_deref()),
                |name| env::var(name).ok(),
            )?,
            log_prompts: flags.log_prompts || file.log_prompts,
            limits: Limits {
                body_bytes: body.map_or(Ok(limits.body_bytes), |bytes| usize::try_from(bytes.0))?,
                upload_bytes: upload.map_or(Ok(limits.upload_bytes), |bytes| usize::try_from(bytes.0))?,
                default_max_tokens: flags
                    .default_max_tokens
                    .or(file.default_max_tokens)
                    .unwrap_or(limits.default_max_tokens)
                    .max(1),
                load_wait: flags
                    .load_wait
                    .or(file.load_wait)
                    .map_or(limits.load_wait, Duration::from_secs),
                request_time: time.map(Duration::from_secs),
                ..limits
            },
            tls: cert.zip(key),
            connections: ConnectionLimits { most, ..connections },
            preload: flags
                .preload
                .or(file.preload)
                .is_none_or(|switch| switch == Switch::On),
            adapters_file: flags.adapters_file.clone().or_else(|| file.adapters_file.clone()),
            data: flags.data.clone().or_else(|| file.data.clone()),
            allow_source: match flags.allow_source.is_empty() {
                true => file.allow_source.clone(),
                false => flags.allow_source.clone(),
            },
            grace: Duration::from_secs(flags.grace.or(file.grace).unwrap_or(30)),
        })
    }
}

/// Where traces are sent: to what was `given`, or else to what OpenTelemetry's variables say.
/// <https://opentelemetry.io/docs/specs/otel/protocol/exporter/>
fn traces(given: Option<&str>, variable: impl Fn(&str) -> Option<String>) -> Result<Option<Url>> {
    // Only the variable for traces names the whole of the URL.
    const WHOLE: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
    const BASE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    let set = |name| variable(name).filter(|value| !value.trim().is_empty());
    if set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Ok(None);
    }
    let given = given.map(|url| ("otlp-endpoint", url.to_owned()));
    let given = given
        .or_else(|| Some((WHOLE, set(WHOLE)?)))
        .or_else(|| Some((BASE, set(BASE)?)));
    let Some((name, text)) = given else {
        return Ok(None);
    };
    let url = Url::parse(text.trim()).ok();
    let mut url = url
        .filter(|url| matches!(url.scheme(), "http" | "https"))
        .ok_or_else(|| anyhow!("{name} is `{text}`, but must be a URL such as http://localhost:4318"))?;
    if name != WHOLE && !url.path().ends_with("/v1/traces") {
        let path = format!("{}/v1/traces", url.path().trim_end_matches('/'));
        url.set_path(&path);
    }
    Ok(Some(url))
}

/// Disk space for what is fetched, where nothing is said.
const DISK_CACHE: Bytes = Bytes(16 << 30);

/// More threads than any machine has cores: a slip of the keyboard.
const MAX_THREADS: usize = 1024;

/// One thread per core that this process may use.
pub(crate) fn default_threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// TGI's variable: `id[@revision]` or `name=path`, separated by commas.
fn lora_adapters(variable: Option<String>) -> Result<Vec<NamedSource>> {
    let text = variable.unwrap_or_default();
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let sources = parts.map(|part| part.parse().map_err(|error| anyhow!("LORA_ADAPTERS: {error}")));
    sources.collect()
}

/// Where each name is; the last one counts.
fn aliases(given: impl Iterator<Item = BaseAlias>) -> BTreeMap<String, PathBuf> {
    given.map(|alias| (alias.name, alias.path)).collect()
}

/// The file's adapters and the flags'; where both have a name, the flag's. A name twice in one
/// place is an error.
fn merge(flags: Vec<NamedSource>, file: Vec<NamedSource>) -> Result<Vec<NamedSource>> {
    for (index, adapter) in flags.iter().enumerate() {
        let name = &adapter.name;
        ensure!(
            !flags[..index].iter().any(|earlier| earlier.name == *name),
            "--adapter {name}=… is given twice; every adapter needs a name of its own"
        );
    }
    let mut merged: Vec<NamedSource> = file
        .into_iter()
        .filter(|adapter| !flags.iter().any(|flag| flag.name == adapter.name))
        .collect();
    merged.extend(flags);
    Ok(merged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> NamedSource {
        text.parse().expect("NAME=PATH")
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let flags = ModelOptions {
            base: Some("flag".into()),
            adapter: vec![named("a=flag")],
            ..ModelOptions::default()
        };
        let file = ModelOptions {
            base: Some("file".into()),
            threads: Some(7),
            prefix_cache: Some(Switch::Off),
            adapter: vec![named("a=file"), named("b=file")],
            ..ModelOptions::default()
        };
        let settings = ModelSettings::resolve(flags, file).expect("valid");
        assert_eq!((settings.base.as_deref(), settings.threads), (Some("flag"), 7));
        assert_eq!(settings.adapter, [named("b=file"), named("a=flag")]);
        let engine = EngineOptions {
            prefix_cache: false,
            ..EngineOptions::default()
        };
        assert_eq!(settings.engine, engine);
    }

    #[test]
    fn traces_go_where_the_flag_or_opentelemetrys_variables_say() {
        let traces = |given, variables: &[(&str, &str)]| {
            let variable = |name: &str| {
                let found = variables.iter().find(|(of, _)| *of == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            traces(given, variable).map(|url| url.map(String::from))
        };
        let (base, whole) = (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        );
        for (given, variables, expected) in [
            (None, &[][..], None),
            (None, &[(base, "")], None),
            (Some("http://c:4318"), &[], Some("http://c:4318/v1/traces")),
            (Some("http://c/v1/traces"), &[], Some("http://c/v1/traces")),
            (None, &[(base, "https://c/x/")], Some("https://c/x/v1/traces")),
            (
                None,
                &[(base, "http://c"), (whole, "http://d/y")],
                Some("http://d/y"),
            ),
            (
                Some("http://a"),
                &[(whole, "http://d/y")],
                Some("http://a/v1/traces"),
            ),
            (Some("http://a"), &[("OTEL_SDK_DISABLED", "true")], None),
        ] {
            let url = traces(given, variables).expect("URLs");
            assert_eq!(url.as_deref(), expected, "{given:?} {variables:?}");
        }
        for (given, variables, name) in [
            (Some("localhost:4318"), &[][..], "otlp-endpoint"),
            (None, &[(base, "grpc://c")], base),
        ] {
            let problem = traces(given, variables).expect_err("no URL").to_string();
            assert!(problem.contains(name), "{problem}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let base = || ModelOptions {
            base: Some("x".into()),
            ..ModelOptions::default()
        };
        let refused = |flags: ModelOptions| {
            ModelSettings::resolve(flags, ModelOptions::default())
                .expect_err("should be refused")
                .to_string()
        };
        assert!(refused(ModelOptions::default()).contains("--base"));
        assert!(
            refused(ModelOptions {
                threads: Some(0),
                ..base()
            })
            .contains("threads")
        );
        let twice = vec![named("a=1"), named("a=2")];
        assert!(
            refused(ModelOptions {
                adapter: twice,
                ..base()
            })
            .contains("twice")
        );
    }
}

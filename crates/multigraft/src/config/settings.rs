//! What the settings say together: checks across several of them, and values that follow from them.

use std::{env, net::SocketAddr, path::Path, time::Duration};

use anyhow::{Result, anyhow, ensure};
use multigraft_engine::EngineOptions;
use multigraft_server::{ConnectionLimits, Limits};
use reqwest::Url;

use super::options::{ModelOptions, ModelSettings, ServerOptions, ServerSettings};
use super::values::{NamedSource, Switch, default_threads};

/// More threads than any machine has cores: a typing error.
const MAX_THREADS: usize = 1024;

impl ModelSettings {
    /// The flags (clap has put the environment's variables among them) over the file over the
    /// defaults.
    pub(crate) fn resolve(mut flags: ModelOptions, file: ModelOptions) -> Result<Self> {
        if flags.adapter.is_empty() {
            flags.adapter = lora_adapters(env::var("LORA_ADAPTERS").ok())?;
        } else {
            check_names(&flags.adapter)?;
        }
        let settings = flags.over(file);
        ensure!(
            settings.base.is_some() || !settings.adapter.is_empty() || settings.adapters.is_some(),
            "no base model: give one with --base, such as --base model.gguf or --base smollm2, or an adapter whose base is to be \
             served, such as --adapter org/repo",
        );
        for (name, value) in [
            ("threads", Some(settings.threads)),
            ("context", settings.context),
            ("max-batch-tokens", Some(settings.max_batch_tokens)),
            ("max-running", Some(settings.max_running)),
            ("max-waiting", Some(settings.max_waiting)),
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

    /// The options of the engine.
    pub(crate) fn engine(&self) -> EngineOptions {
        EngineOptions {
            step_tokens: self.max_batch_tokens,
            max_running: self.max_running,
            max_waiting: self.max_waiting,
            prefix_cache: self.prefix_cache == Switch::On,
        }
    }

    /// Where the base is that adapters call by this name, if an alias says so.
    pub(crate) fn alias(&self, base: &str) -> Option<&Path> {
        let alias = self.base_alias.iter().rfind(|alias| alias.name == base);
        alias.map(|alias| alias.path.as_path())
    }
}

impl ServerSettings {
    /// The flags and the environment over the file over the defaults.
    pub(crate) fn resolve(flags: ServerOptions, file: ServerOptions) -> Result<Self> {
        let settings = flags.over(file);
        ensure!(
            settings.request_timeout != Some(0),
            "request-timeout is 0, but must be 1 second or more; without it requests take as long as they take"
        );
        ensure!(
            settings.tls_cert.is_some() == settings.tls_key.is_some(),
            "TLS needs both a certificate (--tls-cert FILE) and its key (--tls-key FILE); one is missing"
        );
        ensure!(
            settings.max_connections > 0,
            "max-connections is 0, but must be 1 or more"
        );
        settings.traces()?;
        settings.limits()?;
        Ok(settings)
    }

    /// The address and port to listen on.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.port)
    }

    /// The limits of single requests.
    ///
    /// # Errors
    /// If this machine cannot address as many bytes.
    pub(crate) fn limits(&self) -> Result<Limits> {
        Ok(Limits {
            body_bytes: usize::try_from(self.max_body.0)?,
            upload_bytes: usize::try_from(self.max_upload.0)?,
            default_max_tokens: self.default_max_tokens.max(1),
            load_wait: Duration::from_secs(self.load_wait),
            request_time: self.request_timeout.map(Duration::from_secs),
            ..Limits::default()
        })
    }

    /// The URL that traces are sent to, if any.
    ///
    /// # Errors
    /// If the setting or OpenTelemetry's variable is not a URL.
    pub(crate) fn traces(&self) -> Result<Option<Url>> {
        traces(self.otlp_endpoint.as_deref(), |name| env::var(name).ok())
    }

    /// The files of the certificate and its key, if the server speaks TLS.
    pub(crate) fn tls(&self) -> Option<(&Path, &Path)> {
        self.tls_cert.as_deref().zip(self.tls_key.as_deref())
    }

    /// The limits of connections.
    pub(crate) fn connections(&self) -> ConnectionLimits {
        ConnectionLimits {
            most: self.max_connections,
            ..ConnectionLimits::default()
        }
    }

    /// How long running requests may go on after the first signal to stop.
    pub(crate) fn grace(&self) -> Duration {
        Duration::from_secs(self.grace)
    }
}

/// Where traces are sent: to the URL that is `given`, or else to that of OpenTelemetry's variables.
/// <https://opentelemetry.io/docs/specs/otel/protocol/exporter/>
fn traces(given: Option<&str>, variable: impl Fn(&str) -> Option<String>) -> Result<Option<Url>> {
    // Only the variable for traces has the whole URL. The others have no path.
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

/// The adapters in TGI's variable: `id[@revision]` or `name=path`, separated by commas.
fn lora_adapters(variable: Option<String>) -> Result<Vec<NamedSource>> {
    let text = variable.unwrap_or_default();
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let sources = parts.map(|part| part.parse().map_err(|error| anyhow!("LORA_ADAPTERS: {error}")));
    sources.collect()
}

/// Each name may be given once.
fn check_names(flags: &[NamedSource]) -> Result<()> {
    for (index, adapter) in flags.iter().enumerate() {
        let name = &adapter.name;
        ensure!(
            !flags[..index].iter().any(|earlier| earlier.name == *name),
            "--adapter {name}=… is given twice; every adapter needs a name of its own"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::values::BaseAlias;

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
        assert_eq!(settings.engine(), engine);
    }

    #[test]
    fn of_several_aliases_the_last_one_counts_and_flags_come_after_the_file() {
        let aliases = |texts: &[&str]| -> Vec<BaseAlias> {
            texts
                .iter()
                .map(|text| text.parse().expect("NAME=PATH"))
                .collect()
        };
        let flags = ModelOptions {
            base: Some("x".into()),
            base_alias: aliases(&["a=flag-1", "a=flag-2"]),
            ..ModelOptions::default()
        };
        let file = ModelOptions {
            base_alias: aliases(&["a=file", "b=file"]),
            ..ModelOptions::default()
        };
        let settings = ModelSettings::resolve(flags, file).expect("valid");
        assert_eq!(settings.alias("a"), Some(Path::new("flag-2")));
        assert_eq!(settings.alias("b"), Some(Path::new("file")));
        assert_eq!(settings.alias("c"), None);
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
    fn invalid_settings_are_refused_by_name() {
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

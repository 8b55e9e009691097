//! Every setting that can be given, by flag, environment variable or file. The doc comments are the
//! help texts.
//!
//! One definition serves both clap and serde, so a flag `--kv-memory` and a line `kv-memory =
//! "2GiB"` cannot drift apart. All fields are optional: what nobody gave gets its default in
//! [`super::settings`].

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, str::FromStr};

use clap::{Args, ValueEnum};
use multigraft_adapters::{AllowedSource, Reference};
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::{device::Device, memory::Bytes};

/// The base model, its adapters, and what they may use. The file's table `[model]`.
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize)]
#[command(next_help_heading = "Model")]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct ModelOptions {
    /// The base model: a GGUF file, a Hugging Face folder, the name of a model in a local cache
    /// (`smollm2`, `org/name`), or a repository of the Hugging Face Hub (`org/name`,
    /// `hf://org/name@revision`). [default: the base that the first adapter was made for, by its
    /// files]
    #[arg(long, value_name = "MODEL", env = "MULTIGRAFT_BASE")]
    pub base: Option<String>,

    /// Where a base is that adapters call by this name, in place of the Hub. Repeatable; commas
    /// separate several in the environment variable; in a file, `base-alias."org/name" = "PATH"`.
    #[arg(
        long,
        value_name = "NAME=PATH",
        env = "MULTIGRAFT_BASE_ALIAS",
        value_delimiter = ','
    )]
    #[serde(deserialize_with = "base_aliases")]
    pub base_alias: Vec<BaseAlias>,

    /// The name that requests call the base by. [default: the model's own name]
    #[arg(long, value_name = "NAME", env = "MULTIGRAFT_BASE_NAME")]
    pub base_name: Option<String>,

    /// An adapter and the name that requests call it by; without a name, its folder's, file's or
    /// repository's. It is a folder, a .gguf file, a repository of the Hugging Face Hub
    /// (`org/repo`, `hf://org/repo@revision`), or a folder in an object store or on a web server
    /// (`s3://`, `gs://`, `az://`, `https://`). Repeatable; commas separate several in the
    /// environment variable; in a file, `adapter.NAME = "SOURCE"`. TGI's `LORA_ADAPTERS` is
    /// understood too.
    #[arg(
        long,
        alias = "lora-adapters",
        value_name = "[NAME=]SOURCE",
        env = "MULTIGRAFT_ADAPTER",
        value_delimiter = ','
    )]
    #[serde(deserialize_with = "named_sources")]
    pub adapter: Vec<NamedSource>,

    /// A folder of adapters: folders and .gguf files, each called by its name.
    #[arg(long, value_name = "FOLDER", env = "MULTIGRAFT_ADAPTERS")]
    pub adapters: Option<PathBuf>,

    /// How adapters are kept in memory: bf16 takes half of f32, at the precision that nearly all
    /// are saved in; int8 takes little more than half of bf16, its updates less than 1 % off.
    /// [default: bf16]
    #[arg(long, value_name = "TYPE", env = "MULTIGRAFT_ADAPTER_DTYPE")]
    pub adapter_dtype: Option<AdapterDtype>,

    /// Memory for adapters. When it is full, those that were not used for longest are dropped, and
    /// loaded again when they are asked for. [default: as much as they take]
    #[arg(long, value_name = "BYTES", env = "MULTIGRAFT_ADAPTER_MEMORY")]
    pub adapter_memory: Option<Bytes>,

    /// Memory for adapters and for keys and values together: what one of them does not use is the
    /// other's, and whoever was idle for longest makes room. What one whole context takes is always
    /// there for keys and values. `--adapter-memory` and `--kv-memory` bound each of them further.
    /// [default: none, each has its own]
    #[arg(long, value_name = "BYTES", env = "MULTIGRAFT_MEMORY")]
    pub memory: Option<Bytes>,

    /// What becomes of an adapter that fails its self test when it is first loaded: one that moves
    /// no logit of a fixed prompt, or does not generate what its `reference.json` expects. `off`
    /// tests none. [default: warn]
    #[arg(long, value_name = "OFF|WARN|REFUSE", env = "MULTIGRAFT_SELF_TEST")]
    pub self_test: Option<SelfTestMode>,

    /// Disk space for adapters that come from object stores and web servers; those that were not
    /// used for longest are deleted. (What comes from the Hub is kept in the Hub's own cache.)
    /// [default: 16GiB]
    #[arg(long, value_name = "BYTES", env = "MULTIGRAFT_DISK_CACHE")]
    pub disk_cache: Option<Bytes>,

    /// What computes. `cpu` is this machine's processor. [default: cpu]
    #[arg(long, value_name = "DEVICE", env = "MULTIGRAFT_DEVICE")]
    pub device: Option<Device>,

    /// Threads that compute. [default: one per core]
    #[arg(long, value_name = "COUNT", env = "MULTIGRAFT_THREADS")]
    pub threads: Option<usize>,

    /// The longest sequence, prompt and answer together, in tokens; less than the model's own saves
    /// nothing by itself, but bounds what one request can take. [default: the model's own]
    #[arg(long, value_name = "TOKENS", env = "MULTIGRAFT_CONTEXT")]
    pub context: Option<usize>,

    /// Memory for the keys and values of all running sequences together. Taken as it is used.
    /// [default: `--memory`, or else 1GiB; less if all running sequences can take no more; at least
    /// one whole context, at most half of the free memory]
    #[arg(long, value_name = "BYTES", env = "MULTIGRAFT_KV_MEMORY")]
    pub kv_memory: Option<Bytes>,

    /// How keys and values are kept in memory: bf16 takes half of f32, int8 a quarter, at a cost in
    /// precision. [default: bf16]
    #[arg(long, value_name = "TYPE", env = "MULTIGRAFT_KV_DTYPE")]
    pub kv_dtype: Option<KvDtype>,

    /// Tokens that one step computes, prompts and answers together. More makes long prompts faster
    /// and running answers slower. [default: 128]
    #[arg(long, value_name = "TOKENS", env = "MULTIGRAFT_MAX_BATCH_TOKENS")]
    pub max_batch_tokens: Option<usize>,

    /// Sequences that run at once; the rest wait. [default: 64]
    #[arg(long, value_name = "COUNT", env = "MULTIGRAFT_MAX_RUNNING")]
    pub max_running: Option<usize>,

    /// Requests of one adapter (and one `cache_salt`) that may wait, and an eighth of all that may;
    /// more are answered with
    /// 429. [default: 1024]
    #[arg(long, value_name = "COUNT", env = "MULTIGRAFT_MAX_WAITING")]
    pub max_waiting: Option<usize>,

    /// Whether what was computed for a request is kept, as far as kv-memory allows, and used by
    /// later requests of the same adapter that begin alike: turns of a chat, common system prompts.
    /// Their answers are the same either way. A request's `cache_salt` bounds who shares with whom.
    /// [default: on]
    #[arg(long, value_name = "ON|OFF", env = "MULTIGRAFT_PREFIX_CACHE")]
    pub prefix_cache: Option<Switch>,
}

/// The HTTP server. The file's table `[server]`.
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize)]
#[command(next_help_heading = "Server")]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct ServerOptions {
    /// The address to listen on. 127.0.0.1 is this machine only; 0.0.0.0 is everybody who can reach
    /// it, and wants API keys (`multigraft keys add`) or --no-auth. [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS", env = "MULTIGRAFT_HOST")]
    pub host: Option<IpAddr>,

    /// Listens where others can reach it although there are no API keys: everybody may do
    /// everything. Keys that there are, or that are added later, are asked for all the same.
    #[arg(long, env = "MULTIGRAFT_NO_AUTH")]
    pub no_auth: bool,

    /// The port to listen on; 0 takes a free one. [default: 8080]
    #[arg(long, value_name = "PORT", env = "MULTIGRAFT_PORT")]
    pub port: Option<u16>,

    /// The largest request body. [default: 8MiB]
    #[arg(long, value_name = "BYTES", env = "MULTIGRAFT_MAX_BODY")]
    pub max_body: Option<Bytes>,

    /// The largest upload of an adapter. [default: 2GiB]
    #[arg(long, value_name = "BYTES", env = "MULTIGRAFT_MAX_UPLOAD")]
    pub max_upload: Option<Bytes>,

    /// Tokens to generate where an OpenAI request does not say how many. [default: 1024]
    #[arg(long, value_name = "TOKENS", env = "MULTIGRAFT_DEFAULT_MAX_TOKENS")]
    pub default_max_tokens: Option<usize>,

    /// Whether adapters are loaded, and so checked, before the first request: as many as
    /// adapter-memory holds. Off, each is loaded when it is first asked for. [default: on]
    #[arg(long, value_name = "ON|OFF", env = "MULTIGRAFT_PRELOAD")]
    pub preload: Option<Switch>,

    /// Where adapters may be added from while the server runs: a folder with all that is in it, or
    /// what a reference begins with (`hf://`, `hf://org`, `s3://bucket/prefix`,
    /// `https://host/path`). A request whose `model` is such a reference adds it. The word `upload`
    /// lets clients send adapters' files (with --data). Repeatable; commas separate several in the
    /// environment variable. [default: the folder of --adapters, if there is one]
    #[arg(
        long,
        value_name = "SOURCE",
        env = "MULTIGRAFT_ALLOW_SOURCE",
        value_delimiter = ','
    )]
    #[serde(deserialize_with = "allowed_sources")]
    pub allow_source: Vec<AllowedSource>,

    /// A TOML file that says which adapters are served, read again whenever it changes: tables
    /// `[adapters.NAME]` with `source` and `pinned`. See docs/adapters.md.
    #[arg(long, value_name = "FILE", env = "MULTIGRAFT_ADAPTERS_FILE")]
    pub adapters_file: Option<PathBuf>,

    /// A folder for what is to survive a restart: adapters that were added while the server ran,
    /// and their files. Every server needs one of its own. [default: nothing survives]
    #[arg(long, value_name = "FOLDER", env = "MULTIGRAFT_DATA")]
    pub data: Option<PathBuf>,

    /// A collector of traces that takes OTLP over HTTP (`http://host:4318`): every request sends it
    /// spans of its phases. [default: OpenTelemetry's variables OTEL_EXPORTER_OTLP_TRACES_ENDPOINT
    /// and OTEL_EXPORTER_OTLP_ENDPOINT, or else none]
    #[arg(long, value_name = "URL", env = "MULTIGRAFT_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,

    /// Writes prompts and answers to the log. Without it, neither these nor keys are ever logged,
    /// at any level.
    #[arg(long, env = "MULTIGRAFT_LOG_PROMPTS")]
    pub log_prompts: bool,

    /// How long a request waits for its adapter to be loaded, in seconds. [default: 30]
    #[arg(long, value_name = "SECONDS", env = "MULTIGRAFT_LOAD_WAIT")]
    pub load_wait: Option<u64>,

    /// How long a request may take, from its head to its answer's last token, in seconds; the
    /// header `x-request-timeout` asks for less. Later it is 504, or an error as a stream's last
    /// event. [default: as long as it takes]
    #[arg(long, value_name = "SECONDS", env = "MULTIGRAFT_REQUEST_TIMEOUT")]
    pub request_timeout: Option<u64>,

    /// A PEM file with the certificate for TLS and its chain, read again when it changes. Needs
    /// --tls-key. [default: plain HTTP]
    #[arg(long, value_name = "FILE", env = "MULTIGRAFT_TLS_CERT")]
    pub tls_cert: Option<PathBuf>,

    /// A PEM file with the key of --tls-cert.
    #[arg(long, value_name = "FILE", env = "MULTIGRAFT_TLS_KEY")]
    pub tls_key: Option<PathBuf>,

    /// The most connections at once; the next gets 503 and is closed. [default: 4096]
    #[arg(long, value_name = "N", env = "MULTIGRAFT_MAX_CONNECTIONS")]
    pub max_connections: Option<usize>,

    /// How long requests under way may go on after Ctrl-C, in seconds. [default: 30]
    #[arg(long, value_name = "SECONDS", env = "MULTIGRAFT_GRACE")]
    pub grace: Option<u64>,
}

/// How adapters are kept in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AdapterDtype {
    /// 16-bit brain floats.
    Bf16,
    /// 32-bit floats.
    F32,
    /// 8-bit integers with a scale for every sixteen; what is in the base's stead in bf16.
    Int8,
}

/// What becomes of adapters that fail their self test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SelfTestMode {
    /// They are not tested.
    Off,
    /// They are served, with a warning.
    Warn,
    /// They are not served.
    Refuse,
}

/// Whether something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Switch {
    /// It is.
    On,
    /// It is not.
    Off,
}

/// How keys and values are kept in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum KvDtype {
    /// 16-bit brain floats.
    Bf16,
    /// 32-bit floats.
    F32,
    /// 8-bit integers with a scale for each head of each position.
    Int8,
}

impl From<KvDtype> for multigraft_model::KvDtype {
    fn from(dtype: KvDtype) -> Self {
        match dtype {
            KvDtype::Bf16 => Self::Bf16,
            KvDtype::F32 => Self::F32,
            KvDtype::Int8 => Self::Int8,
        }
    }
}

/// `name=source`, or a source whose own name it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedSource {
    /// What requests call it.
    pub name: String,
    /// Where it is.
    pub at: Reference,
}

impl FromStr for NamedSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let problem = || {
            format!(
                "`{text}` is not NAME=SOURCE or a source, such as support=./adapters/support or hf://org/support"
            )
        };
        let (name, source) = match text.split_once('=') {
            Some((name, source)) => (Some(name.to_owned()), source),
            None => (None, text),
        };
        if source.is_empty() {
            return Err(problem());
        }
        let at = Reference::parse(source).map_err(|error| error.to_string())?;
        let name = name.or_else(|| at.default_name()).filter(|name| !name.is_empty());
        Ok(Self {
            name: name.ok_or_else(problem)?,
            at,
        })
    }
}

/// A name of a base, and where that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BaseAlias {
    /// What adapters call it.
    pub name: String,
    /// Its file or folder.
    pub path: PathBuf,
}

impl FromStr for BaseAlias {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, path)) if !name.is_empty() && !path.is_empty() => Ok(Self {
                name: name.to_owned(),
                path: path.into(),
            }),
            _ => Err(format!(
                "`{text}` is not NAME=PATH, such as mistralai/Mistral-7B-v0.1=./mistral.gguf"
            )),
        }
    }
}

fn named_sources<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<NamedSource>, D::Error> {
    let table = BTreeMap::<String, String>::deserialize(deserializer)?;
    let sources = table.into_iter().map(|(name, source)| {
        let at = Reference::parse(&source).map_err(D::Error::custom)?;
        Ok(NamedSource { name, at })
    });
    sources.collect()
}

fn base_aliases<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<BaseAlias>, D::Error> {
    let table = BTreeMap::<String, PathBuf>::deserialize(deserializer)?;
    let aliases = table.into_iter().map(|(name, path)| BaseAlias { name, path });
    Ok(aliases.collect())
}

fn allowed_sources<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<AllowedSource>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    let sources = texts.iter().map(|text| text.parse().map_err(D::Error::custom));
    sources.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adapter_is_a_name_and_a_source_or_a_source() {
        for (text, name, source) in [
            ("a=./x=y", "a", "./x=y"),
            ("./adapters/support", "support", "./adapters/support"),
            ("support/", "support", "support/"),
            // As in TGI's LORA_ADAPTERS.
            ("org/repo", "org/repo", "hf://org/repo"),
            ("org/repo@v1", "org/repo", "hf://org/repo@v1"),
            ("a=org/repo@v1", "a", "hf://org/repo@v1"),
            ("a=s3://bucket/x", "a", "s3://bucket/x"),
            ("./support.gguf", "support", "./support.gguf"),
        ] {
            let named: NamedSource = text.parse().expect(text);
            assert_eq!(
                (named.name.as_str(), named.at.to_string().as_str()),
                (name, source)
            );
        }
        for bad in ["=x", "a=", "", "..", "/", "a=ftp://x"] {
            assert!(bad.parse::<NamedSource>().is_err(), "{bad}");
        }
    }
}

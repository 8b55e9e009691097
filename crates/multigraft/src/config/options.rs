//! The lists of all settings: every setting has its name, type, default and help text here and
//! nowhere else.
//!
//! An entry `kv_memory` is the flag `--kv-memory`, the line `kv-memory = "2GiB"` of the file, the
//! field `kv_memory` of the settings, and a section of `docs/configuration.md`, which a test
//! writes. The doc comments are the help texts; `[default: …]` at their end names the default.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use multigraft_engine::EngineOptions;
use multigraft_server::{ConnectionLimits, Limits};
use multigraft_sources::AllowedSource;

use super::layers::settings;
use super::settings::default_threads;
use super::values::{
    AdapterDtype, BaseAlias, KvDtype, NamedSource, SelfTestMode, Switch, allowed_sources, base_aliases,
    named_sources,
};
use crate::{device::Device, memory::Bytes};

settings! {
    /// The base model, its adapters, and their memory, as given: the table `[model]` of the file.
    #[command(next_help_heading = "Model")]
    struct ModelOptions;
    /// The base model, its adapters, and their memory.
    struct ModelSettings;

    /// The base model: a GGUF file, a Hugging Face folder, the name of a model in a local cache
    /// (`smollm2`, `org/name`), or a repository of the Hugging Face Hub (`org/name`,
    /// `hf://org/name@revision`). [default: the base that the first adapter was made for, by its
    /// files]
    #[arg(long, value_name = "MODEL", env = "MULTIGRAFT_BASE")]
    base: Option<String>,

    /// Where a base is that adapters call by this name, in place of the Hub. Repeatable; commas
    /// separate several in the environment variable; in a file, `base-alias."org/name" = "PATH"`.
    #[arg(
        long,
        value_name = "NAME=PATH",
        env = "MULTIGRAFT_BASE_ALIAS",
        value_delimiter = ','
    )]
    #[serde(deserialize_with = "base_aliases")]
    base_alias: Vec<BaseAlias>,

    /// The name that requests call the base by. [default: the model's own name]
    #[arg(long, value_name = "NAME", env = "MULTIGRAFT_BASE_NAME")]
    base_name: Option<String>,

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
    adapter: Vec<NamedSource>,

    /// A folder of adapters: folders and .gguf files, each called by its name.
    #[arg(long, value_name = "FOLDER", env = "MULTIGRAFT_ADAPTERS")]
    adapters: Option<PathBuf>,

    /// How adapters are kept in memory: bf16 takes half of f32, at the precision that nearly all
    /// are saved in; int8 takes little more than half of bf16, its updates less than 1 % off.
    /// [default: bf16]
    #[arg(long, value_name = "TYPE", env = "MULTIGRAFT_ADAPTER_DTYPE")]
    adapter_dtype: AdapterDtype = AdapterDtype::Bf16,

    /// Memory for adapters. When it is full, those that were not used for longest are dropped, and
    /// loaded again when they are asked for. [default: as much as they take]
    #[arg(long, value_name = "BYTES", env = "MULTIGRAFT_ADAPTER_MEMORY")]
    adapter_memory: Option<Bytes>,

    /// Memory for adapters and for keys and values together: what one of them does not use is the
    /// other's, and whoever was idle for longest makes room. What one whole context takes is always
    /// there for keys and values. `--adapter-memory` and `--kv-memory` bound each of them further.
    /// [default: none, each has its own]
    #[arg(long, value_name = "BYTES", env = "MULTIGRAFT_MEMORY")]
    memory: Option<Bytes>,

    /// What becomes of an adapter that fails its self test when it is first loaded: one that moves
    /// no logit of a fixed prompt, or does not generate what its `reference.json` expects. `off`
    /// tests none. [default: warn]
    #[arg(long, value_name = "OFF|WARN|REFUSE", env = "MULTIGRAFT_SELF_TEST")]
    self_test: SelfTestMode = SelfTestMode::Warn,

    /// Disk space for adapters that come from object stores and web servers; those that were not
    /// used for longest are deleted. (What comes from the Hub is kept in the Hub's own cache.)
    /// [default: 16GiB]
    #[arg(long, value_name = "BYTES", env = "MULTIGRAFT_DISK_CACHE")]
    disk_cache: Bytes = Bytes(16 << 30),

    /// What computes. `cpu` is this machine's processor. [default: cpu]
    #[arg(long, value_name = "DEVICE", env = "MULTIGRAFT_DEVICE")]
    device: Device = Device::Cpu,

    /// Threads that compute. [default: one per core]
    #[arg(long, value_name = "COUNT", env = "MULTIGRAFT_THREADS")]
    threads: usize = default_threads(),

    /// The longest sequence, prompt and answer together, in tokens; less than the model's own saves
    /// nothing by itself, but bounds what one request can take. [default: the model's own]
    #[arg(long, value_name = "TOKENS", env = "MULTIGRAFT_CONTEXT")]
    context: Option<usize>,

    /// Memory for the keys and values of all running sequences together. Taken as it is used.
    /// [default: `--memory`, or else 1GiB; less if all running sequences can take no more; at least
    /// one whole context, at most half of the free memory]
    #[arg(long, value_name = "BYTES", env = "MULTIGRAFT_KV_MEMORY")]
    kv_memory: Option<Bytes>,

    /// How keys and values are kept in memory: bf16 takes half of f32, int8 a quarter, at a cost in
    /// precision. [default: bf16]
    #[arg(long, value_name = "TYPE", env = "MULTIGRAFT_KV_DTYPE")]
    kv_dtype: KvDtype = KvDtype::Bf16,

    /// Tokens that one step computes, prompts and answers together. More makes long prompts faster
    /// and running answers slower. [default: 128]
    #[arg(long, value_name = "TOKENS", env = "MULTIGRAFT_MAX_BATCH_TOKENS")]
    max_batch_tokens: usize = EngineOptions::default().step_tokens,

    /// Sequences that run at once; the rest wait. [default: 64]
    #[arg(long, value_name = "COUNT", env = "MULTIGRAFT_MAX_RUNNING")]
    max_running: usize = EngineOptions::default().max_running,

    /// Requests of one adapter (and one `cache_salt`) that may wait, and an eighth of all that may;
    /// more are answered with
    /// 429. [default: 1024]
    #[arg(long, value_name = "COUNT", env = "MULTIGRAFT_MAX_WAITING")]
    max_waiting: usize = EngineOptions::default().max_waiting,

    /// Whether what was computed for a request is kept, as far as kv-memory allows, and used by
    /// later requests of the same adapter that begin alike: turns of a chat, common system prompts.
    /// Their answers are the same either way. A request's `cache_salt` bounds who shares with whom.
    /// [default: on]
    #[arg(long, value_name = "ON|OFF", env = "MULTIGRAFT_PREFIX_CACHE")]
    prefix_cache: Switch = Switch::On,
}

settings! {
    /// The HTTP server, as given: the table `[server]` of the file.
    #[command(next_help_heading = "Server")]
    struct ServerOptions;
    /// The HTTP server.
    struct ServerSettings;

    /// The address to listen on. 127.0.0.1 is this machine only; 0.0.0.0 is everybody who can reach
    /// it, and wants API keys (`multigraft keys add`) or --no-auth. [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS", env = "MULTIGRAFT_HOST")]
    host: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST),

    /// Listens where others can reach it although there are no API keys: everybody may do
    /// everything. Keys that there are, or that are added later, are asked for all the same.
    #[arg(long, env = "MULTIGRAFT_NO_AUTH")]
    no_auth: bool,

    /// The port to listen on; 0 takes a free one. [default: 8080]
    #[arg(long, value_name = "PORT", env = "MULTIGRAFT_PORT")]
    port: u16 = 8080,

    /// The largest request body. [default: 8MiB]
    #[arg(long, value_name = "BYTES", env = "MULTIGRAFT_MAX_BODY")]
    max_body: Bytes = Bytes::from(Limits::default().body_bytes),

    /// The largest upload of an adapter. [default: 2GiB]
    #[arg(long, value_name = "BYTES", env = "MULTIGRAFT_MAX_UPLOAD")]
    max_upload: Bytes = Bytes::from(Limits::default().upload_bytes),

    /// Tokens to generate where an OpenAI request does not say how many. [default: 1024]
    #[arg(long, value_name = "TOKENS", env = "MULTIGRAFT_DEFAULT_MAX_TOKENS")]
    default_max_tokens: usize = Limits::default().default_max_tokens,

    /// Whether adapters are loaded, and so checked, before the first request: as many as
    /// adapter-memory holds. Off, each is loaded when it is first asked for. [default: on]
    #[arg(long, value_name = "ON|OFF", env = "MULTIGRAFT_PRELOAD")]
    preload: Switch = Switch::On,

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
    allow_source: Vec<AllowedSource>,

    /// A TOML file that says which adapters are served, read again whenever it changes: tables
    /// `[adapters.NAME]` with `source` and `pinned`. See docs/adapters.md.
    #[arg(long, value_name = "FILE", env = "MULTIGRAFT_ADAPTERS_FILE")]
    adapters_file: Option<PathBuf>,

    /// A folder for what is to survive a restart: adapters that were added while the server ran,
    /// and their files. Every server needs one of its own. [default: nothing survives]
    #[arg(long, value_name = "FOLDER", env = "MULTIGRAFT_DATA")]
    data: Option<PathBuf>,

    /// A collector of traces that takes OTLP over HTTP (`http://host:4318`): every request sends it
    /// spans of its phases. [default: OpenTelemetry's variables OTEL_EXPORTER_OTLP_TRACES_ENDPOINT
    /// and OTEL_EXPORTER_OTLP_ENDPOINT, or else none]
    #[arg(long, value_name = "URL", env = "MULTIGRAFT_OTLP_ENDPOINT")]
    otlp_endpoint: Option<String>,

    /// Writes prompts and answers to the log. Without it, neither these nor keys are ever logged,
    /// at any level.
    #[arg(long, env = "MULTIGRAFT_LOG_PROMPTS")]
    log_prompts: bool,

    /// How long a request waits for its adapter to be loaded, in seconds. [default: 30]
    #[arg(long, value_name = "SECONDS", env = "MULTIGRAFT_LOAD_WAIT")]
    load_wait: u64 = Limits::default().load_wait.as_secs(),

    /// How long a request may take, from its head to its answer's last token, in seconds; the
    /// header `x-request-timeout` asks for less. Later it is 504, or an error as a stream's last
    /// event. [default: as long as it takes]
    #[arg(long, value_name = "SECONDS", env = "MULTIGRAFT_REQUEST_TIMEOUT")]
    request_timeout: Option<u64>,

    /// A PEM file with the certificate for TLS and its chain, read again when it changes. Needs
    /// --tls-key. [default: plain HTTP]
    #[arg(long, value_name = "FILE", env = "MULTIGRAFT_TLS_CERT")]
    tls_cert: Option<PathBuf>,

    /// A PEM file with the key of --tls-cert.
    #[arg(long, value_name = "FILE", env = "MULTIGRAFT_TLS_KEY")]
    tls_key: Option<PathBuf>,

    /// The most connections at once; the next gets 503 and is closed. [default: 4096]
    #[arg(long, value_name = "N", env = "MULTIGRAFT_MAX_CONNECTIONS")]
    max_connections: usize = ConnectionLimits::default().most,

    /// How long requests under way may go on after Ctrl-C, in seconds. [default: 30]
    #[arg(long, value_name = "SECONDS", env = "MULTIGRAFT_GRACE")]
    grace: u64 = 30,
}

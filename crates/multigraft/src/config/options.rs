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
use super::values::{
    AdapterDtype, BaseAlias, KvDtype, NamedSource, SelfTestMode, Switch, allowed_sources, base_aliases,
    default_threads, named_sources,
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
    /// `hf://org/name@revision`). [default: the base model that the first adapter's files name]
    #[arg(long, value_name = "MODEL", env = "MULTIGRAFT_BASE")]
    base: Option<String>,

    /// The local path of a base model that adapters name, used instead of fetching that name from
    /// the Hub. Repeatable; commas separate several in the environment variable; in a file,
    /// `base-alias."org/name" = "PATH"`.
    #[arg(
        long,
        value_name = "NAME=PATH",
        env = "MULTIGRAFT_BASE_ALIAS",
        value_delimiter = ','
    )]
    #[serde(deserialize_with = "base_aliases")]
    base_alias: Vec<BaseAlias>,

    /// The name of the base model in requests. [default: the model's own name]
    #[arg(long, value_name = "NAME", env = "MULTIGRAFT_BASE_NAME")]
    base_name: Option<String>,

    /// An adapter and its name in requests. Without a name, that of its folder, file or repository.
    /// The source is a folder, a .gguf file, a repository of the Hugging Face Hub (`org/repo`,
    /// `hf://org/repo@revision`), or a folder in an object store or on a web server (`s3://`,
    /// `gs://`, `az://`, `https://`). Repeatable; commas separate several in the environment
    /// variable; in a file, `adapter.NAME = "SOURCE"`. TGI's variable `LORA_ADAPTERS` is read, too.
    #[arg(
        long,
        alias = "lora-adapters",
        value_name = "[NAME=]SOURCE",
        env = "MULTIGRAFT_ADAPTER",
        value_delimiter = ','
    )]
    #[serde(deserialize_with = "named_sources")]
    adapter: Vec<NamedSource>,

    /// A folder of adapters: folders and .gguf files. Their names are those of the adapters.
    #[arg(long, value_name = "FOLDER", env = "MULTIGRAFT_ADAPTERS")]
    adapters: Option<PathBuf>,

    /// The type of adapter weights in memory. bf16 takes half the memory of f32 and is the
    /// precision in which nearly all adapters are saved. int8 takes little more than half of bf16;
    /// its updates deviate by less than 1 %. [default: bf16]
    #[arg(long, value_name = "TYPE", env = "MULTIGRAFT_ADAPTER_DTYPE")]
    adapter_dtype: AdapterDtype = AdapterDtype::Bf16,

    /// Memory for adapters. When it is full, the least recently used adapters are evicted, and
    /// loaded again when a request needs them. [default: no limit]
    #[arg(long, value_name = "BYTES", env = "MULTIGRAFT_ADAPTER_MEMORY")]
    adapter_memory: Option<Bytes>,

    /// One memory budget for adapters and the KV cache: each may use what the other does not, and
    /// the least recently used blocks and adapters are evicted first. The KV cache always has room
    /// for one whole context. `--adapter-memory` and `--kv-memory` limit each of them further.
    /// [default: none, each has its own limit]
    #[arg(long, value_name = "BYTES", env = "MULTIGRAFT_MEMORY")]
    memory: Option<Bytes>,

    /// What happens if an adapter fails its self test when it is first loaded. An adapter fails if
    /// it changes no logit of a fixed prompt, or does not generate what its `reference.json`
    /// expects. `off` tests no adapter, `warn` serves it with a warning, `refuse` does not serve
    /// it. [default: warn]
    #[arg(long, value_name = "OFF|WARN|REFUSE", env = "MULTIGRAFT_SELF_TEST")]
    self_test: SelfTestMode = SelfTestMode::Warn,

    /// Disk cache for adapters from object stores and web servers. When it is full, the least
    /// recently used ones are deleted. (Files from the Hub are in the Hub's own cache.) [default:
    /// 16GiB]
    #[arg(long, value_name = "BYTES", env = "MULTIGRAFT_DISK_CACHE")]
    disk_cache: Bytes = Bytes(16 << 30),

    /// The device that computes. `cpu` is this machine's processor. [default: cpu]
    #[arg(long, value_name = "DEVICE", env = "MULTIGRAFT_DEVICE")]
    device: Device = Device::Cpu,

    /// Compute threads. [default: one per core]
    #[arg(long, value_name = "COUNT", env = "MULTIGRAFT_THREADS")]
    threads: usize = default_threads(),

    /// The longest sequence, prompt and answer together, in tokens. A smaller value than the
    /// model's own saves no memory by itself, but limits how much KV cache one request can take.
    /// [default: the model's own]
    #[arg(long, value_name = "TOKENS", env = "MULTIGRAFT_CONTEXT")]
    context: Option<usize>,

    /// Memory for the KV cache of all sequences together. It is allocated as it is used. [default:
    /// `--memory`, or else 1GiB; less if all running sequences cannot use as much; at least one
    /// whole context, at most half of the free memory]
    #[arg(long, value_name = "BYTES", env = "MULTIGRAFT_KV_MEMORY")]
    kv_memory: Option<Bytes>,

    /// The type of the KV cache: bf16 takes half the memory of f32, int8 a quarter, with less
    /// precision. [default: bf16]
    #[arg(long, value_name = "TYPE", env = "MULTIGRAFT_KV_DTYPE")]
    kv_dtype: KvDtype = KvDtype::Bf16,

    /// The most tokens that one step computes, prompts and answers together. A larger value makes
    /// long prompts faster and running answers slower. [default: 128]
    #[arg(long, value_name = "TOKENS", env = "MULTIGRAFT_MAX_BATCH_TOKENS")]
    max_batch_tokens: usize = EngineOptions::default().step_tokens,

    /// The most sequences that run at once; the others wait. [default: 64]
    #[arg(long, value_name = "COUNT", env = "MULTIGRAFT_MAX_RUNNING")]
    max_running: usize = EngineOptions::default().max_running,

    /// The most requests of one adapter (and one `cache_salt`) that may wait; eight times as many
    /// may wait in all. Further requests get 429. [default: 1024]
    #[arg(long, value_name = "COUNT", env = "MULTIGRAFT_MAX_WAITING")]
    max_waiting: usize = EngineOptions::default().max_waiting,

    /// Whether the KV cache keeps the blocks of earlier requests, as far as kv-memory allows, for
    /// later requests of the same adapter with the same beginning: turns of a chat, common system
    /// prompts. Answers are the same with and without it. A request's `cache_salt` limits which
    /// requests share blocks. [default: on]
    #[arg(long, value_name = "ON|OFF", env = "MULTIGRAFT_PREFIX_CACHE")]
    prefix_cache: Switch = Switch::On,
}

settings! {
    /// The HTTP server, as given: the table `[server]` of the file.
    #[command(next_help_heading = "Server")]
    struct ServerOptions;
    /// The HTTP server.
    struct ServerSettings;

    /// The address to listen on. 127.0.0.1 can be reached from this machine only, 0.0.0.0 from
    /// other machines, which requires API keys (`multigraft keys add`) or --no-auth. [default:
    /// 127.0.0.1]
    #[arg(long, value_name = "ADDRESS", env = "MULTIGRAFT_HOST")]
    host: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST),

    /// Allow --host to be an address that other machines can reach although there are no API keys:
    /// everybody may do everything. If there are keys, or keys are added later, requests need one
    /// all the same.
    #[arg(long, env = "MULTIGRAFT_NO_AUTH")]
    no_auth: bool,

    /// The port to listen on; 0 chooses a free one. [default: 8080]
    #[arg(long, value_name = "PORT", env = "MULTIGRAFT_PORT")]
    port: u16 = 8080,

    /// The largest request body. [default: 8MiB]
    #[arg(long, value_name = "BYTES", env = "MULTIGRAFT_MAX_BODY")]
    max_body: Bytes = Bytes::from(Limits::default().body_bytes),

    /// The largest upload of an adapter. [default: 2GiB]
    #[arg(long, value_name = "BYTES", env = "MULTIGRAFT_MAX_UPLOAD")]
    max_upload: Bytes = Bytes::from(Limits::default().upload_bytes),

    /// The most tokens to generate if an OpenAI request sets no limit. [default: 1024]
    #[arg(long, value_name = "TOKENS", env = "MULTIGRAFT_DEFAULT_MAX_TOKENS")]
    default_max_tokens: usize = Limits::default().default_max_tokens,

    /// Whether adapters are loaded, and so checked, before the first request, as many as
    /// adapter-memory holds. If off, each is loaded for its first request. [default: on]
    #[arg(long, value_name = "ON|OFF", env = "MULTIGRAFT_PRELOAD")]
    preload: Switch = Switch::On,

    /// A source from which clients may add adapters while the server runs: a folder with everything
    /// in it, or the beginning of references (`hf://`, `hf://org`, `s3://bucket/prefix`,
    /// `https://host/path`). A request whose `model` is such a reference adds that adapter. The
    /// word `upload` lets clients upload adapters (with --data). Repeatable; commas separate
    /// several in the environment variable. [default: the folder of --adapters, if there is one]
    #[arg(
        long,
        value_name = "SOURCE",
        env = "MULTIGRAFT_ALLOW_SOURCE",
        value_delimiter = ','
    )]
    #[serde(deserialize_with = "allowed_sources")]
    allow_source: Vec<AllowedSource>,

    /// A TOML file that lists the adapters to serve: tables `[adapters.NAME]` with `source` and
    /// `pinned`. The server reads it again when it changes. See docs/adapters.md.
    #[arg(long, value_name = "FILE", env = "MULTIGRAFT_ADAPTERS_FILE")]
    adapters_file: Option<PathBuf>,

    /// A folder for state that survives a restart: API keys, usage, batches, and adapters that were
    /// added while the server ran. Every server needs a folder of its own. [default: none, state is
    /// lost on restart]
    #[arg(long, value_name = "FOLDER", env = "MULTIGRAFT_DATA")]
    data: Option<PathBuf>,

    /// The URL of a trace collector that accepts OTLP over HTTP (`http://host:4318`). Every request
    /// sends spans of its phases. [default: OpenTelemetry's variables
    /// OTEL_EXPORTER_OTLP_TRACES_ENDPOINT and OTEL_EXPORTER_OTLP_ENDPOINT, or else none]
    #[arg(long, value_name = "URL", env = "MULTIGRAFT_OTLP_ENDPOINT")]
    otlp_endpoint: Option<String>,

    /// Write prompts and answers to the log. Without this flag they are never logged, at any level.
    /// Keys are never logged.
    #[arg(long, env = "MULTIGRAFT_LOG_PROMPTS")]
    log_prompts: bool,

    /// How long a request waits until its adapter is loaded, in seconds. [default: 30]
    #[arg(long, value_name = "SECONDS", env = "MULTIGRAFT_LOAD_WAIT")]
    load_wait: u64 = Limits::default().load_wait.as_secs(),

    /// How long a request may take, from its headers to the last token of its answer, in seconds.
    /// The header `x-request-timeout` can lower it. A request that takes longer gets 504; a stream
    /// ends with an error event. [default: no limit]
    #[arg(long, value_name = "SECONDS", env = "MULTIGRAFT_REQUEST_TIMEOUT")]
    request_timeout: Option<u64>,

    /// A PEM file with the TLS certificate and its chain. The server reads it again when it
    /// changes. Requires --tls-key. [default: plain HTTP]
    #[arg(long, value_name = "FILE", env = "MULTIGRAFT_TLS_CERT")]
    tls_cert: Option<PathBuf>,

    /// A PEM file with the private key of --tls-cert.
    #[arg(long, value_name = "FILE", env = "MULTIGRAFT_TLS_KEY")]
    tls_key: Option<PathBuf>,

    /// The most connections at once; further ones get 503 and are closed. [default: 4096]
    #[arg(long, value_name = "N", env = "MULTIGRAFT_MAX_CONNECTIONS")]
    max_connections: usize = ConnectionLimits::default().most,

    /// How long running requests may continue after Ctrl-C, in seconds. [default: 30]
    #[arg(long, value_name = "SECONDS", env = "MULTIGRAFT_GRACE")]
    grace: u64 = 30,
}

//! Every setting that can be given, by flag, environment variable or file. The doc comments are the help texts.
//!
//! One definition serves both clap and serde, so a flag `--kv-memory` and a line `kv-memory = "2GiB"` cannot
//! drift apart. All fields are optional: what nobody gave gets its default in [`super::settings`].

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, str::FromStr};

use clap::{Args, ValueEnum};
use serde::{Deserialize, Deserializer};

use crate::memory::Bytes;

/// The base model, its adapters, and what they may use. The file's table `[model]`.
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize)]
#[command(next_help_heading = "Model")]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct ModelOptions {
    /// The base model: a GGUF file, a Hugging Face folder, or the name of a model in a local cache (`smollm2`,
    /// `org/name`).
    #[arg(long, value_name = "MODEL", env = "MULTIGRAFT_BASE")]
    pub base: Option<String>,

    /// The name that requests call the base by. [default: the model's own name]
    #[arg(long, value_name = "NAME", env = "MULTIGRAFT_BASE_NAME")]
    pub base_name: Option<String>,

    /// An adapter's folder or .gguf file and the name that requests call it by; without a name, the folder's or the file's.
    /// Repeatable; commas separate several in the environment variable; in a file, `adapter.NAME = "PATH"`.
    #[arg(
        long,
        value_name = "[NAME=]PATH",
        env = "MULTIGRAFT_ADAPTER",
        value_delimiter = ','
    )]
    #[serde(deserialize_with = "named_paths")]
    pub adapter: Vec<NamedPath>,

    /// A folder of adapters: folders and .gguf files, each called by its name.
    #[arg(long, value_name = "FOLDER", env = "MULTIGRAFT_ADAPTERS")]
    pub adapters: Option<PathBuf>,

    /// How adapters are kept in memory: bf16 takes half of f32, at the precision that nearly all are saved in.
    /// [default: bf16]
    #[arg(long, value_name = "TYPE", env = "MULTIGRAFT_ADAPTER_DTYPE")]
    pub adapter_dtype: Option<AdapterDtype>,

    /// Memory for adapters. When it is full, those that were not used for longest are dropped, and loaded again when they
    /// are asked for. [default: as much as they take]
    #[arg(long, value_name = "BYTES", env = "MULTIGRAFT_ADAPTER_MEMORY")]
    pub adapter_memory: Option<Bytes>,

    /// Threads that compute. [default: one per core]
    #[arg(long, value_name = "COUNT", env = "MULTIGRAFT_THREADS")]
    pub threads: Option<usize>,

    /// The longest sequence, prompt and answer together, in tokens; less than the model's own saves nothing by
    /// itself, but bounds what one request can take. [default: the model's own]
    #[arg(long, value_name = "TOKENS", env = "MULTIGRAFT_CONTEXT")]
    pub context: Option<usize>,

    /// Memory for the keys and values of all running sequences together. Taken as it is used. [default: 1GiB, less
    /// if all running sequences can take no more; at least one whole context, at most half of the free memory]
    #[arg(long, value_name = "BYTES", env = "MULTIGRAFT_KV_MEMORY")]
    pub kv_memory: Option<Bytes>,

    /// How keys and values are kept in memory: bf16 takes half of f32, int8 a quarter, at a cost in precision.
    /// [default: bf16]
    #[arg(long, value_name = "TYPE", env = "MULTIGRAFT_KV_DTYPE")]
    pub kv_dtype: Option<KvDtype>,

    /// Tokens that one step computes, prompts and answers together. More makes long prompts faster and running
    /// answers slower. [default: 128]
    #[arg(long, value_name = "TOKENS", env = "MULTIGRAFT_MAX_BATCH_TOKENS")]
    pub max_batch_tokens: Option<usize>,

    /// Sequences that run at once; the rest wait. [default: 64]
    #[arg(long, value_name = "COUNT", env = "MULTIGRAFT_MAX_RUNNING")]
    pub max_running: Option<usize>,

    /// Requests of one adapter (and one `cache_salt`) that may wait, and an eighth of all that may; more are answered with
    /// 429. [default: 1024]
    #[arg(long, value_name = "COUNT", env = "MULTIGRAFT_MAX_WAITING")]
    pub max_waiting: Option<usize>,

    /// Whether what was computed for a request is kept, as far as kv-memory allows, and used by later requests of the
    /// same adapter that begin alike: turns of a chat, common system prompts. Their answers are the same either way. A
    /// request's `cache_salt` bounds who shares with whom. [default: on]
    #[arg(long, value_name = "ON|OFF", env = "MULTIGRAFT_PREFIX_CACHE")]
    pub prefix_cache: Option<Switch>,
}

/// The HTTP server. The file's table `[server]`.
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize)]
#[command(next_help_heading = "Server")]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct ServerOptions {
    /// The address to listen on. 127.0.0.1 is this machine only; 0.0.0.0 is everybody who can reach it, and there
    /// is no access control yet. [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS", env = "MULTIGRAFT_HOST")]
    pub host: Option<IpAddr>,

    /// The port to listen on; 0 takes a free one. [default: 8080]
    #[arg(long, value_name = "PORT", env = "MULTIGRAFT_PORT")]
    pub port: Option<u16>,

    /// The largest request body. [default: 8MiB]
    #[arg(long, value_name = "BYTES", env = "MULTIGRAFT_MAX_BODY")]
    pub max_body: Option<Bytes>,

    /// Tokens to generate where an OpenAI request does not say how many. [default: 1024]
    #[arg(long, value_name = "TOKENS", env = "MULTIGRAFT_DEFAULT_MAX_TOKENS")]
    pub default_max_tokens: Option<usize>,

    /// Whether adapters are loaded, and so checked, before the first request: as many as adapter-memory holds. Off, each
    /// is loaded when it is first asked for. [default: on]
    #[arg(long, value_name = "ON|OFF", env = "MULTIGRAFT_PRELOAD")]
    pub preload: Option<Switch>,

    /// A folder that adapters may be added from while the server runs, with all that is in it. Repeatable; commas separate
    /// several in the environment variable. [default: the folder of --adapters, if there is one]
    #[arg(
        long,
        value_name = "FOLDER",
        env = "MULTIGRAFT_ALLOW_SOURCE",
        value_delimiter = ','
    )]
    pub allow_source: Vec<PathBuf>,

    /// A folder for what is to survive a restart: adapters that were added while the server ran, and their files. Every
    /// server needs one of its own. [default: nothing survives]
    #[arg(long, value_name = "FOLDER", env = "MULTIGRAFT_DATA")]
    pub data: Option<PathBuf>,

    /// How long a request waits for its adapter to be loaded, in seconds. [default: 30]
    #[arg(long, value_name = "SECONDS", env = "MULTIGRAFT_LOAD_WAIT")]
    pub load_wait: Option<u64>,

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

/// `name=path`, or a path whose last part is the name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedPath {
    /// What requests call it.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
}

impl FromStr for NamedPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let problem = || format!("`{text}` is not NAME=PATH or a path, such as support=./adapters/support");
        let (name, path) = match text.split_once('=') {
            Some((name, path)) => (name.to_owned(), PathBuf::from(path)),
            None => {
                let path = PathBuf::from(text);
                let name = path.file_name().ok_or_else(problem)?.to_string_lossy();
                (name.strip_suffix(".gguf").unwrap_or(&name).to_owned(), path)
            }
        };
        if name.is_empty() || path.as_os_str().is_empty() {
            return Err(problem());
        }
        Ok(Self { name, path })
    }
}

fn named_paths<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<NamedPath>, D::Error> {
    let table = BTreeMap::<String, PathBuf>::deserialize(deserializer)?;
    Ok(table
        .into_iter()
        .map(|(name, path)| NamedPath { name, path })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adapter_is_a_name_and_a_path_or_a_folder() {
        for (text, name, path) in [
            ("a=./x=y", "a", "./x=y"),
            ("./adapters/support", "support", "./adapters/support"),
            ("support/", "support", "support/"),
            ("./support.gguf", "support", "./support.gguf"),
        ] {
            let named: NamedPath = text.parse().expect(text);
            assert_eq!((named.name.as_str(), named.path), (name, PathBuf::from(path)));
        }
        for bad in ["=x", "a=", "", "..", "/"] {
            assert!(bad.parse::<NamedPath>().is_err(), "{bad}");
        }
    }
}

//! The command line.

use std::{net::IpAddr, num::NonZeroU32, path::PathBuf, time::SystemTime};

use clap::{Args, Parser, Subcommand, ValueEnum};
use multigraft_access::{By, Role, UsageQuery};
use reqwest::Url;

use crate::{
    commands::bench::BenchArguments,
    config::{ModelOptions, NamedSource, ServerOptions},
    device::Device,
    logging::LogFormat,
};

/// One base model, any number of LoRA adapters, one process.
///
/// Every request names its adapter. Requests for different adapters share every step of the same
/// batch.
#[derive(Debug, Parser)]
#[command(
    version,
    max_term_width = 100,
    after_help = "\
Start here:
  multigraft serve --base model.gguf --adapters ./adapters
  multigraft generate --base model.gguf --adapter support=./adapters/support \"Where is my parcel?\"

Every flag of `serve` can also be given as an environment variable (shown beside it) or as a key of a TOML file; see
`multigraft serve --help`."
)]
pub(crate) struct Cli {
    /// A TOML file with settings. Flags and environment variables take precedence over it.
    #[arg(long, global = true, value_name = "FILE", env = "MULTIGRAFT_CONFIG")]
    pub config: Option<PathBuf>,

    /// The level of the log on stderr: error, warn, info, debug or trace; also per module, as in
    /// `info,multigraft_engine=debug`.
    #[arg(
        long,
        global = true,
        value_name = "LEVEL",
        env = "MULTIGRAFT_LOG",
        default_value = "info"
    )]
    pub log: String,

    /// The format of the log: readable lines, or one JSON object per line.
    #[arg(
        long,
        global = true,
        value_name = "PRETTY|JSON",
        env = "MULTIGRAFT_LOG_FORMAT",
        default_value = "pretty"
    )]
    pub log_format: LogFormat,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve a base model and its adapters over HTTP (OpenAI's and TGI's APIs).
    Serve(Box<ServeArguments>),
    /// Check this machine and the settings before serving.
    Doctor(Box<DoctorArguments>),
    /// Check whether a server answers, for health checks of containers.
    Health(HealthArguments),
    /// Answer one prompt on the terminal, token by token.
    Generate(Box<GenerateArguments>),
    /// Show the contents of a model or an adapter, and whether the adapter fits a base.
    Inspect(InspectArguments),
    /// Check that adapters give the same logits and tokens as in PEFT, alone and mixed in one
    /// batch.
    Verify(VerifyArguments),
    /// List, add, replace, remove, pin, roll back and verify the adapters of a running server.
    Adapters(AdaptersArguments),
    /// Add, list, change, rotate and revoke API keys, whether or not a server runs.
    Keys(KeysArguments),
    /// Show the usage of keys and adapters: requests and tokens per hour, day or month.
    Usage(UsageArguments),
    /// Write an adapter in another format: a PEFT folder, llama.cpp's GGUF, or merged into its
    /// base.
    Export(ExportArguments),
    /// Measure this machine, a model on it, the low-rank kernel, or a running server.
    Bench(BenchArguments),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  multigraft serve --base smollm2 --adapters demo/adapters
  multigraft serve --base ./Mistral-7B --adapter support=./support --adapter sql=./sql --port 8000
  multigraft --config multigraft.toml serve

The same as a file (paths in it are relative to it):
  [model]
  base = \"smollm2\"
  adapters = \"demo/adapters\"
  adapter.support = \"./support\"
  [server]
  port = 8000

Then, from anywhere on this machine:
  curl http://127.0.0.1:8080/v1/models")]
pub(crate) struct ServeArguments {
    #[command(flatten)]
    pub model: ModelOptions,
    #[command(flatten)]
    pub server: ServerOptions,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Nothing is changed, fetched or served. Exit status: 0 the server would start, 1 a check fails, 2 bad arguments.

Example:
  multigraft doctor --base model.gguf --adapters ./adapters --memory 8GiB --host 0.0.0.0 --data ./data")]
pub(crate) struct DoctorArguments {
    #[command(flatten)]
    pub model: ModelOptions,
    #[command(flatten)]
    pub server: ServerOptions,

    /// Print JSON instead of text.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: 0 the server answers, 1 it does not.")]
pub(crate) struct HealthArguments {
    /// The URL to request. [default: /health of the server with the settings below]
    #[arg(long, value_name = "URL")]
    pub url: Option<Url>,

    /// The address that the server listens on, as for `serve`.
    #[arg(long, value_name = "ADDRESS", env = "MULTIGRAFT_HOST")]
    pub host: Option<IpAddr>,

    /// The port that the server listens on, as for `serve`.
    #[arg(long, value_name = "PORT", env = "MULTIGRAFT_PORT")]
    pub port: Option<u16>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  multigraft generate --base smollm2 \"What is a LoRA adapter?\"
  multigraft generate --base smollm2 --adapter cities=./cities --use cities \"Paris\"
  multigraft generate --base smollm2 --raw --max-tokens 20 \"Once upon a time\"")]
pub(crate) struct GenerateArguments {
    #[command(flatten)]
    pub model: ModelOptions,

    /// The name of the adapter that answers. [default: the only adapter, or the base if there is
    /// none]
    #[arg(long = "use", value_name = "NAME")]
    pub with: Option<String>,

    /// The system message.
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    pub system: Option<String>,

    /// Continue the prompt as it is, without a chat template.
    #[arg(long)]
    pub raw: bool,

    /// The most tokens to generate. There are fewer if the model ends its answer or the context is
    /// full.
    #[arg(long, value_name = "TOKENS", default_value_t = 512)]
    pub max_tokens: usize,

    /// The sampling temperature; 0 always takes the most likely token.
    #[arg(long, value_name = "NUMBER", default_value_t = 0.0)]
    pub temperature: f32,

    /// Sample only from the most likely tokens that together have this probability.
    #[arg(long, value_name = "NUMBER", default_value_t = 1.0)]
    pub top_p: f32,

    /// The seed of sampling. [default: random]
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,

    /// Text that ends the answer. Repeatable.
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,

    /// The prompt; `-` reads it from stdin.
    pub prompt: String,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  multigraft inspect model.gguf
  multigraft inspect ./adapters/support --base model.gguf")]
pub(crate) struct InspectArguments {
    /// A model (a GGUF file or a folder) or an adapter (a folder, or llama.cpp's GGUF file).
    pub path: PathBuf,

    /// The base to check the adapter against: a file, a folder, or a name as for `serve`.
    #[arg(long, value_name = "MODEL", env = "MULTIGRAFT_BASE")]
    pub base: Option<String>,

    /// Print JSON instead of text.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The reference is a safetensors file. For every prompt p from 0 on, and for `base` and every adapter a, it has the tensors
  prompt.<p>       int64 [n]            token ids
  <a>.<p>.logits   float32 [n, vocab]   the logits of every position
  <a>.<p>.greedy   int64 [k]            the greedy continuation

Exit status: 0 everything agrees, 1 something deviates, 2 bad input.

Example:
  multigraft verify --base llama/model --adapters llama/adapters --reference llama/reference.safetensors")]
pub(crate) struct VerifyArguments {
    /// The base model: a GGUF file or a model folder.
    #[arg(long, value_name = "MODEL")]
    pub base: PathBuf,

    /// A folder of adapters.
    #[arg(long, value_name = "FOLDER")]
    pub adapters: PathBuf,

    /// The file of reference numbers.
    #[arg(long, value_name = "FILE")]
    pub reference: PathBuf,

    /// The largest allowed deviation of a logit, as a fraction of the largest logit.
    #[arg(long, value_name = "FRACTION", default_value_t = 2e-4)]
    pub tolerance: f32,

    /// The device that computes. `cpu` is this machine's processor.
    #[arg(long, value_name = "DEVICE", env = "MULTIGRAFT_DEVICE", default_value = "cpu")]
    pub device: Device,

    /// Compute threads. [default: one per core]
    #[arg(long, value_name = "COUNT")]
    pub threads: Option<usize>,

    /// Print JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  multigraft adapters ls
  multigraft adapters add support=./adapters/support
  multigraft adapters add support=hf://org/support@v2 --replace
  multigraft adapters upload support=./adapters/support
  multigraft adapters rollback support
  multigraft adapters --server http://10.0.0.5:8080 verify

The server resolves sources, and must allow them (`serve --allow-source`).
Exit status: 0 done, 1 `verify` found a failing adapter, 2 the command failed.")]
pub(crate) struct AdaptersArguments {
    /// The server's URL.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "MULTIGRAFT_SERVER",
        default_value = "http://127.0.0.1:8080"
    )]
    pub server: Url,

    /// An API key, if the server requires one.
    #[arg(
        long,
        global = true,
        value_name = "KEY",
        env = "MULTIGRAFT_API_KEY",
        hide_env_values = true
    )]
    pub api_key: Option<String>,

    #[command(subcommand)]
    pub action: AdaptersAction,
}

#[derive(Debug, Args)]
#[command(after_help = "\
A secret is shown only once, when it is created. A server that uses the data folder notices changes within seconds.

Examples:
  multigraft keys add boss --role admin --data ./data
  multigraft keys add acme --grant 'acme/*' --grant base --days 90 --data ./data
  multigraft keys set acme --requests-per-minute 60 --tokens-per-month 5000000 --data ./data
  multigraft keys rotate acme --data ./data
  multigraft keys revoke acme --data ./data")]
pub(crate) struct KeysArguments {
    /// The server's data folder.
    #[arg(long, global = true, value_name = "FOLDER", env = "MULTIGRAFT_DATA")]
    pub data: Option<PathBuf>,

    #[command(subcommand)]
    pub action: KeysAction,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  multigraft usage --data ./data
  multigraft usage --by key,month --from 2027-01-01 --data ./data
  multigraft usage --by key,adapter,hour --json --data ./data

Requests are counted about a second after they have ended. Times are in UTC. Hours are kept for 400 days.")]
pub(crate) struct UsageArguments {
    /// The server's data folder.
    #[arg(long, value_name = "FOLDER", env = "MULTIGRAFT_DATA")]
    pub data: Option<PathBuf>,
    /// The start: a day (such as 2027-01-31), or seconds since 1970. [default: 30 days before the
    /// end]
    #[arg(long, value_name = "TIME", value_parser = UsageQuery::time)]
    pub from: Option<SystemTime>,
    /// The end, which is excluded: a day, or seconds since 1970. [default: now]
    #[arg(long, value_name = "TIME", value_parser = UsageQuery::time)]
    pub to: Option<SystemTime>,
    /// The columns to group by: key, tenant, adapter, and one of hour, day, month.
    #[arg(long, value_name = "LIST", default_value = "key,adapter")]
    pub by: By,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Actions on keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KeysAction {
    /// Create a key, and show its secret.
    Add {
        /// The key's name.
        name: String,
        /// `use`: use adapters; `manage`: also add adapters and change those; `admin`: everything.
        #[arg(long, default_value = "use")]
        role: Role,
        /// The tenant, which has its own prefix cache and fair share. [default: the key's name]
        #[arg(long)]
        tenant: Option<String>,
        /// An adapter that the key may use, or a pattern such as acme/*; `base` for the base.
        /// Repeatable. [default: everything]
        #[arg(long)]
        grant: Vec<String>,
        /// Days until the key expires. [default: never]
        #[arg(long)]
        days: Option<u32>,
        #[command(flatten)]
        limits: KeyLimitArguments,
    },
    /// List the keys, without secrets.
    Ls,
    /// Revoke a key. It cannot be restored.
    Revoke {
        /// The key's name or id.
        key: String,
    },
    /// Give a key a new secret, and show it. The old secret remains valid for some hours.
    Rotate {
        /// The key's name or id.
        key: String,
        /// Hours until the old secret expires.
        #[arg(long, default_value_t = 24)]
        hours: u32,
    },
    /// Change a key. What is not given does not change.
    Set {
        /// The key's name or id.
        key: String,
        /// `use`, `manage` or `admin`.
        #[arg(long)]
        role: Option<Role>,
        /// The tenant, which has its own prefix cache and fair share.
        #[arg(long)]
        tenant: Option<String>,
        /// An adapter or pattern that the key may use; replaces all earlier ones. Repeatable.
        #[arg(long)]
        grant: Vec<String>,
        /// Days from now until the key expires.
        #[arg(long)]
        days: Option<u32>,
        #[command(flatten)]
        limits: KeyLimitArguments,
    },
}

/// Limits of a key; 0 removes a limit.
#[derive(Debug, Args)]
pub(crate) struct KeyLimitArguments {
    /// Requests per minute; 0: no limit.
    #[arg(long, value_name = "COUNT")]
    pub requests_per_minute: Option<u32>,
    /// Tokens per minute, of prompts and answers together; 0: no limit.
    #[arg(long, value_name = "COUNT")]
    pub tokens_per_minute: Option<u32>,
    /// Requests that wait or run at once; 0: no limit.
    #[arg(long, value_name = "COUNT")]
    pub concurrent_requests: Option<u32>,
    /// Tokens per calendar month, in UTC; 0: no limit.
    #[arg(long, value_name = "COUNT")]
    pub tokens_per_month: Option<u64>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AdaptersAction {
    /// List all adapters: state, memory, effect, versions.
    Ls {
        /// Print the server's JSON.
        #[arg(long)]
        json: bool,
    },
    /// Load and check an adapter, then serve it.
    Add {
        /// The adapter's name in requests, and its source.
        #[arg(value_name = "[NAME=]SOURCE")]
        adapter: NamedSource,
        /// Replace the adapter of that name. Running requests are completed with the old one.
        #[arg(long)]
        replace: bool,
        /// Keep the adapter in memory.
        #[arg(long)]
        pin: bool,
    },
    /// Upload an adapter to the server, and serve it. The server must allow uploads (`serve --data
    /// … --allow-source upload`).
    Upload {
        /// The adapter's name in requests, and its folder or `.gguf` file on this machine.
        #[arg(value_name = "[NAME=]PATH")]
        adapter: NamedSource,
        /// Replace the adapter of that name. Running requests are completed with the old one.
        #[arg(long)]
        replace: bool,
        /// Keep the adapter in memory.
        #[arg(long)]
        pin: bool,
    },
    /// Remove an adapter. Running requests are completed.
    Rm {
        /// The adapter's name.
        name: String,
        /// End its running and waiting requests with an error.
        #[arg(long)]
        now: bool,
    },
    /// Keep an adapter in memory.
    Pin {
        /// The adapter's name.
        name: String,
        /// Allow the adapter to be evicted again.
        #[arg(long)]
        off: bool,
    },
    /// Set the limits of an adapter's requests. What is not given is not limited.
    Limit {
        /// The adapter's name.
        name: String,
        /// The adapter's share when the server is saturated: twice the weight gives twice the
        /// tokens. 0.01 to 100.
        #[arg(long, value_name = "WEIGHT", default_value_t = 1.0)]
        weight: f32,
        /// Requests per minute.
        #[arg(long, value_name = "COUNT")]
        requests_per_minute: Option<NonZeroU32>,
        /// Tokens per minute, of prompts and answers together.
        #[arg(long, value_name = "COUNT")]
        tokens_per_minute: Option<NonZeroU32>,
        /// Requests that wait or run at once.
        #[arg(long, value_name = "COUNT")]
        concurrent_requests: Option<NonZeroU32>,
        /// Share the prefix cache between tenants: a common system prompt is computed once for all.
        /// A tenant that measures response times can find out which prompts other tenants sent.
        #[arg(long)]
        shared_prefixes: bool,
    },
    /// Serve an earlier version of an adapter.
    Rollback {
        /// The adapter's name.
        name: String,
        /// The first digits of the version's hash. [default: the version before the active one]
        #[arg(long, value_name = "HASH")]
        to: Option<String>,
    },
    /// Send each adapter a request, and show the results of the self tests.
    Verify {
        /// The names of the adapters. [default: all]
        names: Vec<String>,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "\
Nothing is overwritten. The output appears complete or not at all.

Examples:
  multigraft export --base ./llama --adapter ./support.gguf --to peft --out ./support
  multigraft export --base model.gguf --adapter ./support --to gguf --out support.gguf
  multigraft export --base ./llama --adapter ./support --to merged --out ./llama-support")]
pub(crate) struct ExportArguments {
    /// The base of the adapter: a file, a folder, or a name as for `serve`.
    #[arg(long, value_name = "MODEL", env = "MULTIGRAFT_BASE")]
    pub base: String,

    /// The adapter: a folder, or llama.cpp's GGUF file.
    #[arg(long, value_name = "PATH")]
    pub adapter: PathBuf,

    /// The format to write.
    #[arg(long, value_name = "FORM")]
    pub to: ExportForm,

    /// The path to write to: a folder; a file for `gguf`, and for `merged` if the base is a file.
    /// It must not exist.
    #[arg(long, value_name = "PATH")]
    pub out: PathBuf,
}

/// The formats of `export`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ExportForm {
    /// A folder with adapter_config.json and adapter_model.safetensors.
    Peft,
    /// A GGUF file like those of llama.cpp's convert_lora_to_gguf.py, which hold low-rank updates
    /// only.
    Gguf,
    /// A model folder, or a GGUF file if the base is one: the base with the adapter merged into its
    /// weights, in the base's types (bfloat16 where those are quantised).
    Merged,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_of_serve_has_an_environment_variable() {
        let command = Cli::command();
        let serve = command.find_subcommand("serve").expect("serve exists");
        for argument in serve.get_arguments() {
            assert!(
                argument.get_env().is_some(),
                "{argument} has no environment variable"
            );
        }
    }
}

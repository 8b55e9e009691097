//! What can be typed.

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
/// Every request names the adapter it wants; requests for different adapters share every step of
/// the same batch.
#[derive(Debug, Parser)]
#[command(
    version,
    max_term_width = 100,
    after_help = "\
Start here:
  multigraft serve --base model.gguf --adapters ./adapters
  multigraft generate --base model.gguf --adapter support=./adapters/support \"Where is my parcel?\"

Every flag of `serve` can also be an environment variable (shown beside it) or a line of a TOML file; see
`multigraft serve --help`."
)]
pub(crate) struct Cli {
    /// A TOML file with settings. Flags and environment variables win over it.
    #[arg(long, global = true, value_name = "FILE", env = "MULTIGRAFT_CONFIG")]
    pub config: Option<PathBuf>,

    /// What is logged to stderr: error, warn, info, debug or trace; also per module, as in
    /// `info,multigraft_engine=debug`.
    #[arg(
        long,
        global = true,
        value_name = "LEVEL",
        env = "MULTIGRAFT_LOG",
        default_value = "info"
    )]
    pub log: String,

    /// How it is logged: as lines for people, or one JSON object a line.
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
    /// Check whether `serve` with these settings would do well on this machine.
    Doctor(Box<DoctorArguments>),
    /// Ask whether a server answers: for containers' health checks.
    Health(HealthArguments),
    /// Answer one prompt on the terminal, token by token.
    Generate(Box<GenerateArguments>),
    /// Show what is in a model or an adapter, and whether the adapter fits a base.
    Inspect(InspectArguments),
    /// Check that adapters answer as they do in PEFT, alone and mixed in one batch.
    Verify(VerifyArguments),
    /// List, add, replace, remove, pin, roll back and verify the adapters of a running server.
    Adapters(AdaptersArguments),
    /// Add, list, change, rotate and revoke API keys, whether or not a server runs.
    Keys(KeysArguments),
    /// Show what keys and adapters used: requests and tokens, by the hour or more.
    Usage(UsageArguments),
    /// Write an adapter in another form: PEFT's folder, llama.cpp's GGUF, or merged into its base.
    Export(ExportArguments),
    /// Measure this machine, the model on it, the adapters' kernels, or a running server.
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
Nothing is changed, fetched or served. Exit status: 0 it would serve, 1 something fails, 2 the command was wrong.

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
Exit status: 0 it answers, 1 it does not.")]
pub(crate) struct HealthArguments {
    /// What to ask. [default: /health of the server with the settings below]
    #[arg(long, value_name = "URL")]
    pub url: Option<Url>,

    /// The address that the server listens on, as for `serve`.
    #[arg(long, value_name = "ADDRESS", env = "MULTIGRAFT_HOST")]
    pub host: Option<IpAddr>,

    /// Its port, as for `serve`.
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

    /// The name of the adapter that answers. Without it: the only adapter if there is one, the base
    /// if there is none.
    #[arg(long = "use", value_name = "NAME")]
    pub with: Option<String>,

    /// What the system message says.
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    pub system: Option<String>,

    /// Continue the prompt as it is, without the model's chat template.
    #[arg(long)]
    pub raw: bool,

    /// The most tokens to generate; less if the model ends its answer or the context is full.
    #[arg(long, value_name = "TOKENS", default_value_t = 512)]
    pub max_tokens: usize,

    /// How freely tokens are drawn: 0 always takes the likeliest.
    #[arg(long, value_name = "NUMBER", default_value_t = 0.0)]
    pub temperature: f32,

    /// Draw only from the likeliest tokens that together have this probability.
    #[arg(long, value_name = "NUMBER", default_value_t = 1.0)]
    pub top_p: f32,

    /// Makes the draws repeatable.
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

    /// The base that the adapter should fit: a file, a folder, or a name as for `serve`.
    #[arg(long, value_name = "MODEL", env = "MULTIGRAFT_BASE")]
    pub base: Option<String>,

    /// Print JSON instead of text.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The reference file holds, as safetensors, for every prompt p from 0 on and for `base` and every adapter a:
  prompt.<p>       int64 [n]            token ids
  <a>.<p>.logits   float32 [n, vocab]   the logits of every position
  <a>.<p>.greedy   int64 [k]            the greedy continuation

Exit status: 0 everything agrees, 1 something deviates, 2 the input was bad.

Example:
  multigraft verify --base llama/model --adapters llama/adapters --reference llama/reference.safetensors")]
pub(crate) struct VerifyArguments {
    /// The base model: a GGUF file or a model folder.
    #[arg(long, value_name = "MODEL")]
    pub base: PathBuf,

    /// A folder of adapters.
    #[arg(long, value_name = "FOLDER")]
    pub adapters: PathBuf,

    /// The numbers to compare with.
    #[arg(long, value_name = "FILE")]
    pub reference: PathBuf,

    /// The largest deviation of a logit that passes, as a fraction of the largest logit.
    #[arg(long, value_name = "FRACTION", default_value_t = 2e-4)]
    pub tolerance: f32,

    /// What computes. `cpu` is this machine's processor.
    #[arg(long, value_name = "DEVICE", env = "MULTIGRAFT_DEVICE", default_value = "cpu")]
    pub device: Device,

    /// Threads; without it, one per core.
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

Sources are resolved by the server, which must allow them (`serve --allow-source`).
Exit status: 0 done, 1 `verify` found a failing adapter, 2 it could not be done.")]
pub(crate) struct AdaptersArguments {
    /// The server's address.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "MULTIGRAFT_SERVER",
        default_value = "http://127.0.0.1:8080"
    )]
    pub server: Url,

    /// An API key, if the server wants one.
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
A secret is shown once, when it is made. A server that uses the data folder sees changes within seconds.

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

Counted are requests that have ended, a second or so after that. Times are in UTC; hours are kept for 400 days.")]
pub(crate) struct UsageArguments {
    /// The server's data folder.
    #[arg(long, value_name = "FOLDER", env = "MULTIGRAFT_DATA")]
    pub data: Option<PathBuf>,
    /// The first day (such as 2027-01-31), or seconds since 1970. [default: 30 days before the end]
    #[arg(long, value_name = "TIME", value_parser = UsageQuery::time)]
    pub from: Option<SystemTime>,
    /// The end, which is not counted any more. [default: now]
    #[arg(long, value_name = "TIME", value_parser = UsageQuery::time)]
    pub to: Option<SystemTime>,
    /// What is shown apart: key, tenant, adapter, and one of hour, day, month.
    #[arg(long, value_name = "LIST", default_value = "key,adapter")]
    pub by: By,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// What is done to keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KeysAction {
    /// Make a key, and show its secret.
    Add {
        /// What to call it.
        name: String,
        /// `use`: use adapters; `manage`: also add some, and change those; `admin`: everything.
        #[arg(long, default_value = "use")]
        role: Role,
        /// Whose prefixes and fair share it has. [default: its name]
        #[arg(long)]
        tenant: Option<String>,
        /// An adapter that it may use, or a pattern such as acme/*; `base` for the base.
        /// Repeatable. [default: everything]
        #[arg(long)]
        grant: Vec<String>,
        /// Days until it ends. [default: never]
        #[arg(long)]
        days: Option<u32>,
        #[command(flatten)]
        limits: KeyLimitArguments,
    },
    /// List the keys, without secrets.
    Ls,
    /// End a key, for good.
    Revoke {
        /// Its name or id.
        key: String,
    },
    /// Give a key another secret, and show it; the old one goes on for a while.
    Rotate {
        /// Its name or id.
        key: String,
        /// Hours that the old secret goes on.
        #[arg(long, default_value_t = 24)]
        hours: u32,
    },
    /// Change a key; what is not named stays.
    Set {
        /// Its name or id.
        key: String,
        /// `use`, `manage` or `admin`.
        #[arg(long)]
        role: Option<Role>,
        /// Whose prefixes and fair share it has.
        #[arg(long)]
        tenant: Option<String>,
        /// What it may use, in place of what it could. Repeatable.
        #[arg(long)]
        grant: Vec<String>,
        /// Days from now until it ends.
        #[arg(long)]
        days: Option<u32>,
        #[command(flatten)]
        limits: KeyLimitArguments,
    },
}

/// How much a key's requests may take; 0 lifts a limit.
#[derive(Debug, Args)]
pub(crate) struct KeyLimitArguments {
    /// Requests in a minute; 0: any number.
    #[arg(long, value_name = "COUNT")]
    pub requests_per_minute: Option<u32>,
    /// Tokens in a minute, of prompts and answers together; 0: any number.
    #[arg(long, value_name = "COUNT")]
    pub tokens_per_minute: Option<u32>,
    /// Requests that wait or run at once; 0: any number.
    #[arg(long, value_name = "COUNT")]
    pub concurrent_requests: Option<u32>,
    /// Tokens in a month of the calendar, in UTC; 0: any number.
    #[arg(long, value_name = "COUNT")]
    pub tokens_per_month: Option<u64>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AdaptersAction {
    /// Show all adapters: state, memory, effect, versions.
    Ls {
        /// Print what the server answers.
        #[arg(long)]
        json: bool,
    },
    /// Load an adapter and serve it once it is checked.
    Add {
        /// What requests call it, and where it is.
        #[arg(value_name = "[NAME=]SOURCE")]
        adapter: NamedSource,
        /// Take the place of the adapter that has the name; requests under way end on that one.
        #[arg(long)]
        replace: bool,
        /// Keep it in memory.
        #[arg(long)]
        pin: bool,
    },
    /// Send an adapter's files to the server, which must allow it (`serve --data … --allow-source
    /// upload`), and serve it.
    Upload {
        /// What requests call it, and its folder or `.gguf` file on this machine.
        #[arg(value_name = "[NAME=]PATH")]
        adapter: NamedSource,
        /// Take the place of the adapter that has the name; requests under way end on that one.
        #[arg(long)]
        replace: bool,
        /// Keep it in memory.
        #[arg(long)]
        pin: bool,
    },
    /// Remove an adapter; requests under way end as they would have.
    Rm {
        /// Its name.
        name: String,
        /// End its requests, those that run and those that wait, with an error.
        #[arg(long)]
        now: bool,
    },
    /// Keep an adapter in memory.
    Pin {
        /// Its name.
        name: String,
        /// Keep it no longer.
        #[arg(long)]
        off: bool,
    },
    /// Say what an adapter's requests may take; what is left out is not limited.
    Limit {
        /// Its name.
        name: String,
        /// Its share where there is not enough for all: twice the weight is twice the tokens. 0.01
        /// to 100.
        #[arg(long, value_name = "WEIGHT", default_value_t = 1.0)]
        weight: f32,
        /// Requests that are accepted in a minute.
        #[arg(long, value_name = "COUNT")]
        requests_per_minute: Option<NonZeroU32>,
        /// Tokens in a minute, of prompts and answers together.
        #[arg(long, value_name = "COUNT")]
        tokens_per_minute: Option<NonZeroU32>,
        /// Requests that wait or run at once.
        #[arg(long, value_name = "COUNT")]
        concurrent_requests: Option<NonZeroU32>,
        /// Lets tenants use each other's computed prefixes: a common system prompt is computed once
        /// for all. Who can measure times learns by it which prompts others sent.
        #[arg(long)]
        shared_prefixes: bool,
    },
    /// Serve an earlier version of an adapter.
    Rollback {
        /// Its name.
        name: String,
        /// The first digits of the version's hash. [default: the version before the active one]
        #[arg(long, value_name = "HASH")]
        to: Option<String>,
    },
    /// Have adapters answer a request each, and show what their self tests found.
    Verify {
        /// Their names; without any, all.
        names: Vec<String>,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "\
Nothing is overwritten, and what is written appears whole or not at all.

Examples:
  multigraft export --base ./llama --adapter ./support.gguf --to peft --out ./support
  multigraft export --base model.gguf --adapter ./support --to gguf --out support.gguf
  multigraft export --base ./llama --adapter ./support --to merged --out ./llama-support")]
pub(crate) struct ExportArguments {
    /// The base that the adapter is for: a file, a folder, or a name as for `serve`.
    #[arg(long, value_name = "MODEL", env = "MULTIGRAFT_BASE")]
    pub base: String,

    /// The adapter: a folder, or llama.cpp's GGUF file; any that can be served.
    #[arg(long, value_name = "PATH")]
    pub adapter: PathBuf,

    /// The form to write.
    #[arg(long, value_name = "FORM")]
    pub to: ExportForm,

    /// Where to write it: a folder; a file for `gguf`, and for `merged` if the base is one. It must
    /// not exist.
    #[arg(long, value_name = "PATH")]
    pub out: PathBuf,
}

/// What `export` writes.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ExportForm {
    /// A folder with adapter_config.json and adapter_model.safetensors.
    Peft,
    /// A file as llama.cpp's convert_lora_to_gguf.py writes it: low-rank updates and nothing else.
    Gguf,
    /// A model folder, or a GGUF file if the base is one: the base's with the adapter in its
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

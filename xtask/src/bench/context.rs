//! What measurements are made with, and the results that they add to.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::compare::target_folder;
use super::figures::bench;
use super::rival::{LlamaCpp, Python};
use super::rows::Rows;
use super::running::Running;
use super::subjects::{NotGiven, Subjects};
use super::{Arguments, threads};
use crate::server;

/// The programs, models and options of a run.
pub(super) struct Tools {
    pub(super) program: PathBuf,
    pub(super) subjects: Subjects,
    pub(super) llama_cpp: Option<LlamaCpp>,
    pub(super) python: Option<Python>,
    pub(super) threads: usize,
    pub(super) rounds: usize,
    /// The folder of results and logs.
    pub(super) out: PathBuf,
}

/// The results of a run.
pub(super) struct Results {
    threads: usize,
    rounds: usize,
    /// The folder of results.md and results.json.
    out: PathBuf,
    /// Tables other than that of the rows.
    pub(super) sections: String,
    pub(super) rows: Rows,
    /// All reports of the benchmarks.
    pub(super) reports: Vec<Value>,
    /// Whether a measurement failed, other than for a missing model, adapter or rival.
    pub(super) failed: bool,
}

impl Tools {
    pub(super) fn new(arguments: &Arguments) -> Result<Self> {
        let out = arguments
            .out
            .clone()
            .unwrap_or_else(|| target_folder().join("bench"));
        let out = std::path::absolute(out)?;
        fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
        let threads = threads(arguments);
        let llama_cpp = arguments.llama_cpp.as_deref();
        let python = arguments.python.as_deref();
        Ok(Self {
            subjects: Subjects::new(arguments.subjects.as_deref())?,
            llama_cpp: llama_cpp
                .map(|folder| LlamaCpp::new(folder, threads))
                .transpose()?,
            python: python.map(|program| Python::new(program, threads)).transpose()?,
            program: server::build("release")?,
            threads,
            rounds: arguments.rounds,
            out,
        })
    }

    /// `multigraft bench <what>`.
    pub(super) fn bench(&self, what: &str) -> Command {
        let mut command = bench(&self.program, what);
        if what != "serve" {
            command.args(["--threads", &self.threads.to_string()]);
        }
        command
    }

    /// The file for the output of a server.
    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.out.join(format!("{name}.log"))
    }

    /// llama.cpp's server, if its programs are given.
    pub(super) fn llama_server(
        &self,
        model: &Path,
        adapters: &[PathBuf],
        slots: usize,
    ) -> Result<Option<Running>> {
        let Some(rival) = &self.llama_cpp else {
            return Ok(None);
        };
        Running::start(rival.server(model, adapters, slots), &self.log("llama-server")).map(Some)
    }
}

impl Results {
    pub(super) fn new(out: PathBuf, threads: usize, rounds: usize) -> Self {
        Self {
            threads,
            rounds,
            out,
            sections: String::new(),
            rows: Rows::default(),
            reports: Vec::new(),
            failed: false,
        }
    }

    /// Runs a measurement and writes all results so far, so that a later failure does not lose
    /// them. If the measurement fails, the rows that it announced and did not fill get the reason,
    /// and the run continues.
    pub(super) fn attempt(&mut self, measure: impl FnOnce(&mut Self) -> Result<()>) {
        let first = self.rows.len();
        if let Err(error) = measure(self) {
            eprintln!("not measured: {error:#}");
            self.failed |= !error.is::<NotGiven>();
            self.rows.explain(first, &format!("{error:#}"));
        }
        if let Err(error) = self.write() {
            eprintln!("results not written: {error:#}");
            self.failed = true;
        }
    }

    /// All results as Markdown.
    pub(super) fn text(&self) -> String {
        let mut text = self.sections.clone();
        if self.rows.len() > 0 {
            text += &format!(
                "## Figures\n\nSmolLM2-135M unless said otherwise; {} threads; rounds: {}. Servers were started with \
                 `multigraft serve --base MODEL --adapters FOLDER`. Tokens/s where no unit stands.\n\n{}",
                self.threads, self.rounds, self.rows
            );
        }
        text
    }

    fn write(&self) -> Result<()> {
        let json = json!({"threads": self.threads, "rows": self.rows.json(), "reports": self.reports});
        for (name, text) in [
            ("results.json", format!("{json:#}\n")),
            ("results.md", self.text()),
        ] {
            let path = self.out.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows::{Rival, Unit};
    use super::*;

    #[test]
    fn what_is_not_given_is_no_failure_and_what_fails_is() {
        let out = tempfile::tempdir().expect("a folder");
        let mut results = Results::new(out.path().to_owned(), 2, 1);
        for (error, failed) in [
            (NotGiven("needs --subjects".to_owned()).into(), false),
            (anyhow::anyhow!("the server ended"), true),
        ] {
            results.attempt(|results| {
                results
                    .rows
                    .announce("decode", Unit::TokensPerSecond, Rival::LLAMA_BENCH, "1");
                Err(error)
            });
            assert_eq!(results.failed, failed);
            let written = fs::read_to_string(out.path().join("results.md")).expect("written after each");
            assert_eq!(written.matches("| decode").count(), results.rows.len());
        }
        assert_eq!(results.rows.json()[0]["not_measured"], "needs --subjects");
        assert_eq!(results.rows.json()[1]["not_measured"], "the server ended");
    }
}

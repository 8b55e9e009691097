//! llama.cpp, measured beside: its bench and its server.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::figures::json_of;

/// Sequences that its server runs at once, and the context of each: the largest load has 32 clients of 192 tokens.
const SLOTS: usize = 32;
const CONTEXT: usize = 512;

/// llama.cpp's programs.
#[derive(Debug)]
pub(super) struct LlamaCpp {
    folder: PathBuf,
    threads: String,
}

impl LlamaCpp {
    pub(super) fn new(folder: &Path, threads: usize) -> Result<Self> {
        for program in ["llama-bench", "llama-server"] {
            ensure!(
                folder.join(program).is_file(),
                "there is no {program} in {}",
                folder.display()
            );
        }
        Ok(Self {
            folder: std::path::absolute(folder)?,
            threads: threads.to_string(),
        })
    }

    /// Tokens/s of a prompt of `length` and of decoding alone, after `depth` tokens.
    pub(super) fn bench(&self, model: &Path, length: usize, depth: usize) -> Result<Vec<(String, f64)>> {
        let mut command = Command::new(self.folder.join("llama-bench"));
        command.arg("--model").arg(model).args([
            "--threads",
            &self.threads,
            "--output",
            "json",
            "--repetitions",
            "2",
        ]);
        command.args([
            "--n-prompt",
            &length.to_string(),
            "--n-gen",
            "32",
            "--n-depth",
            &depth.to_string(),
        ]);
        figures(&json_of(&mut command)?)
    }

    /// The command of a server with the adapters loaded and none applied.
    pub(super) fn server(&self, model: &Path, adapters: &[PathBuf]) -> Command {
        let mut command = Command::new(self.folder.join("llama-server"));
        command.arg("--model").arg(model).args([
            "--threads",
            &self.threads,
            "--threads-batch",
            &self.threads,
        ]);
        command.args([
            "--parallel",
            &SLOTS.to_string(),
            "--ctx-size",
            &(SLOTS * CONTEXT).to_string(),
        ]);
        // The load's prompts share nothing: keeping them only costs time.
        command.args(["--no-kv-unified", "--cache-ram", "0"]);
        for adapter in adapters {
            command.arg("--lora").arg(adapter);
        }
        if !adapters.is_empty() {
            command.arg("--lora-init-without-apply");
        }
        command
    }
}

/// Figures by the names that ours have.
fn figures(report: &Value) -> Result<Vec<(String, f64)>> {
    let rows = report.as_array().context("llama-bench prints a list")?;
    rows.iter()
        .map(|row| {
            let speed = row["avg_ts"].as_f64().context("llama-bench gives tokens/s")?;
            let (prompt, depth) = (
                row["n_prompt"].as_u64().unwrap_or(0),
                row["n_depth"].as_u64().unwrap_or(0),
            );
            let what = if prompt > 0 {
                format!("prefill of {prompt}")
            } else {
                format!("decode, 1 at {depth}")
            };
            Ok((what, speed))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn its_figures_have_our_names() {
        let report = json!([{"n_prompt": 512, "n_gen": 0, "n_depth": 0, "avg_ts": 700.0},
            {"n_prompt": 0, "n_gen": 32, "n_depth": 64, "avg_ts": 170.0}]);
        let expected = [
            ("prefill of 512".to_owned(), 700.0),
            ("decode, 1 at 64".to_owned(), 170.0),
        ];
        assert_eq!(figures(&report).expect("figures"), expected);
    }
}

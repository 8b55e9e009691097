//! Loads on the servers of multigraft and of a rival, in turn, and the roofline of a load.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::context::{Results, Tools};
use super::figures::{json_of, samples, shown};
use super::rows::Figure;
use super::running::Running;
use super::subjects::NotGiven;

/// The lengths of prompts and answers of every load, in tokens.
const PROMPT: usize = 128;
const ANSWER: usize = 64;
/// How long a rival is left alone before multigraft is measured: vLLM's workers spin for a second
/// after their last request.
const SETTLING: Duration = Duration::from_secs(2);

/// The clients, the adapters that they use in turn, and the number of requests of all clients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Load {
    pub(super) clients: usize,
    pub(super) adapters: usize,
    pub(super) requests: usize,
}

impl Load {
    /// Every client sends three requests; a single client sends enough for a figure.
    pub(super) fn new(clients: usize, adapters: usize) -> Self {
        Self {
            clients,
            adapters,
            requests: (3 * clients).max(16),
        }
    }

    /// Every client sends so many requests.
    pub(super) fn each(self, times: usize) -> Self {
        Self {
            requests: times * self.clients,
            ..self
        }
    }
}

/// The server of a rival, and its dialect.
#[derive(Clone, Copy)]
pub(super) struct Other<'a> {
    pub(super) server: &'a Running,
    pub(super) dialect: &'static str,
}

/// The results of one load, round by round.
pub(super) struct Outcome {
    load: Load,
    ours: Vec<Value>,
    theirs: Vec<Value>,
    command: String,
    /// The least time of the load on this machine, in seconds.
    least: Option<f64>,
}

impl<'a> Other<'a> {
    pub(super) fn llama_cpp(server: &'a Running) -> Self {
        Self {
            server,
            dialect: "llama-cpp",
        }
    }

    pub(super) fn openai(server: &'a Running) -> Self {
        Self {
            server,
            dialect: "openai",
        }
    }
}

impl Outcome {
    pub(super) fn new(load: Load) -> Self {
        Self {
            load,
            ours: Vec::new(),
            theirs: Vec::new(),
            command: String::new(),
            least: None,
        }
    }

    /// Runs one round of the load on multigraft's server.
    pub(super) fn add(&mut self, tools: &Tools, results: &mut Results, ours: &Running) -> Result<()> {
        let mut command = command(tools, ours, "openai", self.load);
        self.command = shown(&command);
        self.ours.push(report(&mut command, results)?);
        Ok(())
    }

    /// Adds the roofline: that of the load's prompts one by one, and of its other tokens in steps
    /// with one row per client.
    pub(super) fn add_roofline(
        &mut self,
        tools: &Tools,
        model: &Path,
        adapters: Option<&Path>,
    ) -> Result<()> {
        self.least = Some(least(tools, model, adapters, self.load)?);
        Ok(())
    }

    /// The figure at a JSON pointer of the reports, for multigraft and for the rival.
    pub(super) fn figure(&self, pointer: &str) -> Figure {
        let reached = |least: f64| {
            samples(&self.ours, "/seconds")
                .iter()
                .map(|s| least / s)
                .collect()
        };
        Figure {
            ours: samples(&self.ours, pointer),
            theirs: samples(&self.theirs, pointer),
            reached: self.least.map_or_else(Vec::new, reached),
            command: self.command.clone(),
        }
    }

    pub(super) fn speed(&self) -> Figure {
        self.figure("/output_tokens_per_second")
    }

    /// The speed compared with that of another load on multigraft's server.
    pub(super) fn speed_over(&self, base: &Self) -> Figure {
        Figure {
            theirs: base.speed().ours,
            ..self.speed()
        }
    }
}

/// The command of multigraft's server.
pub(super) fn serve(tools: &Tools, model: &Path, adapters: Option<&Path>) -> Command {
    let mut command = Command::new(&tools.program);
    command
        .arg("serve")
        .arg("--base")
        .arg(model)
        .args(["--threads", &tools.threads.to_string()]);
    if let Some(adapters) = adapters {
        command.arg("--adapters").arg(adapters);
    }
    command
}

/// The first `count` adapters of a folder, in llama.cpp's format.
pub(super) fn converted(adapters: &Path, count: usize) -> Result<Vec<PathBuf>> {
    let file = |index| {
        let name = format!("a{index:02}.gguf");
        let file = adapters.join(&name);
        if file.is_file() {
            Ok(file)
        } else {
            let why = format!(
                "a folder of adapters has no {name}: make_adapters.py writes it unless told --no-gguf"
            );
            Err(NotGiven(why).into())
        }
    };
    (0..count).map(file).collect()
}

/// Runs all loads in every round, one after the other, each on multigraft's server and then on its
/// rival's if there is one.
pub(super) fn in_turn(
    tools: &Tools,
    results: &mut Results,
    ours: &Running,
    loads: &[(Load, Option<Other<'_>>)],
) -> Result<Vec<Outcome>> {
    let mut outcomes: Vec<Outcome> = loads.iter().map(|(load, _)| Outcome::new(*load)).collect();
    for _ in 0..tools.rounds {
        for ((load, other), outcome) in loads.iter().zip(&mut outcomes) {
            if other.is_some() {
                thread::sleep(SETTLING);
            }
            outcome.add(tools, results, ours)?;
            if let Some(Other { server, dialect }) = other {
                let mut command = command(tools, server, dialect, *load);
                outcome.theirs.push(report(&mut command, results)?);
            }
        }
    }
    Ok(outcomes)
}

fn command(tools: &Tools, server: &Running, dialect: &str, load: Load) -> Command {
    let mut command = tools.bench("serve");
    command.args(["--url", &server.url, "--dialect", dialect]);
    command.args(["--clients", &load.clients.to_string()]);
    command.args(["--requests", &load.requests.to_string()]);
    if load.adapters > 0 {
        command.args(["--adapters", &load.adapters.to_string()]);
    }
    command
}

/// The report of the load generator, without the single requests.
fn report(command: &mut Command, results: &mut Results) -> Result<Value> {
    let mut report = json_of(command)?;
    if let Some(report) = report.as_object_mut() {
        report.remove("requests");
    }
    let figures = report["figures"].clone();
    results
        .reports
        .push(json!({"what": "serve", "command": shown(command), "report": report}));
    Ok(figures)
}

/// The least time of a load in seconds, from the rooflines of `bench model`.
fn least(tools: &Tools, model: &Path, adapters: Option<&Path>, load: Load) -> Result<f64> {
    let mut command = tools.bench("model");
    command.arg("--base").arg(model);
    for index in 0..load.adapters {
        let folder = adapters.context("a load with adapters needs their folder")?;
        command.arg("--adapter").arg(folder.join(format!("a{index:02}")));
    }
    let (prompt, clients) = (PROMPT.to_string(), load.clients.to_string());
    let context = (PROMPT + ANSWER / 2).to_string();
    command.args([
        "--prefill-lengths",
        &prompt,
        "--decode-batches",
        &clients,
        "--decode-contexts",
        &context,
    ]);
    // Only the rooflines are used here, not the measured times.
    command.args(["--repetitions", "1", "--steps", "1"]);
    let report = json_of(&mut command)?;
    let figures = report.pointer("/runs/0/figures").and_then(Value::as_array);
    let seconds = |phase: &str| {
        let of = figures?.iter().find(|figure| {
            let adapted = figure["adapters"].as_u64().unwrap_or(0) > 0;
            figure["phase"] == phase && adapted == (load.adapters > 0)
        })?;
        of.pointer("/roofline/seconds")?.as_f64()
    };
    let seconds =
        |phase| seconds(phase).with_context(|| format!("`bench model` gave no roofline of {phase}"));
    let steps = (load.requests * (ANSWER - 1)) as f64 / load.clients as f64;
    Ok(load.requests as f64 * seconds("prefill")? + steps * seconds("decode")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_client_sends_a_few_requests() {
        assert_eq!(Load::new(32, 1).requests, 96);
        assert_eq!(Load::new(1, 0).requests, 16);
        assert_eq!(Load::new(8, 8).each(1).requests, 8);
    }

    #[test]
    fn figures_are_read_round_by_round() {
        let report = |speed: f64| json!({"output_tokens_per_second": speed, "seconds": 10.0, "itl": null});
        let outcome = Outcome {
            ours: vec![report(3.0), report(1.0)],
            theirs: vec![report(2.0)],
            least: Some(5.0),
            ..Outcome::new(Load::new(1, 0))
        };
        let figure = outcome.speed();
        assert_eq!(
            (figure.ours, figure.theirs, figure.reached),
            (vec![3.0, 1.0], vec![2.0], vec![0.5; 2])
        );
        assert!(outcome.figure("/itl/p50").ours.is_empty());
        assert_eq!(outcome.speed_over(&outcome).theirs, [3.0, 1.0]);
    }
}

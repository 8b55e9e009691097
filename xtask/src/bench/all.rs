//! All figures in one go.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::compare::target_folder;
use super::figures::{bench, json_of, median, of_model};
use super::markdown::{Table, figure};
use super::rival::LlamaCpp;
use super::running::Running;
use super::{Arguments, Subject, threads};
use crate::server;

/// The prompt of the prefill figure, and what stands before decoded tokens, in tokens.
const PROMPT: usize = 512;
const DEPTH: usize = 64;

/// A load on a server: clients, and adapters that they take in turn.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Load {
    clients: usize,
    adapters: usize,
}

/// Those of the table of figures; what needs more adapters than there are is left out.
const LOADS: [Load; 8] = [
    Load {
        clients: 1,
        adapters: 0,
    },
    Load {
        clients: 16,
        adapters: 0,
    },
    Load {
        clients: 16,
        adapters: 5,
    },
    Load {
        clients: 16,
        adapters: 8,
    },
    Load {
        clients: 8,
        adapters: 8,
    },
    Load {
        clients: 32,
        adapters: 0,
    },
    Load {
        clients: 32,
        adapters: 1,
    },
    Load {
        clients: 32,
        adapters: 32,
    },
];

/// What is measured with.
struct Tools {
    program: PathBuf,
    rival: Option<LlamaCpp>,
    threads: usize,
    rounds: usize,
    /// Where results and logs go.
    out: PathBuf,
}

/// What came out, as JSON and as Markdown.
#[derive(Default)]
struct Results {
    json: Vec<Value>,
    text: String,
}

pub(super) fn run(subjects: &[Subject], arguments: &Arguments) -> Result<()> {
    let out = arguments
        .out
        .clone()
        .unwrap_or_else(|| target_folder().join("bench"));
    let out = std::path::absolute(out)?;
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    let threads = threads(arguments);
    let rival = arguments
        .llama_cpp
        .as_deref()
        .map(|folder| LlamaCpp::new(folder, threads))
        .transpose()?;
    let tools = Tools {
        program: server::build("release")?,
        rival,
        threads,
        rounds: arguments.rounds,
        out,
    };
    let mut results = Results::default();
    tools.machine(&mut results)?;
    tools.lora(&mut results)?;
    for subject in subjects {
        tools.model(subject, &mut results)?;
        tools.serve(subject, &mut results)?;
    }
    let (json, markdown) = (tools.out.join("results.json"), tools.out.join("results.md"));
    fs::write(&json, format!("{:#}\n", Value::from(results.json)))?;
    fs::write(&markdown, &results.text)?;
    println!("{}", results.text);
    println!("Written to {} and {}.", markdown.display(), json.display());
    Ok(())
}

impl Tools {
    fn bench(&self, what: &str) -> Command {
        let mut command = bench(&self.program, what);
        if what != "serve" {
            command.args(["--threads", &self.threads.to_string()]);
        }
        command
    }

    fn machine(&self, results: &mut Results) -> Result<()> {
        let report = json_of(&mut self.bench("machine"))?;
        let mut table = Table::new([
            "threads",
            "memory GB/s",
            "cache GB/s",
            "int8 GOP/s",
            "bf16 GFLOP/s",
            "f32 GFLOP/s",
        ]);
        for machine in report["machine"].as_array().into_iter().flatten() {
            let giga = |value: &Value| figure(value.as_f64().unwrap_or(f64::NAN) / 1e9);
            let rate = |kind: &str| giga(&machine[kind]["operations_per_second"]);
            table.row([
                machine["threads"].to_string(),
                giga(&machine["memory_bytes_per_second"]),
                giga(&machine["cache_bytes_per_second"]),
                rate("int8"),
                rate("bf16"),
                rate("f32"),
            ]);
        }
        results.text += &format!("## The machine\n\n{table}\n");
        results.json.push(json!({"what": "machine", "report": report}));
        Ok(())
    }

    fn lora(&self, results: &mut Results) -> Result<()> {
        let mut command = self.bench("lora");
        let report = json_of(command.args(["--ranks", "8,16", "--segments", "1,8,32", "--rows", "1,8"]))?;
        let mut table = Table::new(["low-rank updates", "rank", "ms", "bound by", "reached"]);
        for of in report["figures"].as_array().into_iter().flatten() {
            let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
            table.row([
                format!("{} segments of {} rows", of["segments"], of["rows"]),
                of["rank"].to_string(),
                format!("{:.3}", number(&of["seconds"]) * 1e3),
                of["roofline"]["bound"].as_str().unwrap_or("-").to_owned(),
                format!("{:.0} %", 100.0 * number(&of["roofline"]["reached"])),
            ]);
        }
        results.text += &format!("## Low-rank updates, 576 -> rank -> 1536\n\n{table}\n");
        results.json.push(json!({"what": "lora", "report": report}));
        Ok(())
    }

    /// Prefill and decode without a server, in turn with the rival.
    fn model(&self, subject: &Subject, results: &mut Results) -> Result<()> {
        let (mut ours, mut reached) = (
            BTreeMap::<String, Vec<f64>>::new(),
            BTreeMap::<String, Vec<f64>>::new(),
        );
        let mut theirs = BTreeMap::<String, Vec<f64>>::new();
        let mut order = Vec::new();
        for _ in 0..self.rounds {
            let mut command = self.bench("model");
            command.arg("--base").arg(&subject.model);
            if let Some(adapters) = &subject.adapters {
                command.arg("--adapters").arg(adapters);
            }
            command.args(["--prefill-lengths", &PROMPT.to_string()]);
            command.args([
                "--decode-contexts",
                &DEPTH.to_string(),
                "--decode-batches",
                "1,8,16,32",
            ]);
            let report = json_of(&mut command)?;
            for figure in of_model(&report)? {
                if !order.contains(&figure.what) {
                    order.push(figure.what.clone());
                }
                ours.entry(figure.what.clone())
                    .or_default()
                    .push(figure.tokens_per_second);
                reached.entry(figure.what).or_default().push(figure.reached);
            }
            results
                .json
                .push(json!({"what": "model", "model": subject.name, "report": report}));
            if let Some(rival) = &self.rival {
                // Its depth is for the prompt too: two runs, so that the prompt has none.
                let runs = [
                    rival.bench(&subject.model, PROMPT, 0)?,
                    rival.bench(&subject.model, 0, DEPTH)?,
                ];
                for (what, speed) in runs.into_iter().flatten() {
                    results.json.push(json!({"what": "llama-bench", "model": subject.name, "figure": what, "tokens_per_second": speed}));
                    theirs.entry(what).or_default().push(speed);
                }
            }
        }
        let mut table = Table::new(["what", "tokens/s", "of the roofline", "llama-bench", "ratio"]);
        for what in order {
            let own = median(ours[&what].clone());
            let other = theirs
                .get(&what)
                .map_or(f64::NAN, |speeds| median(speeds.clone()));
            let part = 100.0 * median(reached[&what].clone());
            table.row([
                what,
                figure(own),
                format!("{part:.0} %"),
                figure(other),
                figure(own / other),
            ]);
        }
        results.text += &format!(
            "## {}: prefill and decode, {} threads\n\n{table}\n",
            subject.name, self.threads
        );
        Ok(())
    }

    /// Loads on our server, in turn with the rival's.
    fn serve(&self, subject: &Subject, results: &mut Results) -> Result<()> {
        let names = adapter_names(subject.adapters.as_deref())?;
        let mut command = Command::new(&self.program);
        command
            .arg("serve")
            .arg("--base")
            .arg(&subject.model)
            .args(["--threads", &self.threads.to_string()]);
        if let Some(adapters) = &subject.adapters {
            command.arg("--adapters").arg(adapters);
        }
        let log = |who: &str| self.out.join(format!("{}-{who}.log", subject.name));
        let ours = Running::start(command, &log("multigraft"))?;
        let theirs = match &self.rival {
            Some(rival) => {
                let converted = |folder: &Path| {
                    names
                        .iter()
                        .map(|name| folder.join(format!("{name}.gguf")))
                        .collect()
                };
                let files: Vec<PathBuf> = subject.adapters.as_deref().map_or_else(Vec::new, converted);
                let there = files
                    .into_iter()
                    .filter(|file| file.is_file())
                    .collect::<Vec<_>>();
                let server = Running::start(rival.server(&subject.model, &there), &log("llama-server"))?;
                Some((server, there.len()))
            }
            None => None,
        };
        let mut table = Table::new([
            "clients, adapters",
            "server",
            "tokens/s",
            "TTFT p50",
            "p99",
            "ITL p50",
            "p99",
            "ratio",
        ]);
        for load in LOADS.iter().filter(|load| load.adapters <= names.len()) {
            let (mut own, mut others) = (Vec::new(), Vec::new());
            for _ in 0..self.rounds {
                own.push(self.load(&ours, "openai", *load)?);
                if let Some((server, _)) = theirs.as_ref().filter(|(_, count)| load.adapters <= *count) {
                    others.push(self.load(server, "llama-cpp", *load)?);
                }
            }
            let what = format!("{}, {}", load.clients, load.adapters);
            let speeds = [&own, &others].map(|reports| figure_of(reports, "/output_tokens_per_second"));
            for (who, reports, ratio) in [
                ("multigraft", &own, figure(speeds[0] / speeds[1])),
                ("llama.cpp", &others, String::new()),
            ] {
                if reports.is_empty() {
                    continue;
                }
                let cell = |path: &str| figure(figure_of(reports, path));
                table.row([
                    what.clone(),
                    who.to_owned(),
                    cell("/output_tokens_per_second"),
                    cell("/ttft/p50"),
                    cell("/ttft/p99"),
                    cell("/itl/p50"),
                    cell("/itl/p99"),
                    ratio,
                ]);
                results.json.push(
                    json!({"what": "serve", "model": subject.name, "server": who, "clients": load.clients,
                    "adapters": load.adapters, "reports": reports}),
                );
            }
        }
        results.text += &format!(
            "## {}: servers under load, prompts of 128 and answers of 64 tokens, times in ms\n\n{table}\n",
            subject.name
        );
        for (who, server) in [
            ("multigraft", Some(&ours)),
            ("llama.cpp", theirs.as_ref().map(|(server, _)| server)),
        ] {
            let Some(server) = server else { continue };
            let memory = server.resident_mib().unwrap_or(f64::NAN);
            let start = server.started_in.as_secs_f64();
            results.text += &format!(
                "{who}: answers {start:.2} s after its start, holds {} MiB after the load\n",
                figure(memory)
            );
            results.json.push(json!({"what": "server", "model": subject.name, "server": who, "start_seconds": start, "resident_mib": memory}));
        }
        results.text.push('\n');
        Ok(())
    }

    /// One run of the load generator; what it reports without its requests one by one.
    fn load(&self, server: &Running, dialect: &str, load: Load) -> Result<Value> {
        let mut command = self.bench("serve");
        command.args([
            "--url",
            &server.url,
            "--dialect",
            dialect,
            "--clients",
            &load.clients.to_string(),
        ]);
        command.args(["--requests", &requests(load).to_string()]);
        if load.adapters > 0 {
            command.args(["--adapters", &load.adapters.to_string()]);
        }
        Ok(json_of(&mut command)?["figures"].take())
    }
}

/// Enough that every client sends a few.
fn requests(load: Load) -> usize {
    (3 * load.clients).max(16)
}

/// The median over reports of the number at a JSON pointer.
fn figure_of(reports: &[Value], pointer: &str) -> f64 {
    let numbers = reports
        .iter()
        .filter_map(|report| report.pointer(pointer)?.as_f64());
    median(numbers.collect())
}

/// The adapters of a folder, in the order in which servers list them.
fn adapter_names(folder: Option<&Path>) -> Result<Vec<String>> {
    let Some(folder) = folder else {
        return Ok(Vec::new());
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.join("adapter_config.json").is_file() {
            names.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adapters_are_folders_with_a_configuration() {
        let demo = crate::shell::root().join("demo").join("adapters");
        let names = adapter_names(Some(&demo)).expect("the demo's adapters");
        assert_eq!(
            names,
            ["address", "home-commands", "pronunciation", "sentiment", "topic"]
        );
        assert!(adapter_names(None).expect("none").is_empty());
    }

    #[test]
    fn figures_are_medians_over_rounds() {
        let report = |p50: f64| json!({"ttft": {"p50": p50}, "itl": null});
        let reports = [report(3.0), report(1.0), report(2.0)];
        assert_eq!(figure_of(&reports, "/ttft/p50"), 2.0);
        assert!(figure_of(&reports, "/itl/p50").is_nan());
        assert_eq!(
            requests(Load {
                clients: 32,
                adapters: 0
            }),
            96
        );
    }
}

//! Runs `multigraft bench` and reads its reports.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::shell::root;

/// Runs a command in the repository's root and reads the JSON that it prints.
pub(super) fn json_of(command: &mut Command) -> Result<Value> {
    let words = format!("{command:?}").replace('"', "");
    eprintln!("$ {words}");
    let output = command
        .current_dir(root())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run `{words}`"))?;
    if !output.status.success() {
        bail!("`{words}` ended with {}", output.status);
    }
    serde_json::from_slice(&output.stdout).with_context(|| format!("`{words}` did not print JSON"))
}

/// `multigraft bench <what> --json -` without the settings of the environment.
pub(super) fn bench(program: &Path, what: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let ours = name.to_str().is_some_and(|name| name.starts_with("MULTIGRAFT_"));
        if ours && name != "MULTIGRAFT_ISA" {
            command.env_remove(name);
        }
    }
    command.args(["--log", "warn", "bench", what, "--json", "-"]);
    command
}

/// A command of [`bench()`] for the table, without arguments that depend on the machine or set the
/// form of the results.
pub(super) fn shown(command: &Command) -> String {
    const LEFT_OUT: [&str; 5] = ["--log", "--json", "--url", "--dialect", "--threads"];
    let mut words = Vec::new();
    let mut arguments = command.get_args().map(|word| word.to_string_lossy());
    while let Some(word) = arguments.next() {
        if LEFT_OUT.contains(&&*word) {
            arguments.next();
        } else {
            let name = word.rsplit(std::path::MAIN_SEPARATOR).next().unwrap_or(&word);
            words.push(name.to_owned());
        }
    }
    words.join(" ")
}

/// The number at a JSON pointer in every report that has it.
pub(super) fn samples(reports: &[Value], pointer: &str) -> Vec<f64> {
    let number = |report: &Value| report.pointer(pointer)?.as_f64();
    reports.iter().filter_map(number).collect()
}

/// One figure of `multigraft bench model`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Figure {
    /// Phase, sizes and adapters: the same in every run.
    pub(super) what: String,
    pub(super) tokens_per_second: f64,
    /// The least time over the measured one.
    pub(super) reached: f64,
}

/// The figures of a report of `multigraft bench model`.
pub(super) fn of_model(report: &Value) -> Result<Vec<Figure>> {
    let runs = report["runs"]
        .as_array()
        .context("a report of `bench model` has runs")?;
    let figures = runs
        .iter()
        .flat_map(|run| run["figures"].as_array().into_iter().flatten());
    figures
        .map(|figure| {
            let number = |value: &Value| value.as_f64().context("a figure is a number");
            let (phase, sequences) = (figure["phase"].as_str().unwrap_or("?"), &figure["sequences"]);
            let (tokens, adapters) = (&figure["tokens"], &figure["adapters"]);
            let what = match phase {
                "prefill" => format!("prefill of {tokens}"),
                _ => format!("decode, {sequences} at {tokens}"),
            };
            let with = match adapters.as_u64() {
                Some(0) | None => String::new(),
                Some(1) => ", 1 adapter".to_owned(),
                Some(many) => format!(", {many} adapters"),
            };
            Ok(Figure {
                what: what + &with,
                tokens_per_second: number(&figure["tokens_per_second"])?,
                reached: number(&figure["roofline"]["reached"])?,
            })
        })
        .collect()
}

/// The middle value; of an even number, the mean of the two in the middle.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    if values.is_empty() {
        return f64::NAN;
    }
    values.sort_by(f64::total_cmp);
    f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_report_is_read_figure_by_figure() {
        let figure = |phase: &str, adapters: u64| {
            json!({"phase": phase, "sequences": 8, "tokens": 64, "adapters": adapters, "tokens_per_second": 10.0,
                "roofline": {"reached": 0.5}})
        };
        let report =
            json!({"runs": [{"figures": [figure("prefill", 0), figure("decode", 1), figure("decode", 8)]}]});
        let figures = of_model(&report).expect("a report");
        let names: Vec<&str> = figures.iter().map(|figure| figure.what.as_str()).collect();
        assert_eq!(
            names,
            [
                "prefill of 64",
                "decode, 8 at 64, 1 adapter",
                "decode, 8 at 64, 8 adapters"
            ]
        );
        assert_eq!((figures[0].tokens_per_second, figures[0].reached), (10.0, 0.5));
        assert!(of_model(&json!({})).is_err());
    }

    #[test]
    fn a_command_is_shown_without_arguments_of_this_machine() {
        let mut command = bench(Path::new("multigraft"), "serve");
        command.args([
            "--url",
            "http://127.0.0.1:1",
            "--clients",
            "8",
            "--base",
            "/tmp/x/m.gguf",
        ]);
        assert_eq!(shown(&command), "bench serve --clients 8 --base m.gguf");
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![1.0, 2.0]), 1.5);
    }
}

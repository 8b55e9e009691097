//! Prefill and decode without a server, in turn with llama-bench.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

use super::context::{Results, Tools};
use super::figures::{Figure as Speed, json_of, of_model, shown};
use super::rival::LlamaCpp;
use super::rows::{Figure, Rival, Unit};
use super::subjects::Subject;

/// The prompt of the prefill figures, in tokens.
const PROMPT: usize = 512;
/// The default context of decoded tokens, in tokens.
pub(super) const DEPTH: usize = 64;
/// A long context; SmolLM2's own is 8,192.
const LONG: usize = 8000;
/// Tokens that are decoded.
const STEPS: usize = 32;

/// Decoding of one sequence, at a short and at a long context.
pub(super) fn decode(tools: &Tools, results: &mut Results) {
    for (what, depth, to_reach) in [
        ("Q4_0, one stream, decode", DEPTH, "1.4; 75 % of bandwidth"),
        ("Q4_0, decode at 8,000 tokens of context", LONG, "1.5"),
    ] {
        decode_of(tools, results, Subject::Q4_0, what, depth, to_reach);
    }
}

/// Prompts in every weight type, and the speed-up of a second thread.
pub(super) fn prefill(tools: &Tools, results: &mut Results) {
    for (subject, to_reach) in [
        (Subject::Q4_0, "2.2; 55 % of int8"),
        (Subject::Q4_1, "4.5; 55 % of int8"),
        (Subject::Q8_0, "2.8; 55 % of int8"),
        (Subject::BF16, "1.2; 65 % of bf16"),
    ] {
        prefill_of(tools, results, subject, to_reach);
    }
    scaling(tools, results);
}

pub(super) fn decode_of(
    tools: &Tools,
    results: &mut Results,
    subject: Subject,
    what: &str,
    depth: usize,
    to_reach: &str,
) {
    results.attempt(|results| {
        let row = results
            .rows
            .announce(what, Unit::TokensPerSecond, Rival::LLAMA_BENCH, to_reach);
        let model = tools.subjects.model(subject)?;
        let (steps, depth_text) = (STEPS.to_string(), depth.to_string());
        let sizes = [
            "--only",
            "decode",
            "--decode-batches",
            "1",
            "--decode-contexts",
            &depth_text,
            "--steps",
            &steps,
        ];
        let figure = in_turn(tools, results, subject, &model, &sizes, |rival| {
            rival.decode(&model, depth, STEPS)
        })?;
        results.rows.fill(row, figure);
        Ok(())
    });
}

pub(super) fn prefill_of(tools: &Tools, results: &mut Results, subject: Subject, to_reach: &str) {
    results.attempt(|results| {
        let what = format!("{}, prefill of {PROMPT}", subject.title);
        let row = results
            .rows
            .announce(what, Unit::TokensPerSecond, Rival::LLAMA_BENCH, to_reach);
        let model = tools.subjects.model(subject)?;
        let length = PROMPT.to_string();
        let sizes = ["--only", "prefill", "--prefill-lengths", &length];
        let figure = in_turn(tools, results, subject, &model, &sizes, |rival| {
            rival.prefill(&model, PROMPT)
        })?;
        results.rows.fill(row, figure);
        Ok(())
    });
}

fn scaling(tools: &Tools, results: &mut Results) {
    results.attempt(|results| {
        let row = results.rows.announce(
            format!("Q4_1, prefill of {PROMPT}, two threads"),
            Unit::TokensPerSecond,
            Rival::itself("one thread"),
            "1.85",
        );
        let model = tools.subjects.model(Subject::Q4_1)?;
        let length = PROMPT.to_string();
        let mut figure = Figure::default();
        for _ in 0..tools.rounds {
            let mut command = super::figures::bench(&tools.program, "model");
            command.arg("--base").arg(&model).args([
                "--only",
                "prefill",
                "--prefill-lengths",
                &length,
                "--scaling",
            ]);
            figure.command = shown(&command);
            let report = json_of(command.args(["--threads", "2"]))?;
            let speeds = of_model(&report)?;
            results.reports.push(json!({"what": "scaling", "report": report}));
            let [one, two] = &speeds[..] else {
                anyhow::bail!("`bench model --scaling` gave {} figures, not 2", speeds.len());
            };
            figure.theirs.push(one.tokens_per_second);
            figure.ours.push(two.tokens_per_second);
            figure.reached.push(two.reached);
        }
        results.rows.fill(row, figure);
        Ok(())
    });
}

/// Measures one figure in every round, in turn with the rival.
fn in_turn(
    tools: &Tools,
    results: &mut Results,
    subject: Subject,
    model: &Path,
    sizes: &[&str],
    theirs: impl Fn(&LlamaCpp) -> Result<f64>,
) -> Result<Figure> {
    let mut figure = Figure::default();
    for _ in 0..tools.rounds {
        let speed = measure_figure(tools, results, subject, model, sizes, &mut figure.command)?;
        figure.ours.push(speed.tokens_per_second);
        figure.reached.push(speed.reached);
        if let Some(rival) = &tools.llama_cpp {
            figure.theirs.push(theirs(rival)?);
        }
    }
    Ok(figure)
}

/// Measures one figure of multigraft.
fn measure_figure(
    tools: &Tools,
    results: &mut Results,
    subject: Subject,
    model: &Path,
    sizes: &[&str],
    command_shown: &mut String,
) -> Result<Speed> {
    let mut command = tools.bench("model");
    command.arg("--base").arg(model).args(sizes);
    *command_shown = shown(&command);
    let report = json_of(&mut command)?;
    let speed = of_model(&report)?.into_iter().next();
    results
        .reports
        .push(json!({"what": "model", "model": subject.title, "report": report}));
    speed.context("`bench model` reported no figure: is the model's context too short?")
}

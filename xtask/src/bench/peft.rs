//! Eight clients with eight adapters, compared with transformers and PEFT.

use anyhow::{Context, Result};
use serde_json::json;

use super::context::{Results, Tools};
use super::load::{Load, Outcome, serve};
use super::rows::{Figure, Rival, Unit};
use super::running::Running;
use super::subjects::Subject;

/// The number of clients, of rows in PEFT's batch, and of adapters.
const COUNT: usize = 8;

/// BF16, as PEFT computes, and Q4_0.
pub(super) fn measure(tools: &Tools, results: &mut Results) {
    for subject in [Subject::BF16, Subject::Q4_0] {
        results.attempt(|results| measure_one(tools, results, subject));
    }
}

fn measure_one(tools: &Tools, results: &mut Results, subject: Subject) -> Result<()> {
    let what = format!("{}, {COUNT} clients, {COUNT} adapters", subject.title);
    let mut announce = |rival, to_reach: &str| {
        results
            .rows
            .announce(what.as_str(), Unit::TokensPerSecond, rival, to_reach)
    };
    let mixed = announce(Rival::PEFT_MIXED, "12");
    let switching = announce(Rival::PEFT_SWITCHING, "25");
    let model = tools.subjects.model(subject)?;
    let adapters = tools.subjects.adapters(subject, COUNT)?;
    let ours = Running::start(
        serve(tools, &model, Some(&adapters)),
        &tools.log("peft-multigraft"),
    )?;
    let mut outcome = Outcome::new(Load::new(COUNT, COUNT));
    let (mut batch, mut alone) = (Vec::new(), Vec::new());
    for _ in 0..tools.rounds {
        outcome.add(tools, results, &ours)?;
        if let Some(python) = &tools.python {
            let report = python.peft(&tools.subjects.transformers()?, &adapters, COUNT)?;
            for (way, speeds) in [("mixed", &mut batch), ("switch", &mut alone)] {
                let speed = report[way]["tokens_per_second"].as_f64();
                speeds.push(speed.with_context(|| format!("peft_mixed.py gave no figure for `{way}`"))?);
            }
            results.reports.push(json!({"what": "peft", "report": report}));
        }
    }
    drop(ours);
    outcome.add_roofline(tools, &model, Some(&adapters))?;
    for (row, theirs) in [(mixed, batch), (switching, alone)] {
        results.rows.fill(
            row,
            Figure {
                theirs,
                ..outcome.speed()
            },
        );
    }
    Ok(())
}

//! The rows of servers under load.

use anyhow::Result;

use super::context::{Results, Tools};
use super::load::{Load, Other, converted, in_turn, serve};
use super::rows::{Figure, Rival, Unit};
use super::running::Running;
use super::subjects::Subject;

/// SmolLM2 in Q4_0 with up to 32 adapters.
pub(super) fn small(tools: &Tools, results: &mut Results) -> Result<()> {
    const SLOTS: usize = 32;
    let rows = &mut results.rows;
    let mut speed = |what: &str, to_reach: &str| {
        rows.announce(
            format!("Q4_0, {what}"),
            Unit::TokensPerSecond,
            Rival::LLAMA_SERVER,
            to_reach,
        )
    };
    let one = speed("one stream over HTTP", "2");
    let base = speed("16 clients, base", "3.3");
    let eight = speed("16 clients, 8 adapters", "7");
    let many = speed("32 clients, 32 adapters", "6.5");
    let mut over_base = |what: &str, to_reach: &str| {
        rows.announce(
            format!("Q4_0, 32 clients, {what} over base"),
            Unit::TokensPerSecond,
            Rival::itself("base"),
            to_reach,
        )
    };
    let one_over = over_base("1 adapter", "0.95");
    let many_over = over_base("32 adapters", "0.75, or 90 % of the roofline");
    let mut at_once = |what: &str, unit, to_reach: &str| {
        let what = format!("Q4_0, 32 clients, 32 adapters, all at once: {what}");
        rows.announce(what, unit, Rival::LLAMA_SERVER, to_reach)
    };
    let middle = at_once("TTFT p50", Unit::Milliseconds, "2 s");
    let late = at_once("TTFT p99", Unit::Milliseconds, "5 s");
    let even = at_once("ITL p99 over p50", Unit::Times, "3");

    let model = tools.subjects.model(Subject::Q4_0)?;
    let adapters = tools.subjects.adapters(Subject::Q4_0, SLOTS)?;
    let ours = Running::start(
        serve(tools, &model, Some(&adapters)),
        &tools.log("q4_0-multigraft"),
    )?;
    let theirs = tools.llama_server(&model, &converted(&adapters, SLOTS)?, SLOTS)?;
    let rival = theirs.as_ref().map(Other::llama_cpp);
    let loads = [
        (Load::new(1, 0), rival),
        (Load::new(16, 0), rival),
        (Load::new(16, 8), rival),
        (Load::new(32, 0), None),
        (Load::new(32, 1), None),
        (Load::new(32, 32), rival),
        (Load::new(32, 32).each(1), rival),
    ];
    let mut outcomes = in_turn(tools, results, &ours, &loads)?;
    // Stop it before the next measurement.
    drop((ours, theirs));
    for outcome in &mut outcomes {
        outcome.add_roofline(tools, &model, Some(&adapters))?;
    }
    let rows = &mut results.rows;
    let [single, sixteen, mixed, all, with_one, with_many, together] = &outcomes[..] else {
        unreachable!("an outcome for every load")
    };
    rows.fill(one, single.speed());
    rows.fill(base, sixteen.speed());
    rows.fill(eight, mixed.speed());
    rows.fill(many, with_many.speed());
    rows.fill(one_over, with_one.speed_over(all));
    rows.fill(many_over, with_many.speed_over(all));
    let latency = |pointer: &str| Figure {
        reached: Vec::new(),
        ..together.figure(pointer)
    };
    rows.fill(middle, latency("/ttft/p50"));
    rows.fill(late, latency("/ttft/p99"));
    let (p99, p50) = (latency("/itl/p99"), latency("/itl/p50"));
    let over = |above: &[f64], below: &[f64]| above.iter().zip(below).map(|(p99, p50)| p99 / p50).collect();
    rows.fill(
        even,
        Figure {
            ours: over(&p99.ours, &p50.ours),
            theirs: over(&p99.theirs, &p50.theirs),
            ..p99
        },
    );
    Ok(())
}

/// SmolLM2 in BF16, compared with vLLM: first the base without adapters, which vLLM compiles, then
/// eight adapters.
pub(super) fn vllm(tools: &Tools, results: &mut Results) {
    for (what, adapters, times, to_reach) in [
        ("16 clients, base", 0, 3, "1.3"),
        ("16 clients, 8 adapters", 8, 2, "8"),
    ] {
        results.attempt(|results| {
            const CLIENTS: usize = 16;
            let what = format!("BF16, {what}");
            let row = results
                .rows
                .announce(what, Unit::TokensPerSecond, Rival::VLLM, to_reach);
            let model = tools.subjects.model(Subject::BF16)?;
            let folder = tools.subjects.adapters(Subject::BF16, 8)?;
            let theirs = match &tools.python {
                Some(python) => {
                    let log = tools.log(&format!("bf16-vllm-{adapters}-server"));
                    let transformers = tools.subjects.transformers()?;
                    let command = python.vllm(&transformers, &folder, adapters, CLIENTS, &log)?;
                    Some(Running::start(
                        command,
                        &tools.log(&format!("bf16-vllm-{adapters}")),
                    )?)
                }
                None => None,
            };
            let used = (adapters > 0).then_some(&*folder);
            let ours = Running::start(serve(tools, &model, used), &tools.log("bf16-multigraft"))?;
            let rival = theirs.as_ref().map(Other::openai);
            let loads = [(Load::new(CLIENTS, adapters).each(times), rival)];
            let mut outcomes = in_turn(tools, results, &ours, &loads)?;
            drop((ours, theirs));
            for outcome in &mut outcomes {
                outcome.add_roofline(tools, &model, used)?;
            }
            results.rows.fill(row, outcomes[0].speed());
            Ok(())
        });
    }
}

/// Sixteen clients and eight adapters of rank 16 on all modules.
pub(super) fn qwen(tools: &Tools, results: &mut Results, subject: Subject) -> Result<()> {
    const CLIENTS: usize = 16;
    const ADAPTERS: usize = 8;
    let row = results.rows.announce(
        format!("{}, 16 clients, 8 adapters", subject.title),
        Unit::TokensPerSecond,
        Rival::LLAMA_SERVER,
        "5",
    );
    let model = tools.subjects.model(subject)?;
    let adapters = tools.subjects.adapters(subject, ADAPTERS)?;
    let ours = Running::start(
        serve(tools, &model, Some(&adapters)),
        &tools.log("qwen-multigraft"),
    )?;
    let theirs = tools.llama_server(&model, &converted(&adapters, ADAPTERS)?, CLIENTS)?;
    // Two requests per client, which take the rival minutes.
    let loads = [(
        Load::new(CLIENTS, ADAPTERS).each(2),
        theirs.as_ref().map(Other::llama_cpp),
    )];
    let mut outcomes = in_turn(tools, results, &ours, &loads)?;
    drop((ours, theirs));
    for outcome in &mut outcomes {
        outcome.add_roofline(tools, &model, Some(&adapters))?;
    }
    results.rows.fill(row, outcomes[0].speed());
    Ok(())
}

/// Eight clients and eight adapters of rank 8 on q and v.
pub(super) fn mistral(tools: &Tools, results: &mut Results) -> Result<()> {
    const CLIENTS: usize = 8;
    let title = Subject::MISTRAL.title;
    let mut announce = |what: &str, rival, to_reach: &str| {
        let what = format!("{title}, 8 clients, 8 adapters (r 8, q and v){what}");
        results
            .rows
            .announce(what, Unit::TokensPerSecond, rival, to_reach)
    };
    let eight = announce("", Rival::LLAMA_SERVER, "4");
    let over = announce(" over base", Rival::itself("base"), "0.97");
    let model = tools.subjects.model(Subject::MISTRAL)?;
    let adapters = tools.subjects.adapters(Subject::MISTRAL, CLIENTS)?;
    let ours = Running::start(
        serve(tools, &model, Some(&adapters)),
        &tools.log("mistral-multigraft"),
    )?;
    let theirs = tools.llama_server(&model, &converted(&adapters, CLIENTS)?, CLIENTS)?;
    // One request per client: a token takes the rival a fifth of a second.
    let loads = [
        (
            Load::new(CLIENTS, CLIENTS).each(1),
            theirs.as_ref().map(Other::llama_cpp),
        ),
        (Load::new(CLIENTS, 0).each(1), None),
    ];
    let mut outcomes = in_turn(tools, results, &ours, &loads)?;
    drop((ours, theirs));
    for outcome in &mut outcomes {
        outcome.add_roofline(tools, &model, Some(&adapters))?;
    }
    results.rows.fill(eight, outcomes[0].speed());
    results.rows.fill(over, outcomes[0].speed_over(&outcomes[1]));
    Ok(())
}

//! Two separate tables: the limits of the machine, and the low-rank kernel.

use anyhow::Result;
use serde_json::{Value, json};

use super::context::{Results, Tools};
use super::figures::json_of;
use super::markdown::{Table, figure};

pub(super) fn peaks(tools: &Tools, results: &mut Results) -> Result<()> {
    let report = json_of(&mut tools.bench("machine"))?;
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
    results.sections += &format!("## The machine\n\n{table}\n");
    results.reports.push(json!({"what": "machine", "report": report}));
    Ok(())
}

pub(super) fn low_rank(tools: &Tools, results: &mut Results) -> Result<()> {
    let mut command = tools.bench("lora");
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
    results.sections += &format!("## Low-rank updates, 576 -> rank -> 1536\n\n{table}\n");
    results.reports.push(json!({"what": "lora", "report": report}));
    Ok(())
}

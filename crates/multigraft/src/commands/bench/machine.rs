//! `multigraft bench machine`: read bandwidth and peak rates.

use anyhow::{Result, ensure};
use multigraft_kernels::machine::{Machine, Peak};
use multigraft_loadgen::{
    output::{print, write_json},
    table::{Table, figure},
};
use serde_json::{Value, json};

use super::arguments::MachineArguments;
use crate::config::default_threads;

pub(super) fn run(arguments: &MachineArguments) -> Result<()> {
    let threads = arguments.threads.unwrap_or_else(default_threads);
    ensure!(threads > 0, "--threads is 0, but must be 1 or more");
    let mut machines = vec![Machine::measure(1)];
    if threads > 1 {
        machines.push(Machine::measure(threads));
    }
    if let Some(path) = &arguments.json {
        let report = machines.iter().map(json_of).collect::<Vec<_>>();
        write_json(path, &json!({ "machine": report }))?;
        if path.as_os_str() == "-" {
            return Ok(());
        }
    }
    print(&table(&machines))
}

/// The machine's limits as all benchmarks report them.
pub(super) fn json_of(machine: &Machine) -> Value {
    let peak = |peak: &Peak| json!({"instruction": peak.instruction, "operations_per_second": peak.rate});
    json!({
        "threads": machine.threads,
        "memory_bytes_per_second": machine.memory,
        "cache_bytes_per_second": machine.cache,
        "int8": peak(&machine.int8),
        "bf16": machine.bf16.as_ref().map(peak),
        "f32": peak(&machine.f32),
    })
}

fn table(machines: &[Machine]) -> String {
    let mut table = Table::new(["peak of this machine", "threads", "rate", "unit", "by"]);
    for machine in machines {
        let mut row = |what: &str, rate: f64, unit: &str, by: &str| {
            let threads = machine.threads.to_string();
            table.row([
                what.to_owned(),
                threads,
                figure(rate / 1e9),
                unit.to_owned(),
                by.to_owned(),
            ]);
        };
        row("memory, read", machine.memory, "GB/s", "");
        row("last-level cache, read", machine.cache, "GB/s", "");
        row("int8", machine.int8.rate, "GOP/s", machine.int8.instruction);
        match machine.bf16 {
            Some(peak) => row("bf16", peak.rate, "GFLOP/s", peak.instruction),
            None => row("bf16", f64::NAN, "", ""),
        }
        row("f32", machine.f32.rate, "GFLOP/s", machine.f32.instruction);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(bf16: Option<Peak>) -> Machine {
        let peak = Peak {
            instruction: "portable",
            rate: 2e9,
        };
        Machine {
            threads: 3,
            memory: 20e9,
            cache: 70e9,
            int8: peak,
            bf16,
            f32: peak,
        }
    }

    #[test]
    fn missing_instructions_are_a_dash_and_null() {
        let machine = machine(None);
        let text = table(std::slice::from_ref(&machine));
        assert!(text.contains("bf16                          3     -"), "{text}");
        let json = json_of(&machine);
        assert!(json["bf16"].is_null());
        assert_eq!(json["int8"]["operations_per_second"], 2e9);
        assert_eq!(
            (json["threads"].as_u64(), json["memory_bytes_per_second"].as_f64()),
            (Some(3), Some(20e9))
        );
    }
}

//! Work beside the measured time, for reports.

use multigraft_kernels::machine::Machine;
use multigraft_loadgen::table::figure;
use multigraft_planner::Work;
use serde_json::{Value, json};

/// For JSON: the work, its least time, and the ratio of that to the measured seconds.
pub(super) fn json(work: &Work, machine: &Machine, measured: f64) -> Value {
    let least = work.seconds(machine);
    json!({
        "bytes": work.bytes,
        "int8_operations": work.int8,
        "bf16_operations": work.bf16,
        "f32_operations": work.f32,
        "seconds": least,
        "bound": work.bound(machine).to_string(),
        "reached": least / measured,
    })
}

/// For a table: the least time in milliseconds, what bounds it, and the ratio of it to the measured
/// seconds.
pub(super) fn cells(work: &Work, machine: &Machine, measured: f64) -> [String; 3] {
    let least = work.seconds(machine);
    [
        figure(least * 1e3),
        work.bound(machine).to_string(),
        format!("{:.0} %", 100.0 * least / measured),
    ]
}

#[cfg(test)]
mod tests {
    use multigraft_kernels::machine::Peak;

    use super::*;

    #[test]
    fn the_least_time_stands_beside_the_measured_one() {
        let peak = Peak {
            instruction: "test",
            rate: 10.0,
        };
        let machine = Machine {
            threads: 1,
            memory: 10.0,
            cache: 100.0,
            int8: peak,
            bf16: None,
            f32: peak,
        };
        let work = Work {
            bytes: 20.0,
            bf16: 40.0,
            ..Work::default()
        };
        assert_eq!(cells(&work, &machine, 8.0), ["4000", "arithmetic", "50 %"]);
        let json = json(&work, &machine, 8.0);
        assert_eq!(
            (&json["bound"], &json["reached"]),
            (&"arithmetic".into(), &0.5.into())
        );
    }
}

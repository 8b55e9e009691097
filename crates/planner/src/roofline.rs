//! What a computation cannot go below on this machine (Williams, Waterman and Patterson 2009,
//! "Roofline").

use std::ops::{Add, AddAssign, Mul};

use multigraft_kernels::machine::Machine;
use serde_json::{Value, json};

use super::table::figure;

/// What a computation has to do at least: bytes to read, and operations by the kind of numbers; a
/// multiply-add is two.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Work {
    pub bytes: f64,
    pub int8: f64,
    pub bf16: f64,
    pub f32: f64,
}

impl Work {
    /// The time that reading alone takes, in seconds.
    fn reading(&self, machine: &Machine) -> f64 {
        self.bytes / machine.memory
    }

    /// The time that arithmetic alone takes, in seconds. All kinds share the same units of the
    /// processor.
    fn arithmetic(&self, machine: &Machine) -> f64 {
        let bf16 = machine.bf16.unwrap_or(machine.f32);
        self.int8 / machine.int8.rate + self.bf16 / bf16.rate + self.f32 / machine.f32.rate
    }

    /// The least time, in seconds: reading and arithmetic can overlap, so the longer of the two.
    pub(super) fn seconds(&self, machine: &Machine) -> f64 {
        self.reading(machine).max(self.arithmetic(machine))
    }

    /// The longer of the two, by name.
    pub(super) fn bound(&self, machine: &Machine) -> &'static str {
        if self.reading(machine) >= self.arithmetic(machine) {
            "memory"
        } else {
            "arithmetic"
        }
    }

    /// For a report: the work, the least time, and what part of the measured time that is.
    pub(super) fn json(&self, machine: &Machine, measured: f64) -> Value {
        json!({
            "bytes": self.bytes,
            "int8_operations": self.int8,
            "bf16_operations": self.bf16,
            "f32_operations": self.f32,
            "seconds": self.seconds(machine),
            "bound": self.bound(machine),
            "reached": self.seconds(machine) / measured,
        })
    }

    /// For a table: the least time in milliseconds, what bounds it, and what part of the measured
    /// time it is.
    pub(super) fn cells(&self, machine: &Machine, measured: f64) -> [String; 3] {
        let least = self.seconds(machine);
        [
            figure(least * 1e3),
            self.bound(machine).to_owned(),
            format!("{:.0} %", 100.0 * least / measured),
        ]
    }
}

impl Add for Work {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            bytes: self.bytes + other.bytes,
            int8: self.int8 + other.int8,
            bf16: self.bf16 + other.bf16,
            f32: self.f32 + other.f32,
        }
    }
}

impl AddAssign for Work {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Mul<f64> for Work {
    type Output = Self;
    fn mul(self, times: f64) -> Self {
        Self {
            bytes: self.bytes * times,
            int8: self.int8 * times,
            bf16: self.bf16 * times,
            f32: self.f32 * times,
        }
    }
}

/// The middle one of some times, in seconds; of an even number the mean of the two in the middle.
pub(super) fn median(mut seconds: Vec<f64>) -> f64 {
    if seconds.is_empty() {
        return f64::NAN;
    }
    seconds.sort_by(f64::total_cmp);
    let (low, high) = ((seconds.len() - 1) / 2, seconds.len() / 2);
    f64::midpoint(seconds[low], seconds[high])
}

#[cfg(test)]
mod tests {
    use multigraft_kernels::machine::Peak;

    use super::*;

    fn machine() -> Machine {
        let peak = |rate| Peak {
            instruction: "test",
            rate,
        };
        Machine {
            threads: 1,
            memory: 10.0,
            cache: 100.0,
            int8: peak(40.0),
            bf16: None,
            f32: peak(10.0),
        }
    }

    #[test]
    fn the_longer_of_reading_and_arithmetic_bounds() {
        let work = Work {
            bytes: 20.0,
            int8: 40.0,
            ..Work::default()
        };
        assert_eq!(
            (work.seconds(&machine()), work.bound(&machine())),
            (2.0, "memory")
        );
        // Without an instruction for brain floats they cost as float32.
        let work = work
            + Work {
                bf16: 30.0,
                ..Work::default()
            };
        assert_eq!(
            (work.seconds(&machine()), work.bound(&machine())),
            (4.0, "arithmetic")
        );
        assert_eq!(work.cells(&machine(), 8.0), ["4000", "arithmetic", "50 %"]);
        assert_eq!((work * 2.0).json(&machine(), 8.0)["reached"], 1.0);
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(Vec::new()).is_nan());
    }
}

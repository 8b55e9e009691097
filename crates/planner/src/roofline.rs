//! The least time of a computation on a machine (Williams, Waterman and Patterson 2009,
//! "Roofline").

use std::{
    fmt,
    ops::{Add, AddAssign, Mul},
};

use multigraft_kernels::machine::Machine;

/// What a computation has to do at least.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Bytes to read from memory.
    pub bytes: f64,
    /// Operations on 8-bit integers; a multiply-add is two.
    pub int8: f64,
    /// Operations on brain floats.
    pub bf16: f64,
    /// Operations on 32-bit floats.
    pub f32: f64,
}

/// What limits a computation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// The bandwidth of memory.
    Memory,
    /// The peak rate of arithmetic.
    Arithmetic,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Arithmetic => "arithmetic",
        })
    }
}

impl Work {
    /// Seconds that reading alone takes.
    fn reading(&self, machine: &Machine) -> f64 {
        self.bytes / machine.memory
    }

    /// Seconds that arithmetic alone takes. All kinds of numbers share the same execution units.
    fn arithmetic(&self, machine: &Machine) -> f64 {
        let bf16 = machine.bf16.unwrap_or(machine.f32);
        self.int8 / machine.int8.rate + self.bf16 / bf16.rate + self.f32 / machine.f32.rate
    }

    /// The least time, in seconds: reading and arithmetic can overlap, so it is the longer of the
    /// two.
    #[must_use]
    pub fn seconds(&self, machine: &Machine) -> f64 {
        self.reading(machine).max(self.arithmetic(machine))
    }

    /// Whether reading or arithmetic takes longer.
    #[must_use]
    pub fn bound(&self, machine: &Machine) -> Bound {
        if self.reading(machine) >= self.arithmetic(machine) {
            Bound::Memory
        } else {
            Bound::Arithmetic
        }
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
            (2.0, Bound::Memory)
        );
        // Without an instruction for brain floats they cost as float32.
        let work = work
            + Work {
                bf16: 30.0,
                ..Work::default()
            };
        assert_eq!(
            (work.seconds(&machine()), work.bound(&machine())),
            (4.0, Bound::Arithmetic)
        );
        assert_eq!((work * 2.0).seconds(&machine()), 8.0);
    }
}

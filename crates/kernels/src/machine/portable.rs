//! Loops of plain code, for processors whose instructions this crate does not use.

use std::hint::black_box;

use super::Kind;

/// Length of an operand: both operands fit into the first-level cache.
const LENGTH: usize = 2048;
/// Independent sums, enough for the compiler to fill its vectors.
const SUMS: usize = 64;

pub(super) const INT8: Kind = Kind {
    instruction: "portable",
    run: int8,
};

pub(super) const F32: Kind = Kind {
    instruction: "portable",
    run: f32,
};

/// The exclusive or of all numbers, whose order does not matter, so that the compiler may
/// vectorise.
pub(super) fn read(numbers: &[u64]) -> u64 {
    numbers.iter().fold(0, |sum, number| sum ^ number)
}

/// Every body is one pass over `SUMS` products.
fn int8(bodies: usize) -> f64 {
    let (a, b) = (black_box([3i8; LENGTH]), black_box([-5i8; LENGTH]));
    let mut sums = [0i32; SUMS];
    for _ in 0..bodies * SUMS / LENGTH {
        let (a, b) = (black_box(&a), black_box(&b));
        for (a, b) in a.as_chunks::<SUMS>().0.iter().zip(b.as_chunks::<SUMS>().0) {
            for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
                *sum = sum.wrapping_add(i32::from(*a) * i32::from(*b));
            }
        }
    }
    black_box(sums);
    (bodies * SUMS * 2) as f64
}

fn f32(bodies: usize) -> f64 {
    let (a, b) = (black_box([0.5f32; LENGTH]), black_box([0.25f32; LENGTH]));
    let mut sums = [0f32; SUMS];
    for _ in 0..bodies * SUMS / LENGTH {
        let (a, b) = (black_box(&a), black_box(&b));
        for (a, b) in a.as_chunks::<SUMS>().0.iter().zip(b.as_chunks::<SUMS>().0) {
            for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
                *sum = multiply_add(*a, *b, *sum);
            }
        }
    }
    black_box(sums);
    (bodies * SUMS * 2) as f64
}

/// A fused multiply-add where that is one instruction; elsewhere it would be a function call.
#[inline(always)]
fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
        a.mul_add(b, c)
    } else {
        a * b + c
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_do_the_operations_that_they_claim() {
        assert_eq!(int8(LENGTH / SUMS), (LENGTH * 2) as f64);
        assert_eq!(f32(LENGTH / SUMS), (LENGTH * 2) as f64);
        assert_eq!(read(&[1, 2, 4]), 7);
    }
}

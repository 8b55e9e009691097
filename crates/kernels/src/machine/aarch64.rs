//! Peak loops for aarch64: enough independent sums to hide the latency of the multiply-add,
//! everything in registers.
//!
//! Plain code reads memory, because its loads are the widest that the processor has.

use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};
use std::hint::black_box;

use super::Kind;

/// Independent sums of a loop. A multiply-add takes four cycles, and up to four start per cycle;
/// there are enough registers for these sums and the operands.
const SUMS: usize = 24;

pub(super) fn int8() -> Option<Kind> {
    if is_aarch64_feature_detected!("dotprod") {
        Some(Kind {
            instruction: "sdot 16b",
            // SAFETY: the processor has the dot products.
            run: |bodies| unsafe { int8_dotprod(bodies) },
        })
    } else if is_aarch64_feature_detected!("neon") {
        Some(Kind {
            instruction: "smull 8h",
            // SAFETY: the processor has NEON.
            run: |bodies| unsafe { int8_neon(bodies) },
        })
    } else {
        None
    }
}

pub(super) fn f32() -> Option<Kind> {
    is_aarch64_feature_detected!("neon").then_some(Kind {
        instruction: "fmla 4s",
        // SAFETY: the processor has NEON.
        run: |bodies| unsafe { f32_neon(bodies) },
    })
}

/// Operations of `rounds` loop bodies, each of which is one multiply-add of `lanes` products per
/// sum.
fn operations(bodies: usize, lanes: usize) -> f64 {
    (bodies * SUMS * lanes * 2) as f64
}

#[target_feature(enable = "neon,dotprod")]
fn int8_dotprod(bodies: usize) -> f64 {
    let (a, b) = black_box((vdupq_n_s8(3), vdupq_n_s8(-5)));
    let mut sums = [vdupq_n_s32(0); SUMS];
    for _ in 0..bodies {
        for sum in &mut sums {
            // SAFETY: the function's feature has the instruction; it touches these registers only.
            unsafe {
                asm!(
                    "sdot {sum:v}.4s, {a:v}.16b, {b:v}.16b",
                    sum = inout(vreg) *sum,
                    a = in(vreg) a,
                    b = in(vreg) b,
                    options(pure, nomem, nostack, preserves_flags),
                );
            }
        }
    }
    black_box(sums);
    operations(bodies, 16)
}

/// Without dot products sixteen products take four instructions: two to multiply, the pairs in 16
/// bits, the sum.
#[target_feature(enable = "neon")]
fn int8_neon(bodies: usize) -> f64 {
    let (mut a, b) = black_box((vdupq_n_s8(3), vdupq_n_s8(-5)));
    let mut sums = [vdupq_n_s32(0); SUMS];
    for _ in 0..bodies {
        for sum in &mut sums {
            // The products do not depend on the sum: without this the compiler takes them out of
            // the loop. SAFETY: no instruction; the register is said to have changed.
            unsafe { asm!("/* {0:v} */", inout(vreg) a, options(pure, nomem, nostack, preserves_flags)) };
            let low = vmull_s8(vget_low_s8(a), vget_low_s8(b));
            *sum = vpadalq_s16(*sum, vpaddq_s16(low, vmull_high_s8(a, b)));
        }
    }
    black_box(sums);
    operations(bodies, 16)
}

#[target_feature(enable = "neon")]
fn f32_neon(bodies: usize) -> f64 {
    let (a, b) = black_box((vdupq_n_f32(1.5), vdupq_n_f32(0.75)));
    let mut sums = [vdupq_n_f32(0.0); SUMS];
    for _ in 0..bodies {
        for sum in &mut sums {
            *sum = vfmaq_f32(*sum, a, b);
        }
    }
    black_box(sums);
    operations(bodies, 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_loop_that_this_processor_has_runs() {
        for kind in [int8(), f32()].into_iter().flatten() {
            assert!((kind.run)(2) > 0.0, "{}", kind.instruction);
        }
    }
}

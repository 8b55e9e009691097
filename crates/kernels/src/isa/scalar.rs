//! The specification: sixteen lanes as an array.

use half::{bf16, f16};

use super::{Isa, Kernel, LANES};

/// Portable lanes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scalar;

impl Scalar {
    /// Runs a kernel. Where the processor has it, hardware FMA stands in for the library call: same results.
    #[cfg_attr(
        target_arch = "x86_64",
        expect(unsafe_code, reason = "enters a function with a target feature")
    )]
    pub(super) fn enter<K: Kernel>(self, kernel: K) -> K::Output {
        #[cfg(target_arch = "x86_64")]
        {
            #[target_feature(enable = "fma")]
            fn with_fma<K: Kernel>(kernel: K) -> K::Output {
                kernel.run(Scalar)
            }
            if is_x86_feature_detected!("fma") {
                // SAFETY: the feature was just detected.
                return unsafe { with_fma(kernel) };
            }
        }
        kernel.run(self)
    }
}

#[inline(always)]
fn each(f: impl Fn(usize) -> f32) -> [f32; LANES] {
    std::array::from_fn(f)
}

impl Isa for Scalar {
    type F = [f32; LANES];

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        [x; LANES]
    }
    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::F {
        *from
    }
    #[inline(always)]
    fn store(self, v: Self::F, to: &mut [f32; LANES]) {
        *to = v;
    }
    #[inline(always)]
    fn load_f16(self, from: &[u16; LANES]) -> Self::F {
        each(|i| f16::from_bits(from[i]).to_f32())
    }
    #[inline(always)]
    fn load_bf16(self, from: &[u16; LANES]) -> Self::F {
        each(|i| bf16::from_bits(from[i]).to_f32())
    }
    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> Self::F {
        each(|i| f32::from(from[i]))
    }
    #[inline(always)]
    fn load_u8(self, from: &[u8; LANES]) -> Self::F {
        each(|i| f32::from(from[i]))
    }
    #[inline(always)]
    fn load_nibbles(self, from: &[u8; LANES]) -> (Self::F, Self::F) {
        (
            each(|i| f32::from(from[i] & 15)),
            each(|i| f32::from(from[i] >> 4)),
        )
    }
    #[inline(always)]
    fn select(self, bits: u16, yes: f32) -> Self::F {
        each(|i| if bits >> i & 1 == 1 { yes } else { 0.0 })
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        each(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        each(|i| a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        each(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        each(|i| a[i] / b[i])
    }
    #[inline(always)]
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        each(|i| a[i].mul_add(b[i], c[i]))
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        each(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        each(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn exp2_int(self, n: Self::F) -> Self::F {
        each(|i| f32::from_bits(((n[i] as i32 + 127) as u32) << 23))
    }
}

//! Sixteen lanes in two 256-bit registers.
#![expect(
    unsafe_code,
    reason = "intrinsics; the token proves that the processor has them"
)]

use std::arch::x86_64::*;

use super::{Isa, Kernel, LANES};

/// Proof that the processor has AVX2, FMA and F16C.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// The token, if the processor has the instructions.
    pub(super) fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        has.then_some(Self(()))
    }

    /// Runs a kernel compiled for these instructions.
    pub(super) fn enter<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn compiled<K: Kernel>(isa: Avx2, kernel: K) -> K::Output {
            kernel.run(isa)
        }
        // SAFETY: `self` exists only where the features were detected.
        unsafe { compiled(self, kernel) }
    }
}

/// The low and the high eight lanes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair(__m256, __m256);

/// Wraps intrinsics whose features the token proves.
macro_rules! proven {
    ($e:expr) => {
        // SAFETY: `self` exists only where the features were detected; pointers come from references to arrays of
        // the size that the intrinsics touch, and the unaligned forms are used.
        unsafe { $e }
    };
}

/// Applies a lane-wise intrinsic to both halves.
macro_rules! halves {
    ($f:ident, $($v:ident),+) => {
        proven!(Pair($f($($v.0),+), $f($($v.1),+)))
    };
}

impl Isa for Avx2 {
    type F = Pair;

    #[inline(always)]
    fn splat(self, x: f32) -> Pair {
        proven!(Pair(_mm256_set1_ps(x), _mm256_set1_ps(x)))
    }
    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Pair {
        proven!(Pair(
            _mm256_loadu_ps(from.as_ptr()),
            _mm256_loadu_ps(from[8..].as_ptr())
        ))
    }
    #[inline(always)]
    fn store(self, v: Pair, to: &mut [f32; LANES]) {
        proven!({
            _mm256_storeu_ps(to.as_mut_ptr(), v.0);
            _mm256_storeu_ps(to[8..].as_mut_ptr(), v.1);
        })
    }
    #[inline(always)]
    fn load_f16(self, from: &[u16; LANES]) -> Pair {
        proven!(Pair(
            _mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().cast())),
            _mm256_cvtph_ps(_mm_loadu_si128(from[8..].as_ptr().cast())),
        ))
    }
    #[inline(always)]
    fn load_bf16(self, from: &[u16; LANES]) -> Pair {
        proven!({
            let low = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.as_ptr().cast()));
            let high = _mm256_cvtepu16_epi32(_mm_loadu_si128(from[8..].as_ptr().cast()));
            Pair(
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(low)),
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high)),
            )
        })
    }
    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> Pair {
        proven!(Pair(
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.as_ptr().cast()))),
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from[8..].as_ptr().cast()))),
        ))
    }
    #[inline(always)]
    fn load_u8(self, from: &[u8; LANES]) -> Pair {
        proven!(Pair(
            _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(from.as_ptr().cast()))),
            _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(from[8..].as_ptr().cast()))),
        ))
    }
    #[inline(always)]
    fn load_nibbles(self, from: &[u8; LANES]) -> (Pair, Pair) {
        proven!({
            let a = _mm256_cvtepu8_epi32(_mm_loadl_epi64(from.as_ptr().cast()));
            let b = _mm256_cvtepu8_epi32(_mm_loadl_epi64(from[8..].as_ptr().cast()));
            let mask = _mm256_set1_epi32(15);
            let low = Pair(
                _mm256_cvtepi32_ps(_mm256_and_si256(a, mask)),
                _mm256_cvtepi32_ps(_mm256_and_si256(b, mask)),
            );
            let high = Pair(
                _mm256_cvtepi32_ps(_mm256_srli_epi32::<4>(a)),
                _mm256_cvtepi32_ps(_mm256_srli_epi32::<4>(b)),
            );
            (low, high)
        })
    }
    #[inline(always)]
    fn select(self, bits: u16, yes: f32) -> Pair {
        proven!({
            let lane_bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
            let all = _mm256_set1_epi32(i32::from(bits));
            let low = _mm256_cmpeq_epi32(_mm256_and_si256(all, lane_bits), lane_bits);
            let shifted = _mm256_srli_epi32::<8>(all);
            let high = _mm256_cmpeq_epi32(_mm256_and_si256(shifted, lane_bits), lane_bits);
            let yes = _mm256_set1_ps(yes);
            Pair(
                _mm256_and_ps(_mm256_castsi256_ps(low), yes),
                _mm256_and_ps(_mm256_castsi256_ps(high), yes),
            )
        })
    }
    #[inline(always)]
    fn add(self, a: Pair, b: Pair) -> Pair {
        halves!(_mm256_add_ps, a, b)
    }
    #[inline(always)]
    fn sub(self, a: Pair, b: Pair) -> Pair {
        halves!(_mm256_sub_ps, a, b)
    }
    #[inline(always)]
    fn mul(self, a: Pair, b: Pair) -> Pair {
        halves!(_mm256_mul_ps, a, b)
    }
    #[inline(always)]
    fn div(self, a: Pair, b: Pair) -> Pair {
        halves!(_mm256_div_ps, a, b)
    }
    #[inline(always)]
    fn mul_add(self, a: Pair, b: Pair, c: Pair) -> Pair {
        halves!(_mm256_fmadd_ps, a, b, c)
    }
    #[inline(always)]
    fn max(self, a: Pair, b: Pair) -> Pair {
        halves!(_mm256_max_ps, a, b)
    }
    #[inline(always)]
    fn min(self, a: Pair, b: Pair) -> Pair {
        halves!(_mm256_min_ps, a, b)
    }
    #[inline(always)]
    fn exp2_int(self, n: Pair) -> Pair {
        proven!({
            let bias = _mm256_set1_epi32(127);
            let a = _mm256_add_epi32(_mm256_cvtps_epi32(n.0), bias);
            let b = _mm256_add_epi32(_mm256_cvtps_epi32(n.1), bias);
            Pair(
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(a)),
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(b)),
            )
        })
    }
}

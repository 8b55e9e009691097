//! Sixteen lanes in one 512-bit register.
#![expect(
    unsafe_code,
    reason = "intrinsics; the token proves that the processor has them"
)]

use std::arch::x86_64::*;

use super::{Isa, Kernel, LANES};

/// Proof that the processor has AVX-512 F, BW, VL and VNNI, AVX2, FMA and F16C, and with `BF16`
/// AVX-512's brain floats too. (Cascade Lake and Ice Lake have no BF16; Sapphire Rapids and Zen 4
/// have all.)
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512<const BF16: bool>(());

/// Whether the processor has what both forms need.
fn has_common() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni")
        && is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
}

impl Avx512<false> {
    /// The token, if the processor has the instructions.
    pub(super) fn detect() -> Option<Self> {
        has_common().then_some(Self(()))
    }

    /// Runs a kernel compiled for these instructions.
    pub(super) fn enter<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
        fn compiled<K: Kernel>(isa: Avx512<false>, kernel: K) -> K::Output {
            kernel.run(isa)
        }
        // SAFETY: `self` exists only where the features were detected.
        unsafe { compiled(self, kernel) }
    }
}

impl Avx512<true> {
    /// The token, if the processor has the instructions.
    pub(super) fn detect() -> Option<Self> {
        (has_common() && is_x86_feature_detected!("avx512bf16")).then_some(Self(()))
    }

    /// Runs a kernel compiled for these instructions.
    pub(super) fn enter<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
        fn compiled<K: Kernel>(isa: Avx512<true>, kernel: K) -> K::Output {
            kernel.run(isa)
        }
        // SAFETY: `self` exists only where the features were detected.
        unsafe { compiled(self, kernel) }
    }
}

/// Wraps intrinsics whose features the token proves.
macro_rules! proven {
    ($e:expr) => {
        // SAFETY: `self` exists only where the features were detected; pointers come from
        // references to arrays of the size that the intrinsic touches, and the unaligned forms are
        // used.
        unsafe { $e }
    };
}

/// [`Isa::dot_rows`] for a constant number of rows. The rows alternate within a vector of weights,
/// so that a product does not wait for the previous one.
///
/// Assembly, because the intrinsic separates the broadcast from the product. The compiler then
/// moves the broadcasts of a whole tile in front of the products, more than there are registers,
/// and spills them.
macro_rules! dot_rows {
    ($name:ident, $rows:literal: $($row:literal $sum:ident),+) => {
        #[inline]
        #[target_feature(enable = "avx512f,avx512vnni")]
        fn $name(sums: &mut [__m512i; $rows], w: [__m512i; 4], x: &[[i8; 2 * LANES]; $rows], half: usize) {
            assert!(half < 2, "a half is 0 or 1");
            // SAFETY: the function's features have the instruction; it reads sixteen of the 32
            // bytes of each row of `x` and nothing else.
            unsafe {
                std::arch::asm!(
                    $(concat!("vpdpbusd {", stringify!($sum), "}, {a}, dword ptr [{x} + 32 * ", $row, "]{{1to16}}"),)+
                    $(concat!("vpdpbusd {", stringify!($sum), "}, {b}, dword ptr [{x} + 32 * ", $row, " + 4]{{1to16}}"),)+
                    $(concat!("vpdpbusd {", stringify!($sum), "}, {c}, dword ptr [{x} + 32 * ", $row, " + 8]{{1to16}}"),)+
                    $(concat!("vpdpbusd {", stringify!($sum), "}, {d}, dword ptr [{x} + 32 * ", $row, " + 12]{{1to16}}"),)+
                    $($sum = inout(zmm_reg) sums[$row],)+
                    a = in(zmm_reg) w[0],
                    b = in(zmm_reg) w[1],
                    c = in(zmm_reg) w[2],
                    d = in(zmm_reg) w[3],
                    x = in(reg) x.as_ptr().cast::<u8>().add(LANES * half),
                    options(pure, readonly, nostack, preserves_flags),
                );
            }
        }
    };
}

dot_rows!(dot_one, 1: 0 s0);
dot_rows!(dot_two, 2: 0 s0, 1 s1);
dot_rows!(dot_four, 4: 0 s0, 1 s1, 2 s2, 3 s3);
dot_rows!(dot_eight, 8: 0 s0, 1 s1, 2 s2, 3 s3, 4 s4, 5 s5, 6 s6, 7 s7);

/// [`Isa::dot_one`], as assembly for the same reason.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn dot_four_bytes(mut sum: __m512i, w: __m512i, x: &[i8; 4]) -> __m512i {
    // SAFETY: the function's features have the instruction; it reads the four bytes of `x` and
    // nothing else.
    unsafe {
        std::arch::asm!(
            "vpdpbusd {sum}, {w}, dword ptr [{x}]{{1to16}}",
            sum = inout(zmm_reg) sum,
            w = in(zmm_reg) w,
            x = in(reg) x.as_ptr(),
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    sum
}

/// Replaces subnormals with zeros.
#[target_feature(enable = "avx512f")]
fn flush(v: __m512) -> __m512 {
    let magnitude = _mm512_and_si512(_mm512_castps_si512(v), _mm512_set1_epi32(0x7f80_0000));
    let normal = _mm512_test_epi32_mask(magnitude, magnitude);
    let sign = _mm512_and_si512(_mm512_castps_si512(v), _mm512_set1_epi32(i32::MIN));
    _mm512_mask_mov_ps(_mm512_castsi512_ps(sign), normal, v)
}

impl<const BF16: bool> Isa for Avx512<BF16> {
    type F = __m512;
    type I = __m512i;
    type B = __m512i;

    #[inline(always)]
    fn prefetch<T>(self, at: &T) {
        proven!(_mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(at).cast()))
    }
    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        proven!(_mm512_set1_ps(x))
    }
    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> __m512 {
        proven!(_mm512_loadu_ps(from.as_ptr()))
    }
    #[inline(always)]
    fn store(self, v: __m512, to: &mut [f32; LANES]) {
        proven!(_mm512_storeu_ps(to.as_mut_ptr(), v))
    }
    #[inline(always)]
    fn load_f16(self, from: &[u16; LANES]) -> __m512 {
        proven!(_mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast())))
    }
    #[inline(always)]
    fn load_bf16(self, from: &[u16; LANES]) -> __m512 {
        proven!({
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        })
    }
    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> __m512 {
        proven!(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(
            from.as_ptr().cast()
        ))))
    }
    #[inline(always)]
    fn load_u8(self, from: &[u8; LANES]) -> __m512 {
        proven!(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(
            from.as_ptr().cast()
        ))))
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        proven!(_mm512_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        proven!(_mm512_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        proven!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        proven!(_mm512_div_ps(a, b))
    }
    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        proven!(_mm512_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        proven!(_mm512_max_ps(a, b))
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        proven!(_mm512_min_ps(a, b))
    }
    #[inline(always)]
    fn exp2_int(self, n: __m512) -> __m512 {
        proven!({
            let biased = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased))
        })
    }
    #[inline(always)]
    fn load_bytes(self, from: &[u8; 4 * LANES]) -> __m512i {
        proven!(_mm512_loadu_si512(from.as_ptr().cast()))
    }
    #[inline(always)]
    fn store_bytes(self, v: __m512i, to: &mut [u8; 4 * LANES]) {
        proven!(_mm512_storeu_si512(to.as_mut_ptr().cast(), v))
    }
    #[inline(always)]
    fn and_bytes(self, a: __m512i, mask: u8) -> __m512i {
        proven!(_mm512_and_si512(a, _mm512_set1_epi8(mask.cast_signed())))
    }
    #[inline(always)]
    fn or_bytes(self, a: __m512i, b: __m512i) -> __m512i {
        proven!(_mm512_or_si512(a, b))
    }
    #[inline(always)]
    fn shift_up(self, a: __m512i, by: u32) -> __m512i {
        proven!(_mm512_sllv_epi32(a, _mm512_set1_epi32(by.cast_signed())))
    }
    #[inline(always)]
    fn shift_down(self, a: __m512i, by: u32) -> __m512i {
        proven!(_mm512_srlv_epi32(a, _mm512_set1_epi32(by.cast_signed())))
    }
    #[inline(always)]
    fn dot_rows<const T: usize, const WIDE: bool>(
        self,
        acc: [__m512i; T],
        w: [__m512i; 4],
        x: &[[i8; 2 * LANES]; T],
        half: usize,
    ) -> [__m512i; T] {
        let mut sums = acc;
        match (sums.as_mut_array::<8>(), x.as_array::<8>()) {
            (Some(sums), Some(x)) => proven!(dot_eight(sums, w, x, half)),
            _ => match (sums.as_mut_array::<4>(), x.as_array::<4>()) {
                (Some(sums), Some(x)) => proven!(dot_four(sums, w, x, half)),
                _ => match (sums.as_mut_array::<2>(), x.as_array::<2>()) {
                    (Some(sums), Some(x)) => proven!(dot_two(sums, w, x, half)),
                    _ => {
                        for (sum, x) in sums.iter_mut().zip(x) {
                            proven!(dot_one(
                                std::array::from_mut(sum),
                                w,
                                std::array::from_ref(x),
                                half
                            ));
                        }
                    }
                },
            },
        }
        sums
    }
    #[inline(always)]
    fn dot_one<const WIDE: bool>(self, acc: __m512i, w: __m512i, x: &[i8; 4]) -> __m512i {
        proven!(dot_four_bytes(acc, w, x))
    }
    #[inline(always)]
    fn bits(self, from: &[u8; 4 * LANES], by: u32, mask: u32) -> __m512i {
        let moved = self.shift_down(self.load_bytes(from), by);
        proven!(_mm512_and_si512(moved, _mm512_set1_epi32(mask.cast_signed())))
    }
    #[inline(always)]
    fn dot_bf16(self, acc: __m512, w: __m512i, x: [u16; 2]) -> __m512 {
        let both = i32::from(x[0]) | (i32::from(x[1]) << 16);
        if BF16 {
            // SAFETY: a token with `BF16` exists only where the feature was detected; the casts
            // keep the bits.
            unsafe {
                let x: __m512bh = std::mem::transmute(_mm512_set1_epi32(both));
                let w: __m512bh = std::mem::transmute(w);
                _mm512_dpbf16_ps(acc, w, x)
            }
        } else {
            proven!({
                let high = _mm512_set1_epi32(0xffff_0000_u32.cast_signed());
                let x = _mm512_set1_epi32(both);
                let odd = |v| _mm512_castsi512_ps(_mm512_and_si512(v, high));
                let even = |v| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(v));
                let sum = _mm512_fmadd_ps(flush(odd(w)), flush(odd(x)), flush(acc));
                flush(_mm512_fmadd_ps(flush(even(w)), flush(even(x)), flush(sum)))
            })
        }
    }
    #[inline(always)]
    fn splat_i32(self, x: i32) -> __m512i {
        proven!(_mm512_set1_epi32(x))
    }
    #[inline(always)]
    fn widen_i8(self, from: &[i8; LANES]) -> __m512i {
        proven!(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.as_ptr().cast())))
    }
    #[inline(always)]
    fn add_i32(self, a: __m512i, b: __m512i) -> __m512i {
        proven!(_mm512_add_epi32(a, b))
    }
    #[inline(always)]
    fn shift_up_i32(self, a: __m512i, by: u32) -> __m512i {
        self.shift_up(a, by)
    }
    #[inline(always)]
    fn to_floats(self, a: __m512i) -> __m512 {
        proven!(_mm512_cvtepi32_ps(a))
    }
    #[inline(always)]
    fn sum_i32(self, a: __m512i) -> i32 {
        proven!(_mm512_reduce_add_epi32(a))
    }
    #[inline(always)]
    fn largest_of_fours(self, a: __m512) -> [u32; 4] {
        proven!({
            let one = _mm512_and_si512(_mm512_castps_si512(a), _mm512_set1_epi32(i32::MAX));
            let two = _mm512_max_epi32(one, _mm512_shuffle_epi32::<0b10_11_00_01>(one));
            let four = _mm512_max_epi32(two, _mm512_shuffle_epi32::<0b01_00_11_10>(two));
            let firsts = _mm512_maskz_compress_epi32(0b0001_0001_0001_0001, four);
            let mut largest = [0u32; 4];
            _mm_storeu_si128(largest.as_mut_ptr().cast(), _mm512_castsi512_si128(firsts));
            largest
        })
    }
    #[inline(always)]
    fn sum(self, v: __m512) -> f32 {
        // The same tree, in registers.
        proven!({
            let high = _mm512_castpd_ps(_mm512_castpd256_pd512(_mm512_extractf64x4_pd::<1>(
                _mm512_castps_pd(v),
            )));
            let eight = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_castps512_ps256(high));
            super::avx2::sum_of_eight(eight)
        })
    }
    #[inline(always)]
    fn round_i8(self, v: __m512, to: &mut [i8; LANES]) {
        proven!(_mm_storeu_si128(
            to.as_mut_ptr().cast(),
            _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v))
        ))
    }
}

//! Sixteen lanes in two 256-bit registers.
#![expect(
    unsafe_code,
    reason = "intrinsics; the token proves that the processor has them"
)]

use std::arch::x86_64::*;

use super::{Isa, Kernel, LANES};

/// Proof that the processor has AVX2, FMA and F16C; with `VNNI`, AVX-VNNI too, whose `vpdpbusd`
/// multiplies bytes in one instruction where AVX2 takes three.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx2<const VNNI: bool>(());

impl<const VNNI: bool> Avx2<VNNI> {
    /// The token, if the processor has the instructions.
    pub(super) fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
            && (!VNNI || is_x86_feature_detected!("avxvnni"));
        has.then_some(Self(()))
    }
}

impl Avx2<false> {
    /// Runs a kernel compiled for these instructions.
    pub(super) fn enter<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn compiled<K: Kernel>(isa: Avx2<false>, kernel: K) -> K::Output {
            kernel.run(isa)
        }
        // SAFETY: `self` exists only where the features were detected.
        unsafe { compiled(self, kernel) }
    }
}

impl Avx2<true> {
    /// Runs a kernel compiled for these instructions.
    pub(super) fn enter<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
        fn compiled<K: Kernel>(isa: Avx2<true>, kernel: K) -> K::Output {
            kernel.run(isa)
        }
        // SAFETY: `self` exists only where the features were detected.
        unsafe { compiled(self, kernel) }
    }
}

/// The low and the high eight lanes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair(__m256, __m256);

/// As [`Pair`], of integers or bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ints(__m256i, __m256i);

/// Wraps intrinsics whose features the token proves.
macro_rules! proven {
    ($e:expr) => {
        // SAFETY: `self` exists only where the features were detected; pointers come from
        // references to arrays of the size that the intrinsics touch, and the unaligned forms are
        // used.
        unsafe { $e }
    };
}

/// Applies a lane-wise intrinsic to both halves.
macro_rules! halves {
    ($f:ident, $($v:ident),+) => {
        proven!(Pair($f($($v.0),+), $f($($v.1),+)))
    };
}

/// As `halves` for integers.
macro_rules! int_halves {
    ($f:ident, $($v:ident),+) => {
        proven!(Ints($f($($v.0),+), $f($($v.1),+)))
    };
}

/// `acc + w·x` over each lane's four bytes; the sum of two products must fit into 16 bits.
#[target_feature(enable = "avx2")]
fn dot_half(acc: __m256i, w: __m256i, x: __m256i) -> __m256i {
    let pairs = _mm256_maddubs_epi16(w, x);
    _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
}

/// `acc + Σ w[v]·x[4·v..][..4]`, by AVX-VNNI.
///
/// Assembly, because the compiler otherwise moves the broadcasts of all rows in front of the
/// products and spills them.
#[inline]
#[target_feature(enable = "avx2,avxvnni")]
fn dot_row_vnni(acc: Ints, w: [Ints; 4], x: &[i8; LANES]) -> Ints {
    let Ints(mut low, mut high) = acc;
    // SAFETY: the four broadcasts read the sixteen bytes of `x`; nothing is written to memory.
    unsafe {
        std::arch::asm!(
            "vpbroadcastd {t}, dword ptr [{x}]",
            "vpbroadcastd {u}, dword ptr [{x} + 4]",
            "{{vex}} vpdpbusd {low}, {a}, {t}",
            "{{vex}} vpdpbusd {high}, {b}, {t}",
            "{{vex}} vpdpbusd {low}, {c}, {u}",
            "{{vex}} vpdpbusd {high}, {d}, {u}",
            "vpbroadcastd {t}, dword ptr [{x} + 8]",
            "vpbroadcastd {u}, dword ptr [{x} + 12]",
            "{{vex}} vpdpbusd {low}, {e}, {t}",
            "{{vex}} vpdpbusd {high}, {f}, {t}",
            "{{vex}} vpdpbusd {low}, {g}, {u}",
            "{{vex}} vpdpbusd {high}, {h}, {u}",
            low = inout(ymm_reg) low,
            high = inout(ymm_reg) high,
            a = in(ymm_reg) w[0].0,
            b = in(ymm_reg) w[0].1,
            c = in(ymm_reg) w[1].0,
            d = in(ymm_reg) w[1].1,
            e = in(ymm_reg) w[2].0,
            f = in(ymm_reg) w[2].1,
            g = in(ymm_reg) w[3].0,
            h = in(ymm_reg) w[3].1,
            t = out(ymm_reg) _,
            u = out(ymm_reg) _,
            x = in(reg) x.as_ptr(),
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    Ints(low, high)
}

/// `acc + w·x` over each lane's two brain floats.
#[target_feature(enable = "avx2,fma")]
fn dot_bf16_half(acc: __m256, w: __m256i, x: __m256i) -> __m256 {
    let high = _mm256_set1_epi32(0xffff_0000_u32.cast_signed());
    let odd_w = flush(_mm256_castsi256_ps(_mm256_and_si256(w, high)));
    let odd_x = flush(_mm256_castsi256_ps(_mm256_and_si256(x, high)));
    let even_w = flush(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(w)));
    let even_x = flush(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(x)));
    let sum = flush(_mm256_fmadd_ps(odd_w, odd_x, flush(acc)));
    flush(_mm256_fmadd_ps(even_w, even_x, sum))
}

/// The sum of eight lanes: lane i + lane i+4, then +2, +1.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn sum_of_eight(v: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

/// The largest magnitude of each four neighbouring lanes, in all of the four.
#[inline]
#[target_feature(enable = "avx2")]
fn largest_of_fours_half(v: __m256) -> __m256i {
    let one = _mm256_and_si256(_mm256_castps_si256(v), _mm256_set1_epi32(i32::MAX));
    let two = _mm256_max_epi32(one, _mm256_shuffle_epi32::<0b10_11_00_01>(one));
    _mm256_max_epi32(two, _mm256_shuffle_epi32::<0b01_00_11_10>(two))
}

/// Replaces subnormals with zeros.
#[target_feature(enable = "avx2")]
fn flush(v: __m256) -> __m256 {
    let bits = _mm256_castps_si256(v);
    let exponent = _mm256_and_si256(bits, _mm256_set1_epi32(0x7f80_0000));
    let subnormal = _mm256_cmpeq_epi32(exponent, _mm256_setzero_si256());
    let magnitude = _mm256_and_si256(subnormal, _mm256_set1_epi32(i32::MAX));
    _mm256_castsi256_ps(_mm256_andnot_si256(magnitude, bits))
}

impl<const VNNI: bool> Isa for Avx2<VNNI> {
    type F = Pair;
    type I = Ints;
    type B = Ints;

    #[inline(always)]
    fn prefetch<T>(self, at: &T) {
        proven!(_mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(at).cast()))
    }
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
    #[inline(always)]
    fn load_bytes(self, from: &[u8; 4 * LANES]) -> Ints {
        proven!(Ints(
            _mm256_loadu_si256(from.as_ptr().cast()),
            _mm256_loadu_si256(from[32..].as_ptr().cast())
        ))
    }
    #[inline(always)]
    fn store_bytes(self, v: Ints, to: &mut [u8; 4 * LANES]) {
        proven!({
            _mm256_storeu_si256(to.as_mut_ptr().cast(), v.0);
            _mm256_storeu_si256(to[32..].as_mut_ptr().cast(), v.1);
        })
    }
    #[inline(always)]
    fn and_bytes(self, a: Ints, mask: u8) -> Ints {
        proven!({
            let mask = _mm256_set1_epi8(mask.cast_signed());
            Ints(_mm256_and_si256(a.0, mask), _mm256_and_si256(a.1, mask))
        })
    }
    #[inline(always)]
    fn or_bytes(self, a: Ints, b: Ints) -> Ints {
        int_halves!(_mm256_or_si256, a, b)
    }
    #[inline(always)]
    fn shift_up(self, a: Ints, by: u32) -> Ints {
        proven!({
            let by = _mm256_set1_epi32(by.cast_signed());
            Ints(_mm256_sllv_epi32(a.0, by), _mm256_sllv_epi32(a.1, by))
        })
    }
    #[inline(always)]
    fn shift_down(self, a: Ints, by: u32) -> Ints {
        proven!({
            let by = _mm256_set1_epi32(by.cast_signed());
            Ints(_mm256_srlv_epi32(a.0, by), _mm256_srlv_epi32(a.1, by))
        })
    }
    #[inline(always)]
    fn dot_rows<const T: usize, const WIDE: bool>(
        self,
        acc: [Ints; T],
        w: [Ints; 4],
        x: &[[i8; 2 * LANES]; T],
        half: usize,
    ) -> [Ints; T] {
        let mut sums = acc;
        for (sum, x) in sums.iter_mut().zip(x) {
            if VNNI {
                let x = &x.as_chunks::<LANES>().0[half];
                *sum = proven!(dot_row_vnni(*sum, w, x));
                continue;
            }
            for (w, x) in w.into_iter().zip(x[LANES * half..].as_chunks::<4>().0) {
                *sum = self.dot_one::<WIDE>(*sum, w, x);
            }
        }
        sums
    }
    #[inline(always)]
    fn dot_one<const WIDE: bool>(self, acc: Ints, w: Ints, x: &[i8; 4]) -> Ints {
        let x = proven!(_mm256_set1_epi32(bytemuck::cast(*x)));
        if VNNI {
            // Sums four products in 32 bits, which is exact for weights of eight bits too.
            proven!(Ints(
                _mm256_dpbusd_avx_epi32(acc.0, w.0, x),
                _mm256_dpbusd_avx_epi32(acc.1, w.1, x)
            ))
        } else if WIDE {
            // The sum of two products with eight-bit weights overflows 16 bits, so the weights' top
            // bits are multiplied separately.
            let (low, top) = (self.and_bytes(w, 0x7f), self.and_bytes(w, 0x80));
            let acc = proven!(Ints(dot_half(acc.0, low.0, x), dot_half(acc.1, low.1, x)));
            proven!(Ints(dot_half(acc.0, top.0, x), dot_half(acc.1, top.1, x)))
        } else {
            proven!(Ints(dot_half(acc.0, w.0, x), dot_half(acc.1, w.1, x)))
        }
    }
    #[inline(always)]
    fn bits(self, from: &[u8; 4 * LANES], by: u32, mask: u32) -> Ints {
        let moved = self.shift_down(self.load_bytes(from), by);
        proven!({
            let mask = _mm256_set1_epi32(mask.cast_signed());
            Ints(_mm256_and_si256(moved.0, mask), _mm256_and_si256(moved.1, mask))
        })
    }
    #[inline(always)]
    fn dot_bf16(self, acc: Pair, w: Ints, x: [u16; 2]) -> Pair {
        proven!({
            let x = _mm256_set1_epi32(i32::from(x[0]) | (i32::from(x[1]) << 16));
            Pair(dot_bf16_half(acc.0, w.0, x), dot_bf16_half(acc.1, w.1, x))
        })
    }
    #[inline(always)]
    fn splat_i32(self, x: i32) -> Ints {
        proven!(Ints(_mm256_set1_epi32(x), _mm256_set1_epi32(x)))
    }
    #[inline(always)]
    fn widen_i8(self, from: &[i8; LANES]) -> Ints {
        proven!(Ints(
            _mm256_cvtepi8_epi32(_mm_loadl_epi64(from.as_ptr().cast())),
            _mm256_cvtepi8_epi32(_mm_loadl_epi64(from[8..].as_ptr().cast())),
        ))
    }
    #[inline(always)]
    fn add_i32(self, a: Ints, b: Ints) -> Ints {
        int_halves!(_mm256_add_epi32, a, b)
    }
    #[inline(always)]
    fn shift_up_i32(self, a: Ints, by: u32) -> Ints {
        self.shift_up(a, by)
    }
    #[inline(always)]
    fn to_floats(self, a: Ints) -> Pair {
        proven!(Pair(_mm256_cvtepi32_ps(a.0), _mm256_cvtepi32_ps(a.1)))
    }
    #[inline(always)]
    fn sum_i32(self, a: Ints) -> i32 {
        proven!({
            let eight = _mm256_add_epi32(a.0, a.1);
            let four = _mm_add_epi32(
                _mm256_castsi256_si128(eight),
                _mm256_extracti128_si256::<1>(eight),
            );
            let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
            _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two)))
        })
    }
    #[inline(always)]
    fn largest_of_fours(self, a: Pair) -> [u32; 4] {
        proven!({
            let low = largest_of_fours_half(a.0);
            let high = largest_of_fours_half(a.1);
            [
                _mm256_extract_epi32::<0>(low).cast_unsigned(),
                _mm256_extract_epi32::<4>(low).cast_unsigned(),
                _mm256_extract_epi32::<0>(high).cast_unsigned(),
                _mm256_extract_epi32::<4>(high).cast_unsigned(),
            ]
        })
    }
    #[inline(always)]
    fn sum(self, v: Pair) -> f32 {
        // The same tree, in registers.
        proven!(sum_of_eight(_mm256_add_ps(v.0, v.1)))
    }
    #[inline(always)]
    fn round_i8(self, v: Pair, to: &mut [i8; LANES]) {
        proven!({
            let words = _mm256_packs_epi32(_mm256_cvtps_epi32(v.0), _mm256_cvtps_epi32(v.1));
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
            let bytes = _mm_packs_epi16(
                _mm256_castsi256_si128(words),
                _mm256_extracti128_si256::<1>(words),
            );
            _mm_storeu_si128(to.as_mut_ptr().cast(), bytes);
        })
    }
}

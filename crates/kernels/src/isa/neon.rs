//! Sixteen lanes in four 128-bit registers.
#![expect(
    unsafe_code,
    reason = "intrinsics; the token proves that the processor has them"
)]

use std::arch::aarch64::*;
use std::arch::is_aarch64_feature_detected;

use super::{Isa, Kernel, LANES};

/// Proof that the processor has NEON, and with `DOTPROD` the dot products of signed bytes, with
/// `I8MM` those of unsigned with signed bytes too. (Cortex-A72 has neither, Neoverse N1 and Apple
/// M1 have the first, Neoverse V1, N2 and Apple M2 have both.)
#[derive(Clone, Copy, Debug)]
pub(crate) struct Neon<const DOTPROD: bool, const I8MM: bool>(());

impl<const DOTPROD: bool, const I8MM: bool> Neon<DOTPROD, I8MM> {
    /// The token, if the processor has the instructions.
    pub(super) fn detect() -> Option<Self> {
        let has = is_aarch64_feature_detected!("neon")
            && (!DOTPROD || is_aarch64_feature_detected!("dotprod"))
            && (!I8MM || is_aarch64_feature_detected!("i8mm"));
        has.then_some(Self(()))
    }

    /// Runs a kernel compiled for these instructions.
    pub(super) fn enter<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "neon")]
        fn alone<K: Kernel>(isa: Neon<false, false>, kernel: K) -> K::Output {
            kernel.run(isa)
        }
        #[target_feature(enable = "neon,dotprod")]
        fn with_dotprod<K: Kernel>(isa: Neon<true, false>, kernel: K) -> K::Output {
            kernel.run(isa)
        }
        #[target_feature(enable = "neon,dotprod,i8mm")]
        fn with_both<K: Kernel>(isa: Neon<true, true>, kernel: K) -> K::Output {
            kernel.run(isa)
        }
        match (DOTPROD, I8MM) {
            // SAFETY: `self` exists only where the features were detected.
            (true, true) => unsafe { with_both(Neon(()), kernel) },
            // SAFETY: as above.
            (true, false) => unsafe { with_dotprod(Neon(()), kernel) },
            // SAFETY: as above.
            (false, _) => unsafe { alone(Neon(()), kernel) },
        }
    }
}

/// Four registers of four floats.
type Floats = [float32x4_t; 4];
/// Four registers of four integers.
type Ints = [int32x4_t; 4];
/// Four registers of sixteen bytes.
type Bytes = [uint8x16_t; 4];

/// An array of four, with `$q` a constant in each element: intrinsics take lanes as constants, and
/// an array that is built in a loop may be in memory.
macro_rules! four {
    ($q:ident => $element:expr) => {
        [
            {
                const $q: usize = 0;
                $element
            },
            {
                const $q: usize = 1;
                $element
            },
            {
                const $q: usize = 2;
                $element
            },
            {
                const $q: usize = 3;
                $element
            },
        ]
    };
}

/// Wraps intrinsics whose features the token proves.
macro_rules! proven {
    ($e:expr) => {
        // SAFETY: `self` exists only where the features were detected; pointers come from
        // references to arrays of the size that the intrinsics touch, and none of them needs
        // alignment.
        unsafe { $e }
    };
}

/// Sixteen 16-bit numbers.
#[inline]
#[target_feature(enable = "neon")]
fn load_u16(from: &[u16; LANES]) -> [uint16x8_t; 2] {
    // SAFETY: both loads are of eight numbers of the sixteen; they need no alignment.
    unsafe { [vld1q_u16(from.as_ptr()), vld1q_u16(from[8..].as_ptr())] }
}

/// Sixteen signed bytes.
#[inline]
#[target_feature(enable = "neon")]
fn load_s8(from: &[i8; LANES]) -> int8x16_t {
    // SAFETY: sixteen bytes; the load needs no alignment.
    unsafe { vld1q_s8(from.as_ptr()) }
}

/// Replaces subnormals with zeros.
#[inline]
#[target_feature(enable = "neon")]
fn flush(v: float32x4_t) -> float32x4_t {
    let bits = vreinterpretq_u32_f32(v);
    let normal = vtstq_u32(bits, vdupq_n_u32(0x7f80_0000));
    let kept = vorrq_u32(normal, vdupq_n_u32(0x8000_0000));
    vreinterpretq_f32_u32(vandq_u32(bits, kept))
}

/// The low brain float of each lane.
#[inline]
#[target_feature(enable = "neon")]
fn even(w: uint8x16_t) -> float32x4_t {
    flush(vreinterpretq_f32_u32(vshlq_n_u32::<16>(vreinterpretq_u32_u8(w))))
}

/// The high brain float of each lane.
#[inline]
#[target_feature(enable = "neon")]
fn odd(w: uint8x16_t) -> float32x4_t {
    let high = vandq_u32(vreinterpretq_u32_u8(w), vdupq_n_u32(0xffff_0000));
    flush(vreinterpretq_f32_u32(high))
}

/// `sum + Σ_j w[4·lane + j] · x[4·V + j]`; the sum of two products must fit into 16 bits.
#[inline]
#[target_feature(enable = "neon")]
fn dot_pairs<const V: i32>(sum: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    let x = vreinterpretq_s8_s32(vdupq_laneq_s32::<V>(vreinterpretq_s32_s8(x)));
    let low = vmull_s8(vget_low_s8(w), vget_low_s8(x));
    let pairs = vpaddq_s16(low, vmull_high_s8(w, x));
    vpadalq_s16(sum, pairs)
}

// The compiler's intrinsics for the two instructions below are unstable: rust-lang/rust 117224 and
// 117223.

/// `sum + Σ_j w[4·lane + j] · x[4·V + j]`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot<const V: i32>(mut sum: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: the function's feature has the instruction; it touches these registers only.
    unsafe {
        std::arch::asm!(
            "sdot {sum:v}.4s, {w:v}.16b, {x:v}.4b[{lane}]",
            sum = inout(vreg) sum,
            w = in(vreg) w,
            x = in(vreg) x,
            lane = const V,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

/// As [`sdot`] for unsigned `w`.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn usdot<const V: i32>(mut sum: int32x4_t, w: uint8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: the function's feature has the instruction; it touches these registers only.
    unsafe {
        std::arch::asm!(
            "usdot {sum:v}.4s, {w:v}.16b, {x:v}.4b[{lane}]",
            sum = inout(vreg) sum,
            w = in(vreg) w,
            x = in(vreg) x,
            lane = const V,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

impl<const DOTPROD: bool, const I8MM: bool> Neon<DOTPROD, I8MM> {
    /// Whether unsigned weights must be converted to signed, because no instruction multiplies
    /// them.
    const SHIFTS_WIDE: bool = !I8MM;

    /// `acc + Σ_j w[4·lane + j] · x[4·V + j]`. The weights are signed bytes within ±127 (-128 if no
    /// `x` is), or unsigned bytes if `WIDE` and there is an instruction for them.
    #[inline(always)]
    fn dot_quads<const V: i32, const WIDE: bool>(self, acc: Ints, w: Bytes, x: int8x16_t) -> Ints {
        if WIDE && !Self::SHIFTS_WIDE {
            // SAFETY: a token with `I8MM` exists only where the feature was detected.
            four!(Q => unsafe { usdot::<V>(acc[Q], w[Q], x) })
        } else if DOTPROD {
            // SAFETY: a token with `DOTPROD` exists only where the feature was detected.
            four!(Q => unsafe { sdot::<V>(acc[Q], vreinterpretq_s8_u8(w[Q]), x) })
        } else {
            proven!(four!(Q => dot_pairs::<V>(acc[Q], vreinterpretq_s8_u8(w[Q]), x)))
        }
    }

    /// [`Isa::dot_rows`] for `R` rows, one or two, which fit into registers beside the weights:
    /// sixteen registers of weights, `4·R` of sums and `R` of activations leave some of the 32 for
    /// temporary values. The rows alternate, so that a product does not wait for the previous one.
    #[inline(always)]
    fn dot_few<const R: usize, const WIDE: bool>(
        self,
        sums: &mut [Ints; R],
        w: [Bytes; 4],
        x: &[[i8; 2 * LANES]; R],
        half: usize,
    ) {
        let mut loaded = proven!([vdupq_n_s8(0); R]);
        for r in 0..R {
            loaded[r] = proven!(load_s8(&x[r].as_chunks().0[half]));
        }
        if WIDE && Self::SHIFTS_WIDE {
            // Σ w·x = Σ (w - 128)·x + 128·Σ x, the last the same in all lanes.
            for r in 0..R {
                let total = proven!(vshll_n_s16::<7>(vdup_n_s16(vaddlvq_s8(loaded[r]))));
                sums[r] = self.add_i32(sums[r], [total; 4]);
            }
        }
        for r in 0..R {
            sums[r] = self.dot_quads::<0, WIDE>(sums[r], w[0], loaded[r]);
        }
        for r in 0..R {
            sums[r] = self.dot_quads::<1, WIDE>(sums[r], w[1], loaded[r]);
        }
        for r in 0..R {
            sums[r] = self.dot_quads::<2, WIDE>(sums[r], w[2], loaded[r]);
        }
        for r in 0..R {
            sums[r] = self.dot_quads::<3, WIDE>(sums[r], w[3], loaded[r]);
        }
    }
}

impl<const DOTPROD: bool, const I8MM: bool> Isa for Neon<DOTPROD, I8MM> {
    type F = Floats;
    type I = Ints;
    type B = Bytes;

    #[inline(always)]
    fn prefetch<T>(self, at: &T) {
        // Assembly, because the compiler's intrinsic for the instruction is unstable:
        // rust-lang/rust 117217. SAFETY: it prefetches a line and changes neither memory nor
        // registers; no address makes it fail.
        unsafe {
            std::arch::asm!(
                "prfm pldl1keep, [{at}]",
                at = in(reg) std::ptr::from_ref(at),
                options(nomem, nostack, preserves_flags),
            );
        }
    }
    #[inline(always)]
    fn splat(self, x: f32) -> Floats {
        proven!([vdupq_n_f32(x); 4])
    }
    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Floats {
        proven!(four!(Q => vld1q_f32(from[4 * Q..].as_ptr())))
    }
    #[inline(always)]
    fn store(self, v: Floats, to: &mut [f32; LANES]) {
        proven!(four!(Q => vst1q_f32(to[4 * Q..].as_mut_ptr(), v[Q])));
    }
    #[inline(always)]
    fn load_f16(self, from: &[u16; LANES]) -> Floats {
        proven!({
            let [low, high] = load_u16(from);
            let (low, high) = (vreinterpretq_f16_u16(low), vreinterpretq_f16_u16(high));
            [
                vcvt_f32_f16(vget_low_f16(low)),
                vcvt_high_f32_f16(low),
                vcvt_f32_f16(vget_low_f16(high)),
                vcvt_high_f32_f16(high),
            ]
        })
    }
    #[inline(always)]
    fn load_bf16(self, from: &[u16; LANES]) -> Floats {
        proven!({
            let [low, high] = load_u16(from);
            [
                vreinterpretq_f32_u32(vshll_n_u16::<16>(vget_low_u16(low))),
                vreinterpretq_f32_u32(vshll_high_n_u16::<16>(low)),
                vreinterpretq_f32_u32(vshll_n_u16::<16>(vget_low_u16(high))),
                vreinterpretq_f32_u32(vshll_high_n_u16::<16>(high)),
            ]
        })
    }
    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> Floats {
        self.to_floats(self.widen_i8(from))
    }
    #[inline(always)]
    fn load_u8(self, from: &[u8; LANES]) -> Floats {
        proven!({
            let bytes = vld1q_u8(from.as_ptr());
            let (low, high) = (vmovl_u8(vget_low_u8(bytes)), vmovl_high_u8(bytes));
            [
                vcvtq_f32_u32(vmovl_u16(vget_low_u16(low))),
                vcvtq_f32_u32(vmovl_high_u16(low)),
                vcvtq_f32_u32(vmovl_u16(vget_low_u16(high))),
                vcvtq_f32_u32(vmovl_high_u16(high)),
            ]
        })
    }
    #[inline(always)]
    fn add(self, a: Floats, b: Floats) -> Floats {
        proven!(four!(Q => vaddq_f32(a[Q], b[Q])))
    }
    #[inline(always)]
    fn sub(self, a: Floats, b: Floats) -> Floats {
        proven!(four!(Q => vsubq_f32(a[Q], b[Q])))
    }
    #[inline(always)]
    fn mul(self, a: Floats, b: Floats) -> Floats {
        proven!(four!(Q => vmulq_f32(a[Q], b[Q])))
    }
    #[inline(always)]
    fn div(self, a: Floats, b: Floats) -> Floats {
        proven!(four!(Q => vdivq_f32(a[Q], b[Q])))
    }
    #[inline(always)]
    fn mul_add(self, a: Floats, b: Floats, c: Floats) -> Floats {
        proven!(four!(Q => vfmaq_f32(c[Q], a[Q], b[Q])))
    }
    // The instructions for maxima and minima give NaN where either is, and order the zeros.
    #[inline(always)]
    fn max(self, a: Floats, b: Floats) -> Floats {
        proven!(four!(Q => vbslq_f32(vcgtq_f32(a[Q], b[Q]), a[Q], b[Q])))
    }
    #[inline(always)]
    fn min(self, a: Floats, b: Floats) -> Floats {
        proven!(four!(Q => vbslq_f32(vcltq_f32(a[Q], b[Q]), a[Q], b[Q])))
    }
    #[inline(always)]
    fn exp2_int(self, n: Floats) -> Floats {
        proven!({
            four!(Q => {
                let biased = vaddq_s32(vcvtq_s32_f32(n[Q]), vdupq_n_s32(127));
                vreinterpretq_f32_s32(vshlq_n_s32::<23>(biased))
            })
        })
    }
    #[inline(always)]
    fn load_bytes(self, from: &[u8; 4 * LANES]) -> Bytes {
        proven!(four!(Q => vld1q_u8(from[16 * Q..].as_ptr())))
    }
    #[inline(always)]
    fn store_bytes(self, v: Bytes, to: &mut [u8; 4 * LANES]) {
        proven!({
            for (to, v) in to.as_chunks_mut::<16>().0.iter_mut().zip(v) {
                vst1q_u8(to.as_mut_ptr(), v);
            }
        })
    }
    #[inline(always)]
    fn and_bytes(self, a: Bytes, mask: u8) -> Bytes {
        proven!(four!(Q => vandq_u8(a[Q], vdupq_n_u8(mask))))
    }
    #[inline(always)]
    fn or_bytes(self, a: Bytes, b: Bytes) -> Bytes {
        proven!(four!(Q => vorrq_u8(a[Q], b[Q])))
    }
    #[inline(always)]
    fn shift_up(self, a: Bytes, by: u32) -> Bytes {
        proven!({
            let by = vdupq_n_s32(by.cast_signed());
            four!(Q => vreinterpretq_u8_u32(vshlq_u32(vreinterpretq_u32_u8(a[Q]), by)))
        })
    }
    #[inline(always)]
    fn shift_down(self, a: Bytes, by: u32) -> Bytes {
        proven!({
            // There is one instruction for both directions.
            let by = vdupq_n_s32(-by.cast_signed());
            four!(Q => vreinterpretq_u8_u32(vshlq_u32(vreinterpretq_u32_u8(a[Q]), by)))
        })
    }
    #[inline(always)]
    fn dot_rows<const T: usize, const WIDE: bool>(
        self,
        acc: [Ints; T],
        w: [Bytes; 4],
        x: &[[i8; 2 * LANES]; T],
        half: usize,
    ) -> [Ints; T] {
        let w = if WIDE && Self::SHIFTS_WIDE {
            proven!(four!(V => four!(Q => veorq_u8(w[V][Q], vdupq_n_u8(0x80)))))
        } else {
            w
        };
        let mut sums = acc;
        let ((sums_of_two, sums_of_one), (two, one)) = (sums.as_chunks_mut::<2>(), x.as_chunks::<2>());
        for (sums, x) in sums_of_two.iter_mut().zip(two) {
            self.dot_few::<2, WIDE>(sums, w, x, half);
        }
        for (sum, x) in sums_of_one.iter_mut().zip(one) {
            self.dot_few::<1, WIDE>(std::array::from_mut(sum), w, std::array::from_ref(x), half);
        }
        sums
    }
    #[inline(always)]
    fn dot_one<const WIDE: bool>(self, acc: Ints, w: Bytes, x: &[i8; 4]) -> Ints {
        let loaded = proven!(vreinterpretq_s8_s32(vdupq_n_s32(bytemuck::cast(*x))));
        if !(WIDE && Self::SHIFTS_WIDE) {
            return self.dot_quads::<0, WIDE>(acc, w, loaded);
        }
        // As in `dot_few`.
        let total: i32 = x.iter().map(|x| i32::from(*x)).sum();
        let w = proven!(four!(Q => veorq_u8(w[Q], vdupq_n_u8(0x80))));
        self.dot_quads::<0, WIDE>(self.add_i32(acc, self.splat_i32(128 * total)), w, loaded)
    }
    #[inline(always)]
    fn bits(self, from: &[u8; 4 * LANES], by: u32, mask: u32) -> Ints {
        let moved = self.shift_down(self.load_bytes(from), by);
        proven!({
            let mask = vdupq_n_u32(mask);
            four!(Q => vreinterpretq_s32_u32(vandq_u32(vreinterpretq_u32_u8(moved[Q]), mask)))
        })
    }
    #[inline(always)]
    fn dot_bf16(self, acc: Floats, w: Bytes, x: [u16; 2]) -> Floats {
        proven!({
            let x = vdup_n_u32(u32::from(x[0]) | u32::from(x[1]) << 16);
            let x = vshll_n_u16::<16>(vreinterpret_u16_u32(x));
            let x = flush(vreinterpretq_f32_u32(x));
            four!(Q => {
                let sum = flush(vfmaq_laneq_f32::<1>(flush(acc[Q]), odd(w[Q]), x));
                flush(vfmaq_laneq_f32::<0>(sum, even(w[Q]), x))
            })
        })
    }
    #[inline(always)]
    fn splat_i32(self, x: i32) -> Ints {
        proven!([vdupq_n_s32(x); 4])
    }
    #[inline(always)]
    fn widen_i8(self, from: &[i8; LANES]) -> Ints {
        proven!({
            let bytes = load_s8(from);
            let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes));
            [
                vmovl_s16(vget_low_s16(low)),
                vmovl_high_s16(low),
                vmovl_s16(vget_low_s16(high)),
                vmovl_high_s16(high),
            ]
        })
    }
    #[inline(always)]
    fn add_i32(self, a: Ints, b: Ints) -> Ints {
        proven!(four!(Q => vaddq_s32(a[Q], b[Q])))
    }
    #[inline(always)]
    fn shift_up_i32(self, a: Ints, by: u32) -> Ints {
        proven!({
            let by = vdupq_n_s32(by.cast_signed());
            four!(Q => vshlq_s32(a[Q], by))
        })
    }
    #[inline(always)]
    fn to_floats(self, a: Ints) -> Floats {
        proven!(four!(Q => vcvtq_f32_s32(a[Q])))
    }
    #[inline(always)]
    fn sum_i32(self, a: Ints) -> i32 {
        proven!({
            let (low, high) = (vaddq_s32(a[0], a[1]), vaddq_s32(a[2], a[3]));
            vaddvq_s32(vaddq_s32(low, high))
        })
    }
    #[inline(always)]
    fn largest_of_fours(self, a: Floats) -> [u32; 4] {
        proven!(four!(Q => vmaxvq_u32(vreinterpretq_u32_f32(vabsq_f32(a[Q])))))
    }
    #[inline(always)]
    fn round_i8(self, v: Floats, to: &mut [i8; LANES]) {
        proven!({
            let ints = four!(Q => vcvtnq_s32_f32(v[Q]));
            let low = vqmovn_high_s32(vqmovn_s32(ints[0]), ints[1]);
            let high = vqmovn_high_s32(vqmovn_s32(ints[2]), ints[3]);
            let bytes = vqmovn_high_s16(vqmovn_s16(low), high);
            vst1q_s8(to.as_mut_ptr(), bytes);
        })
    }
    #[inline(always)]
    fn sum(self, v: Floats) -> f32 {
        proven!({
            let eight = [vaddq_f32(v[0], v[2]), vaddq_f32(v[1], v[3])];
            let four = vaddq_f32(eight[0], eight[1]);
            vpadds_f32(vadd_f32(vget_low_f32(four), vget_high_f32(four)))
        })
    }
}

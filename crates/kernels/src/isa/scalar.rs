//! The specification: sixteen lanes as an array.

use half::{bf16, f16};

use super::{Isa, Kernel, LANES};

/// Portable lanes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scalar;

impl Scalar {
    /// Runs a kernel. If the processor has FMA, it replaces the library call, with the same
    /// results.
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

/// Bytes of lane `lane`.
#[inline(always)]
fn four(bytes: &[u8; 4 * LANES], lane: usize) -> [u8; 4] {
    std::array::from_fn(|j| bytes[4 * lane + j])
}

/// Replaces subnormals with zeros of the same sign.
#[inline(always)]
fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0f32.copysign(x) } else { x }
}

impl Isa for Scalar {
    type F = [f32; LANES];
    type I = [i32; LANES];
    type B = [u32; LANES];

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
    #[inline(always)]
    fn load_bytes(self, from: &[u8; 4 * LANES]) -> Self::B {
        std::array::from_fn(|i| u32::from_le_bytes(four(from, i)))
    }
    #[inline(always)]
    fn store_bytes(self, v: Self::B, to: &mut [u8; 4 * LANES]) {
        for (to, v) in to.as_chunks_mut::<4>().0.iter_mut().zip(v) {
            *to = v.to_le_bytes();
        }
    }
    #[inline(always)]
    fn and_bytes(self, a: Self::B, mask: u8) -> Self::B {
        a.map(|a| a & u32::from_le_bytes([mask; 4]))
    }
    #[inline(always)]
    fn or_bytes(self, a: Self::B, b: Self::B) -> Self::B {
        std::array::from_fn(|i| a[i] | b[i])
    }
    #[inline(always)]
    fn shift_up(self, a: Self::B, by: u32) -> Self::B {
        a.map(|a| a << by)
    }
    #[inline(always)]
    fn shift_down(self, a: Self::B, by: u32) -> Self::B {
        a.map(|a| a >> by)
    }
    #[inline(always)]
    fn dot_rows<const T: usize, const WIDE: bool>(
        self,
        acc: [Self::I; T],
        w: [Self::B; 4],
        x: &[[i8; 2 * LANES]; T],
        half: usize,
    ) -> [Self::I; T] {
        let mut sums = acc;
        for (sum, x) in sums.iter_mut().zip(x) {
            for (w, x) in w.into_iter().zip(x[LANES * half..].as_chunks::<4>().0) {
                *sum = self.dot_one::<WIDE>(*sum, w, x);
            }
        }
        sums
    }
    #[inline(always)]
    fn dot_one<const WIDE: bool>(self, acc: Self::I, w: Self::B, x: &[i8; 4]) -> Self::I {
        let mut sums = acc;
        for (sum, w) in sums.iter_mut().zip(w) {
            for (w, x) in w.to_le_bytes().iter().zip(x) {
                *sum += i32::from(*w) * i32::from(*x);
            }
        }
        sums
    }
    #[inline(always)]
    fn bits(self, from: &[u8; 4 * LANES], by: u32, mask: u32) -> Self::I {
        self.load_bytes(from)
            .map(|lane| (lane >> by & mask).cast_signed())
    }
    #[inline(always)]
    fn dot_bf16(self, acc: Self::F, w: Self::B, x: [u16; 2]) -> Self::F {
        each(|i| {
            let odd = flush(f32::from_bits(w[i] & 0xffff_0000));
            let even = flush(f32::from_bits(w[i] << 16));
            let [x_even, x_odd] = x.map(|x| flush(bf16::from_bits(x).to_f32()));
            let sum = flush(odd.mul_add(x_odd, flush(acc[i])));
            flush(even.mul_add(x_even, sum))
        })
    }
    #[inline(always)]
    fn splat_i32(self, x: i32) -> Self::I {
        [x; LANES]
    }
    #[inline(always)]
    fn widen_i8(self, from: &[i8; LANES]) -> Self::I {
        from.map(i32::from)
    }
    #[inline(always)]
    fn add_i32(self, a: Self::I, b: Self::I) -> Self::I {
        std::array::from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn shift_up_i32(self, a: Self::I, by: u32) -> Self::I {
        a.map(|a| a << by)
    }
    #[inline(always)]
    fn to_floats(self, a: Self::I) -> Self::F {
        a.map(|a| a as f32)
    }
    #[inline(always)]
    fn sum_i32(self, a: Self::I) -> i32 {
        a.iter().sum()
    }
    #[inline(always)]
    fn largest_of_fours(self, a: Self::F) -> [u32; 4] {
        let largest = |four: &[f32; 4]| four.iter().map(|x| x.abs().to_bits()).fold(0, u32::max);
        std::array::from_fn(|i| largest(&a.as_chunks::<4>().0[i]))
    }
    #[inline(always)]
    fn round_i8(self, v: Self::F, to: &mut [i8; LANES]) {
        *to = v.map(|v| v.round_ties_even() as i8);
    }
}

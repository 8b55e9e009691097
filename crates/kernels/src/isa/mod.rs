//! Instruction sets: sixteen float lanes, one trait, one implementation per instruction set.
//!
//! Every kernel is written once, generic over [`Isa`]. Lanes never mix except in reductions, whose
//! tree is fixed. All operations are IEEE operations in single precision with fused multiply-add.
//! Therefore a kernel's result is **the same to the bit on every instruction set**, and [`Scalar`]
//! is the specification that the others are tested against by equality.
//!
//! An implementation is a token that exists only on a processor that has the instructions, which is
//! why its methods are safe to call.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(test)]
mod exactness;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;

use std::sync::OnceLock;

pub(crate) use scalar::Scalar;

/// Lanes of every vector.
pub(crate) const LANES: usize = 16;

/// Sixteen float lanes and what kernels do with them.
///
/// Methods are `inline(always)`, because they must end up inside a function that is compiled for
/// the instruction set, which [`dispatch`] calls. The same holds for everything that kernels call.
/// Kernels therefore take traits with `inline(always)` methods where closures would read better: a
/// closure that is not inlined is compiled without the instruction set, and is many times slower.
pub(crate) trait Isa: Copy + Send + Sync {
    /// Sixteen floats.
    type F: Copy;
    /// Sixteen 32-bit integers.
    type I: Copy;
    /// Sixteen times four bytes.
    type B: Copy;

    /// Prefetches the cache line of `at`. It has no effect on results.
    #[inline(always)]
    fn prefetch<T>(self, at: &T) {
        let _ = at;
    }
    fn splat(self, x: f32) -> Self::F;
    fn load(self, from: &[f32; LANES]) -> Self::F;
    fn store(self, v: Self::F, to: &mut [f32; LANES]);
    /// Widens IEEE half floats.
    fn load_f16(self, from: &[u16; LANES]) -> Self::F;
    /// Widens brain floats.
    fn load_bf16(self, from: &[u16; LANES]) -> Self::F;
    fn load_i8(self, from: &[i8; LANES]) -> Self::F;
    fn load_u8(self, from: &[u8; LANES]) -> Self::F;
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a·b + c`, rounded once.
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The larger value; `b` if either is NaN.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// `2^n` for integral `n` in -126..=127.
    fn exp2_int(self, n: Self::F) -> Self::F;

    fn load_bytes(self, from: &[u8; 4 * LANES]) -> Self::B;
    fn store_bytes(self, v: Self::B, to: &mut [u8; 4 * LANES]);
    fn and_bytes(self, a: Self::B, mask: u8) -> Self::B;
    fn or_bytes(self, a: Self::B, b: Self::B) -> Self::B;
    /// Each lane's 32 bits shifted up (left) by `by`. Bits that would cross into the next byte must
    /// have been masked.
    fn shift_up(self, a: Self::B, by: u32) -> Self::B;
    /// As [`Isa::shift_up`], but shifted down.
    fn shift_down(self, a: Self::B, by: u32) -> Self::B;
    /// `acc[t] + Σ_v Σ_j w[v][4·lane + j] · x[t][16·half + 4·v + j]` for each of the `T` rows.
    /// Exact for weights up to 127, or up to 255 if `WIDE`, unless an `x` is -128.
    fn dot_rows<const T: usize, const WIDE: bool>(
        self,
        acc: [Self::I; T],
        w: [Self::B; 4],
        x: &[[i8; 2 * LANES]; T],
        half: usize,
    ) -> [Self::I; T];
    /// `acc + Σ_j w[4·lane + j] · x[j]`, exact under the conditions of [`Isa::dot_rows`].
    fn dot_one<const WIDE: bool>(self, acc: Self::I, w: Self::B, x: &[i8; 4]) -> Self::I;
    /// Each lane's 32 bits, shifted down by `by` and masked.
    fn bits(self, from: &[u8; 4 * LANES], by: u32, mask: u32) -> Self::I;
    /// `acc + w[2·lane + 1] · x[1] + w[2·lane] · x[0]` of brain floats, added in this order and
    /// rounded to nearest after each addition. Subnormal inputs and results count as zero, as in
    /// AVX-512's `vdpbf16ps`.
    fn dot_bf16(self, acc: Self::F, w: Self::B, x: [u16; 2]) -> Self::F;
    fn splat_i32(self, x: i32) -> Self::I;
    fn widen_i8(self, from: &[i8; LANES]) -> Self::I;
    fn add_i32(self, a: Self::I, b: Self::I) -> Self::I;
    /// `a · 2^by`.
    fn shift_up_i32(self, a: Self::I, by: u32) -> Self::I;
    fn to_floats(self, a: Self::I) -> Self::F;
    /// The sum of the lanes.
    fn sum_i32(self, a: Self::I) -> i32;
    /// The largest magnitude of each four neighbouring lanes, as bits, where NaN is larger than
    /// infinity.
    fn largest_of_fours(self, a: Self::F) -> [u32; 4];
    /// Rounds to the nearest integers, ties to even. Lanes must be within ±127.
    fn round_i8(self, v: Self::F, to: &mut [i8; LANES]);

    /// The sum of the lanes as a balanced tree: lane i + lane i+8, then +4, +2, +1.
    #[inline(always)]
    fn sum(self, v: Self::F) -> f32 {
        let mut lanes = [0.0; LANES];
        self.store(v, &mut lanes);
        for width in [8, 4, 2, 1] {
            for i in 0..width {
                lanes[i] += lanes[i + width];
            }
        }
        lanes[0]
    }
}

/// A computation that is generic over the instruction set. `run` must be `inline(always)`.
pub(crate) trait Kernel {
    type Output;
    fn run<I: Isa>(self, isa: I) -> Self::Output;
}

/// `MULTIGRAFT_ISA` names an instruction set that this processor lacks or that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("MULTIGRAFT_ISA is `{0}`, but this processor has {list}", list = InstructionSet::available().iter().map(|set| set.name()).collect::<Vec<_>>().join(", "))]
pub struct UnavailableSet(pub String);

/// The instruction sets that kernels are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstructionSet {
    /// Portable code; the specification.
    Scalar,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// As [`InstructionSet::Avx2`], with the dot products of bytes of AVX-VNNI.
    AvxVnni,
    /// AVX-512 F, BW, VL and VNNI, with BF16 where the processor has it.
    Avx512,
    /// NEON of aarch64, with the dot products of bytes (dotprod, i8mm) that the processor has.
    Neon,
}

impl InstructionSet {
    /// The sets that this processor can run, from [`InstructionSet::Scalar`] to the best.
    pub fn available() -> Vec<Self> {
        #[cfg(target_arch = "x86_64")]
        let vector = [
            avx2::Avx2::<false>::detect().map(|_| Self::Avx2),
            avx2::Avx2::<true>::detect().map(|_| Self::AvxVnni),
            avx512::Avx512::<false>::detect().map(|_| Self::Avx512),
        ];
        #[cfg(target_arch = "aarch64")]
        let vector = [neon::Neon::<false, false>::detect().map(|_| Self::Neon)];
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let vector: [Option<Self>; 0] = [];
        std::iter::once(Self::Scalar)
            .chain(vector.into_iter().flatten())
            .collect()
    }

    /// The set that kernels use in this process: the best available, or the one that the
    /// environment variable `MULTIGRAFT_ISA` (`scalar`, `avx2`, `avxvnni`, `avx512`, `neon`) names.
    /// Read once. A name that this processor lacks is ignored here; programs refuse it when they
    /// start, by [`InstructionSet::check`].
    pub fn current() -> Self {
        static CURRENT: OnceLock<InstructionSet> = OnceLock::new();
        *CURRENT.get_or_init(|| {
            let available = Self::available();
            let best = available[available.len() - 1];
            Self::wanted().ok().flatten().unwrap_or(best)
        })
    }

    /// Checks that `MULTIGRAFT_ISA`, if it is set, names a set of this processor.
    ///
    /// # Errors
    /// If it does not; the error lists the sets of this processor.
    pub fn check() -> Result<(), UnavailableSet> {
        Self::wanted().map(|_| ())
    }

    /// The set that `MULTIGRAFT_ISA` names; `None` if it is not set or empty.
    fn wanted() -> Result<Option<Self>, UnavailableSet> {
        let name = std::env::var("MULTIGRAFT_ISA").unwrap_or_default();
        if name.is_empty() {
            return Ok(None);
        }
        let named = Self::available().into_iter().find(|set| set.name() == name);
        named.map(Some).ok_or(UnavailableSet(name))
    }

    /// Its name in `MULTIGRAFT_ISA`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avxvnni",
            Self::Avx512 => "avx512",
            Self::Neon => "neon",
        }
    }
}

/// Runs a kernel on the instruction set of this process.
pub(crate) fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    dispatch_on(InstructionSet::current(), kernel)
}

/// Runs a kernel on a given instruction set, or on [`Scalar`] if the processor lacks it.
pub(crate) fn dispatch_on<K: Kernel>(set: InstructionSet, kernel: K) -> K::Output {
    match set {
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx512 => match (
            avx512::Avx512::<true>::detect(),
            avx512::Avx512::<false>::detect(),
        ) {
            (Some(isa), _) => isa.enter(kernel),
            (None, Some(isa)) => isa.enter(kernel),
            (None, None) => Scalar.enter(kernel),
        },
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx2 => match avx2::Avx2::<false>::detect() {
            Some(isa) => isa.enter(kernel),
            None => Scalar.enter(kernel),
        },
        #[cfg(target_arch = "x86_64")]
        InstructionSet::AvxVnni => match avx2::Avx2::<true>::detect() {
            Some(isa) => isa.enter(kernel),
            None => Scalar.enter(kernel),
        },
        #[cfg(target_arch = "aarch64")]
        InstructionSet::Neon => match (
            neon::Neon::<true, true>::detect(),
            neon::Neon::<true, false>::detect(),
            neon::Neon::<false, false>::detect(),
        ) {
            (Some(isa), ..) => isa.enter(kernel),
            (None, Some(isa), _) => isa.enter(kernel),
            (None, None, Some(isa)) => isa.enter(kernel),
            (None, None, None) => Scalar.enter(kernel),
        },
        _ => Scalar.enter(kernel),
    }
}

/// `e^x` to about one unit in the last place; 0 below -87, capped at `e^88`.
///
/// Cephes' range reduction: `x = n·ln 2 + r`, a polynomial of degree 6 in r, times `2^n`.
#[inline(always)]
pub(crate) fn exp<I: Isa>(isa: I, x: I::F) -> I::F {
    /// Adding and subtracting 1.5·2²³ rounds a float of small magnitude to an integer.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    const COEFFICIENTS: [f32; 6] = [
        1.987_569_1e-4,
        1.398_199_9e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        0.166_666_66,
        0.5,
    ];
    let clamped = isa.max(isa.min(x, isa.splat(88.0)), isa.splat(-87.0));
    let round = isa.splat(ROUND);
    let n = isa.sub(
        isa.mul_add(clamped, isa.splat(std::f32::consts::LOG2_E), round),
        round,
    );
    let r = isa.mul_add(n, isa.splat(-LN2_HIGH), clamped);
    let r = isa.mul_add(n, isa.splat(-LN2_LOW), r);
    let mut p = isa.splat(COEFFICIENTS[0]);
    for c in &COEFFICIENTS[1..] {
        p = isa.mul_add(p, r, isa.splat(*c));
    }
    let p = isa.mul_add(p, isa.mul(r, r), isa.add(r, isa.splat(1.0)));
    isa.mul(p, isa.exp2_int(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Everything([f32; LANES], [f32; LANES], [u8; LANES], [u16; LANES]);

    impl Kernel for Everything {
        type Output = Vec<[u32; LANES]>;
        #[inline(always)]
        fn run<I: Isa>(self, isa: I) -> Self::Output {
            let (a, b) = (isa.load(&self.0), isa.load(&self.1));
            let low = isa.load_u8(&self.2);
            let ints: [i8; LANES] = self.2.map(u8::cast_signed);
            let n = isa.min(isa.max(isa.load_i8(&ints), isa.splat(-126.0)), isa.splat(127.0));
            let results = [
                isa.add(a, b),
                isa.sub(a, b),
                isa.mul(a, b),
                isa.div(a, b),
                isa.mul_add(a, b, low),
                isa.max(a, b),
                isa.min(a, b),
                low,
                isa.load_i8(&ints),
                isa.load_f16(&self.3),
                isa.load_bf16(&self.3),
                isa.exp2_int(n),
                exp(isa, a),
                isa.splat(isa.sum(a)),
            ];
            results
                .map(|v| {
                    let mut out = [0.0; LANES];
                    isa.store(v, &mut out);
                    out.map(f32::to_bits)
                })
                .to_vec()
        }
    }

    proptest::proptest! {
        #[test]
        fn every_instruction_set_equals_scalar(
            a in proptest::array::uniform16(-100f32..100.0),
            b in proptest::array::uniform16(-1e3f32..1e3),
            bytes: [u8; 16],
            halves in proptest::array::uniform16(0u16..0x7c00),
        ) {
            let run = |set| dispatch_on(set, Everything(a, b, bytes, halves));
            let expected = run(InstructionSet::Scalar);
            for set in InstructionSet::available() {
                proptest::prop_assert_eq!(&run(set), &expected, "{}", set.name());
            }
        }
    }

    struct Exp(f32);
    impl Kernel for Exp {
        type Output = f32;
        #[inline(always)]
        fn run<I: Isa>(self, isa: I) -> f32 {
            {
                let mut lanes = [0.0; LANES];
                isa.store(exp(isa, isa.splat(self.0)), &mut lanes);
                lanes[0]
            }
        }
    }

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        for i in -86_000..88_000 {
            let x = i as f32 / 1000.0;
            let (got, want) = (dispatch(Exp(x)), f64::from(x).exp());
            assert!(
                (f64::from(got) - want).abs() / want < 2.4e-7,
                "exp({x}) = {got}, want {want}"
            );
        }
    }
}

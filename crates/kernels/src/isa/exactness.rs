//! Tests of every operation of every form of every instruction set against the specification, to
//! the bit. There are more forms than [`InstructionSet`] names: forms that a processor would not
//! choose are tested on it too.

use proptest::prelude::*;

use super::{InstructionSet, Isa, Kernel, LANES, dispatch_on};

/// The results of a kernel on each form that this processor can run; the specification comes first.
fn on_every_form<K: Kernel + Clone>(kernel: &K) -> Vec<(&'static str, K::Output)> {
    let mut results: Vec<_> = InstructionSet::available()
        .into_iter()
        .map(|set| (set.name(), dispatch_on(set, kernel.clone())))
        .collect();
    #[cfg(target_arch = "x86_64")]
    if let Some(isa) = super::avx512::Avx512::<false>::detect() {
        results.push(("avx512 without bf16", isa.enter(kernel.clone())));
    }
    #[cfg(target_arch = "aarch64")]
    {
        if let Some(isa) = super::neon::Neon::<false, false>::detect() {
            results.push(("neon alone", isa.enter(kernel.clone())));
        }
        if let Some(isa) = super::neon::Neon::<true, false>::detect() {
            results.push(("neon with dotprod", isa.enter(kernel.clone())));
        }
    }
    results
}

/// Treats all NaNs as equal, because processors differ in which operand's NaN they propagate.
fn bits(lanes: [f32; LANES]) -> [u32; LANES] {
    lanes.map(|x| if x.is_nan() { f32::NAN } else { x }.to_bits())
}

fn assert_equal<K: Kernel<Output = Vec<[f32; LANES]>> + Clone>(kernel: &K, about: &str) {
    let mut results = on_every_form(kernel)
        .into_iter()
        .map(|(form, results)| (form, results.into_iter().map(bits).collect::<Vec<_>>()));
    let (_, expected) = results.next().expect("the specification is always there");
    for (form, results) in results {
        assert_eq!(results, expected, "{form}: {about}");
    }
}

#[inline(always)]
fn stored<I: Isa>(isa: I, v: I::F) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    isa.store(v, &mut lanes);
    lanes
}

/// Floats of arbitrary 32 bits.
fn seen(bits: u32) -> [f32; LANES] {
    let bytes = bits.to_le_bytes();
    std::array::from_fn(|lane| bytes.get(lane).copied().map_or(0.0, f32::from))
}

/// Floats of any kind, including NaN, infinities, zeros and subnormals.
#[derive(Clone)]
struct Floats([f32; LANES], [f32; LANES]);

impl Kernel for Floats {
    type Output = Vec<[f32; LANES]>;
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Self::Output {
        let (a, b) = (isa.load(&self.0), isa.load(&self.1));
        let largest = isa.largest_of_fours(a).map(seen);
        vec![
            stored(isa, isa.add(a, b)),
            stored(isa, isa.sub(a, b)),
            stored(isa, isa.mul(a, b)),
            stored(isa, isa.div(a, b)),
            stored(isa, isa.mul_add(a, b, a)),
            stored(isa, isa.max(a, b)),
            stored(isa, isa.min(a, b)),
            stored(isa, isa.splat(isa.sum(a))),
            stored(isa, isa.splat(self.1[0])),
            largest[0],
            largest[1],
            largest[2],
            largest[3],
        ]
    }
}

/// Sixteen bit patterns as halves, as brain floats, and their low bytes as integers.
#[derive(Clone)]
struct Widened([u16; LANES]);

impl Kernel for Widened {
    type Output = Vec<[f32; LANES]>;
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Self::Output {
        let unsigned = self.0.map(|bits| bits.to_le_bytes()[0]);
        let signed = unsigned.map(u8::cast_signed);
        let ints = isa.widen_i8(&signed);
        let sum = isa.add_i32(ints, isa.splat_i32(-777));
        let total = isa.sum_i32(ints);
        vec![
            seen(total.cast_unsigned()),
            stored(isa, isa.load_f16(&self.0)),
            stored(isa, isa.load_bf16(&self.0)),
            stored(isa, isa.load_u8(&unsigned)),
            stored(isa, isa.load_i8(&signed)),
            stored(isa, isa.to_floats(sum)),
            stored(isa, isa.to_floats(isa.shift_up_i32(sum, 3))),
        ]
    }
}

/// Weights of eight bits, and as many rows of activations as a tile can have. Each operation on
/// bytes is tested through a dot product.
#[derive(Clone)]
struct Dots {
    start: i32,
    w: [[u8; 4 * LANES]; 4],
    x: [[i8; 2 * LANES]; 8],
}

impl Dots {
    /// Both halves of the first `T` rows, each with a different start value.
    #[inline(always)]
    fn rows<I: Isa, const T: usize, const WIDE: bool>(
        &self,
        isa: I,
        w: [I::B; 4],
        results: &mut Vec<[f32; LANES]>,
    ) {
        let mut start = [isa.splat_i32(self.start); T];
        for t in 1..T {
            start[t] = isa.add_i32(start[t - 1], isa.splat_i32(1000));
        }
        let x = self.x.first_chunk::<T>().expect("at most eight rows");
        for half in [0, 1] {
            for sum in isa.dot_rows::<T, WIDE>(start, w, x, half) {
                results.push(stored(isa, isa.to_floats(sum)));
            }
            let (four, _) = x[0][LANES * half..].as_chunks::<4>();
            results.push(stored(
                isa,
                isa.to_floats(isa.dot_one::<WIDE>(start[0], w[0], &four[0])),
            ));
        }
    }
}

impl Kernel for Dots {
    type Output = Vec<[f32; LANES]>;
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Self::Output {
        let mut results = Vec::new();
        isa.prefetch(&self.w);
        let w = [
            isa.load_bytes(&self.w[0]),
            isa.load_bytes(&self.w[1]),
            isa.load_bytes(&self.w[2]),
            isa.load_bytes(&self.w[3]),
        ];
        self.rows::<I, 1, true>(isa, w, &mut results);
        self.rows::<I, 2, true>(isa, w, &mut results);
        self.rows::<I, 4, true>(isa, w, &mut results);
        self.rows::<I, 8, true>(isa, w, &mut results);
        let mut low = w;
        for w in &mut low {
            *w = isa.and_bytes(*w, 0x7f);
        }
        self.rows::<I, 1, false>(isa, low, &mut results);
        self.rows::<I, 2, false>(isa, low, &mut results);
        self.rows::<I, 4, false>(isa, low, &mut results);
        self.rows::<I, 8, false>(isa, low, &mut results);
        for by in 0..8 {
            let mut moved = w;
            for w in &mut moved {
                let down = isa.shift_down(isa.and_bytes(*w, 0xff << by), by);
                let up = isa.shift_up(isa.and_bytes(*w, 0xff >> by), by);
                let mut bytes = [0; 4 * LANES];
                isa.store_bytes(isa.or_bytes(down, up), &mut bytes);
                *w = isa.load_bytes(&bytes);
            }
            self.rows::<I, 1, true>(isa, moved, &mut results);
        }
        results
    }
}

/// Operations on all parts of sixteen lanes of 32 bits.
#[derive(Clone)]
struct Bits([u8; 4 * LANES]);

impl Kernel for Bits {
    type Output = Vec<[f32; LANES]>;
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Self::Output {
        let mut results = Vec::new();
        for by in 0..32 {
            for mask in [1, 3, 15, 255, u32::MAX] {
                results.push(stored(isa, isa.to_floats(isa.bits(&self.0, by, mask))));
            }
            // So few bits that sixteen values can be added without overflow.
            let sum = isa.sum_i32(isa.bits(&self.0, by, u32::MAX >> 5));
            results.push(seen(sum.cast_unsigned()));
        }
        results
    }
}

/// Pairs of brain floats.
#[derive(Clone)]
struct BrainFloats {
    acc: [f32; LANES],
    w: [u8; 4 * LANES],
    x: [u16; 2],
}

impl Kernel for BrainFloats {
    type Output = Vec<[f32; LANES]>;
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Self::Output {
        let (acc, w) = (isa.load(&self.acc), isa.load_bytes(&self.w));
        let once = isa.dot_bf16(acc, w, self.x);
        vec![stored(isa, once), stored(isa, isa.dot_bf16(once, w, self.x))]
    }
}

/// Rounded to bytes, seen as floats.
#[derive(Clone)]
struct Rounded([f32; LANES]);

impl Kernel for Rounded {
    type Output = Vec<[f32; LANES]>;
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Self::Output {
        let mut bytes = [0; LANES];
        isa.round_i8(isa.load(&self.0), &mut bytes);
        vec![bytes.map(f32::from)]
    }
}

/// `2^n` of integers.
#[derive(Clone)]
struct Powers([f32; LANES]);

impl Kernel for Powers {
    type Output = Vec<[f32; LANES]>;
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Self::Output {
        vec![stored(isa, isa.exp2_int(isa.load(&self.0)))]
    }
}

#[test]
fn every_half_and_every_brain_float_widens_alike() {
    for first in (0..=u16::MAX).step_by(LANES) {
        let patterns = std::array::from_fn(|lane| first + lane as u16);
        assert_equal(&Widened(patterns), &format!("from {first:#x}"));
    }
}

#[test]
fn the_largest_products_do_not_overflow() {
    for (w, x) in [(255, 127), (255, -127), (0, -127), (127, 127), (128, -127)] {
        let (w, x) = ([[w; 4 * LANES]; 4], [[x; 2 * LANES]; 8]);
        let dots = Dots { start: 0, w, x };
        assert_equal(&dots, &format!("{} · {}", w[0][0], x[0][0]));
    }
}

#[test]
fn every_quarter_within_a_byte_rounds_alike() {
    for first in (-508i16..=508).step_by(LANES) {
        let quarters = std::array::from_fn(|lane| f32::from((first + lane as i16).min(508)) / 4.0);
        assert_equal(&Rounded(quarters), &format!("from {first} / 4"));
    }
}

#[test]
fn every_power_of_two_is_exact() {
    for first in (-126i16..=127).step_by(LANES) {
        let powers: [f32; LANES] = std::array::from_fn(|lane| f32::from((first + lane as i16).min(127)));
        for (form, results) in on_every_form(&Powers(powers)) {
            assert_eq!(results[0], powers.map(f32::exp2), "{form}");
        }
    }
}

proptest! {
    #[test]
    fn floats_of_any_kind(
        a in prop::array::uniform16(prop::num::f32::ANY),
        b in prop::array::uniform16(prop::num::f32::ANY),
    ) {
        assert_equal(&Floats(a, b), "any");
        assert_equal(&Floats(a, a), "equal");
        assert_equal(&Floats(a, a.map(|a| -a)), "opposite");
    }

    #[test]
    fn bytes(
        start in -1000i32..1000,
        w in prop::collection::vec(any::<u8>(), 4 * 4 * LANES),
        x in prop::array::uniform8(prop::array::uniform32(-127i8..=127)),
    ) {
        let (rows, _) = w.as_chunks::<{ 4 * LANES }>();
        let w = [rows[0], rows[1], rows[2], rows[3]];
        assert_equal(&Bits(w[0]), "any");
        assert_equal(&Dots { start, w, x }, "any");
    }

    #[test]
    fn brain_floats_of_any_kind(
        acc in prop::array::uniform16(prop::num::f32::ANY),
        w in prop::collection::vec(any::<u8>(), 4 * LANES),
        x: [u16; 2],
    ) {
        let w = w.try_into().expect("as many as asked for");
        assert_equal(&BrainFloats { acc, w, x }, "any");
    }

    /// Where sums and products are around the least normal number.
    #[test]
    fn small_brain_floats(
        acc in prop::array::uniform16(prop::num::f32::SUBNORMAL | prop::num::f32::ZERO),
        w in prop::collection::vec((0u16..0x0180, any::<bool>()), 2 * LANES),
        x in prop::array::uniform2(0x3f00u16..0x4000),
    ) {
        let w = w.into_iter().flat_map(|(w, minus)| (w | u16::from(minus) << 15).to_le_bytes());
        let w = w.collect::<Vec<_>>().try_into().expect("as many as asked for");
        assert_equal(&BrainFloats { acc, w, x }, "small");
        let x = [x[0], 1];
        assert_equal(&BrainFloats { acc, w, x }, "small times subnormal");
    }
}

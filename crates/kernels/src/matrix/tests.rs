//! Laws of packed matrices, over every storage type and odd shapes.

use proptest::prelude::*;

use super::*;
use crate::blocks::BlockType;
use crate::isa::{InstructionSet, LANES};
use crate::pool::Pool;
use crate::shared::SharedRows;

/// Random but finite stored weights.
fn stored(block_type: BlockType, out: usize, inp: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut bytes: Vec<u8> = (0..block_type.bytes_for(out * inp).unwrap())
        .map(|_| next() as u8)
        .collect();
    // Scales (and plain floats) must be finite and of ordinary size.
    for block in bytes.chunks_exact_mut(block_type.block_bytes()) {
        let small = (next() % 2000) as f32 / 1000.0 - 1.0;
        let scale = half::f16::from_f32(small).to_le_bytes();
        match block_type {
            BlockType::F32 => block.copy_from_slice(&small.to_le_bytes()),
            BlockType::Bf16 => block.copy_from_slice(&half::bf16::from_f32(small).to_le_bytes()),
            BlockType::Q6K => block[208..].copy_from_slice(&scale),
            BlockType::Q4_1 | BlockType::Q5_1 | BlockType::Q4K | BlockType::Q5K => {
                block[..2].copy_from_slice(&scale);
                block[2..4].copy_from_slice(&scale);
            }
            _ => block[..2].copy_from_slice(&scale),
        }
    }
    bytes
}

fn decoded(block_type: BlockType, bytes: &[u8], len: usize) -> Vec<f32> {
    let mut weights = vec![0.0; len];
    block_type.decode(bytes, &mut weights);
    weights
}

fn noise(seed: u64, len: usize) -> Vec<f32> {
    (0..len)
        .map(|i| ((seed % 997) as f64 + i as f64 * 12.9898).sin() as f32)
        .collect()
}

fn shapes() -> impl Strategy<Value = (BlockType, usize, usize)> {
    (
        prop::sample::select(BlockType::ALL.to_vec()),
        1usize..40,
        1usize..4,
        1usize..50,
    )
        .prop_map(|(block_type, out, blocks, plain)| {
            let inp = if block_type.block_len() == 1 {
                plain
            } else {
                blocks * block_type.block_len()
            };
            (block_type, out, inp)
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn packing_keeps_every_weight((block_type, out, inp) in shapes(), seed: u64) {
        let bytes = stored(block_type, out, inp, seed);
        let expected = decoded(block_type, &bytes, out * inp);
        let reversed = PackedMatrix::pack_ordered(block_type, &bytes, out, inp, Precision::Native, &|o| out - 1 - o).unwrap();
        let mut row = vec![0.0; inp];
        for o in 0..out {
            reversed.row(o, &mut row);
            for (got, want) in row.iter().zip(&expected[(out - 1 - o) * inp..]) {
                prop_assert!((got - want).abs() <= 1e-6 * want.abs().max(8.0), "{}: {got} for {want}", block_type.name());
            }
        }
    }

    #[test]
    fn products_are_their_formula_in_any_batch_on_any_threads(
        (block_type, out, inp) in shapes(), rows in 1usize..45, threads in 1usize..4, seed: u64, exact: bool,
    ) {
        let bytes = stored(block_type, out, inp, seed);
        let weights = decoded(block_type, &bytes, out * inp);
        let precision = if exact { Precision::Exact } else { Precision::Native };
        let packed = PackedMatrix::pack(block_type, &bytes, out, inp, precision).unwrap();
        let x = activations(seed, rows, inp);
        let (stride, at) = (out + 5, 3);
        let mut y = vec![7.0; rows * stride];
        multiply(&Pool::new(threads), &packed, &x, &mut y, stride, at);
        let alone_pool = Pool::new(1);
        for r in 0..rows {
            let x = &x[r * inp..][..inp];
            let largest = f64::from(x.iter().fold(0f32, |m, x| m.max(x.abs())));
            for o in 0..out {
                let weights = &weights[o * inp..][..inp];
                let terms = || weights.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x));
                let (want, size): (f64, f64) = (terms().sum(), terms().map(f64::abs).sum());
                let widths: f64 = weights.iter().map(|w| f64::from(w.abs())).sum();
                let rounding = match (exact, block_type) {
                    (true, _) | (_, BlockType::F32 | BlockType::F16) => 0.0,
                    (_, BlockType::Bf16) => size / 256.0,
                    _ => widths * largest / 252.0,
                };
                let got = f64::from(y[r * stride + at + o]);
                prop_assert!((got - want).abs() <= rounding + 1e-5 * (1.0 + size + widths * largest), "{}: {got} for {want}", block_type.name());
            }
            prop_assert_eq!(&y[r * stride..r * stride + at], &[7.0; 3]);
            let mut alone = vec![7.0; stride];
            multiply(&alone_pool, &packed, x, &mut alone, stride, at);
            prop_assert_eq!(&alone[..], &y[r * stride..][..stride], "row {} of {}", r, rows);
        }
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits((block_type, out, inp) in shapes(), rows in 1usize..20, seed: u64) {
        let packed =
            PackedMatrix::pack(block_type, &stored(block_type, out, inp, seed), out, inp, Precision::Native).unwrap();
        let x = activations(seed, rows, inp);
        let mut scratch = ActivationScratch::default();
        let mut x = Activations::new(&x, inp, &mut scratch);
        x.prepare(&Pool::new(1), packed.panels.wanted());
        let product = |set| {
            let mut sums = vec![[0.0; LANES]; rows];
            let to = Target { out: SharedRows::new(sums.as_flattened_mut(), LANES), row: 0, at: 0, width: LANES, adds: false };
            packed.panels.multiply_on(set, 0..1, &x, to, Prefetch::NOTHING);
            sums
        };
        let expected = product(InstructionSet::Scalar);
        for set in InstructionSet::available() {
            prop_assert_eq!(product(set), expected.clone(), "{}", set.name());
        }
    }

    #[test]
    fn eight_bits_of_adapters_give_the_same_bits_everywhere(
        out in 1usize..40, inp in 1usize..20, rows in 1usize..20, seed: u64,
    ) {
        let weights = noise(seed ^ 7, out * inp);
        let packed = PackedMatrix::from_f32_as_int8(&weights, out, inp);
        let mut row = vec![0.0; inp];
        for (o, weights) in weights.chunks_exact(inp).enumerate() {
            packed.row(o, &mut row);
            for (got, want) in row.iter().zip(weights) {
                // Half a step of the coarsest scale that weights within ±1 have.
                prop_assert!((got - want).abs() <= 0.5 / 126.0, "{got} for {want}");
            }
        }
        let x = activations(seed, rows, inp);
        let mut scratch = ActivationScratch::default();
        let x = Activations::new(&x, inp, &mut scratch);
        let product = |set| {
            let mut sums = vec![0.0; rows * out];
            let to = Target { out: SharedRows::new(&mut sums, out), row: 0, at: 0, width: out, adds: false };
            packed.panels.multiply_on(set, 0..packed.panels(), &x, to, Prefetch::NOTHING);
            sums
        };
        let expected = product(InstructionSet::Scalar);
        for set in InstructionSet::available() {
            prop_assert_eq!(product(set), expected.clone(), "{}", set.name());
        }
    }

    #[test]
    fn parts_of_one_region_are_those_of_two((block_type, out, inp) in shapes(), rows in 1usize..10, seed: u64) {
        let pack = |out, seed| {
            PackedMatrix::pack(block_type, &stored(block_type, out, inp, seed), out, inp, Precision::Native).unwrap()
        };
        let (a, b) = (pack(out, seed), pack(out + 3, seed ^ 1));
        let x = activations(seed, rows, inp);
        let (pool, stride) = (Pool::new(2), 2 * out + 3);
        let (mut together, mut apart) = (vec![0.0; rows * stride], vec![0.0; rows * stride]);
        let parts = [Part { weight: &a, at: 0 }, Part { weight: &b, at: out }];
        let mut scratch = ActivationScratch::default();
        matmul(&pool, &parts, &mut Activations::new(&x, inp, &mut scratch), &mut together, stride, &[]);
        multiply(&pool, &a, &x, &mut apart, stride, 0);
        multiply(&pool, &b, &x, &mut apart, stride, out);
        prop_assert_eq!(together, apart);
    }
}

fn multiply(pool: &Pool, weight: &PackedMatrix, x: &[f32], out: &mut [f32], stride: usize, at: usize) {
    let mut scratch = ActivationScratch::default();
    let mut x = Activations::new(x, weight.inp(), &mut scratch);
    matmul(pool, &[Part { weight, at }], &mut x, out, stride, &[]);
}

/// Noise with an outlier here and there, `[rows, inp]`, as language models have them.
fn activations(seed: u64, rows: usize, inp: usize) -> Vec<f32> {
    let mut x = noise(seed, rows * inp);
    for i in (0..x.len()).filter(|i| (i * 7919 + seed as usize % 64).is_multiple_of(97)) {
        x[i] *= 40.0;
    }
    x
}

#[test]
fn nan_shows_in_the_result() {
    for block_type in BlockType::ALL {
        let inp = 256;
        let bytes = stored(block_type, 1, inp, 5);
        let packed = PackedMatrix::pack(block_type, &bytes, 1, inp, Precision::Native).unwrap();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = vec![1.0; inp];
            x[77] = bad;
            let mut y = [0.0];
            multiply(&Pool::new(1), &packed, &x, &mut y, 1, 0);
            assert!(!y[0].is_finite(), "{} of {bad}: {}", block_type.name(), y[0]);
        }
    }
}

#[test]
fn a_matrix_of_the_wrong_size_is_refused() {
    let error = PackedMatrix::pack(BlockType::Q4_0, &[0; 17], 1, 32, Precision::Native).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a matrix of 1 x 32 in Q4_0 does not take 17 bytes"
    );
    assert!(PackedMatrix::pack(BlockType::Q4_0, &[0; 18], 1, 33, Precision::Native).is_err());
    assert!(PackedMatrix::pack(BlockType::F32, &[], 0, 0, Precision::Native).is_err());
}

//! Laws of packed matrices, over every storage type and odd shapes.

use proptest::prelude::*;

use super::*;
use crate::blocks::BlockType;
use crate::isa::InstructionSet;
use crate::pool::Pool;

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
        let reversed = PackedMatrix::pack_ordered(block_type, &bytes, out, inp, &|o| out - 1 - o).unwrap();
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
        (block_type, out, inp) in shapes(), rows in 1usize..45, threads in 1usize..4, seed: u64,
    ) {
        let bytes = stored(block_type, out, inp, seed);
        let weights = decoded(block_type, &bytes, out * inp);
        let packed = PackedMatrix::pack(block_type, &bytes, out, inp).unwrap();
        let x = noise(seed, rows * inp);
        let (stride, at) = (out + 5, 3);
        let mut y = vec![7.0; rows * stride];
        matmul(&Pool::new(threads), &packed, &x, &mut y, stride, at);
        let alone_pool = Pool::new(1);
        for r in 0..rows {
            for o in 0..out {
                let terms = || (0..inp).map(|i| f64::from(weights[o * inp + i]) * f64::from(x[r * inp + i]));
                let (want, size): (f64, f64) = (terms().sum(), terms().map(f64::abs).sum());
                let got = f64::from(y[r * stride + at + o]);
                prop_assert!((got - want).abs() <= 1e-5 * (1.0 + size), "{}: {got} for {want}", block_type.name());
            }
            prop_assert_eq!(&y[r * stride..r * stride + at], &[7.0; 3]);
            let mut alone = vec![7.0; stride];
            matmul(&alone_pool, &packed, &x[r * inp..][..inp], &mut alone, stride, at);
            prop_assert_eq!(&alone[..], &y[r * stride..][..stride], "row {} of {}", r, rows);
        }
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits((block_type, out, inp) in shapes(), rows in 1usize..10, seed: u64) {
        let packed = PackedMatrix::pack(block_type, &stored(block_type, out, inp, seed), out, inp).unwrap();
        let x = noise(seed, rows * inp);
        let product = |set| {
            let mut sums = vec![[0.0; LANES]; rows];
            packed.panels.multiply_on(set, 0, &x, inp, &mut |row, s| sums[row] = *s);
            sums
        };
        let expected = product(InstructionSet::Scalar);
        for set in InstructionSet::available() {
            prop_assert_eq!(product(set), expected.clone(), "{}", set.name());
        }
    }
}

#[test]
fn a_matrix_of_the_wrong_size_is_refused() {
    let error = PackedMatrix::pack(BlockType::Q4_0, &[0; 17], 1, 32).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a matrix of 1 x 32 in Q4_0 does not take 17 bytes"
    );
    assert!(PackedMatrix::pack(BlockType::Q4_0, &[0; 18], 1, 33).is_err());
    assert!(PackedMatrix::pack(BlockType::F32, &[], 0, 0).is_err());
}

//! Attention against its formula in double precision, and its equalities.

use proptest::prelude::*;

use super::*;

fn noise(seed: u64, i: usize) -> f32 {
    ((seed % 1000) as f64 + i as f64 * 78.233).sin() as f32
}

/// A sequence in a cache whose other numbers are poison.
struct Sequence {
    kv: KvLayer,
    blocks: Vec<u32>,
    how: Attention,
    /// `[positions, (heads + 2 · kv_heads) · head_dim]`
    qkv: Vec<f32>,
    width: usize,
}

impl std::fmt::Debug for Sequence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let positions = self.qkv.len() / self.width;
        write!(f, "{positions} positions of {:?}, {:?}", self.kv.shape, self.how)
    }
}

impl Sequence {
    fn new(positions: usize, kv_heads: usize, dim: usize, how: Attention, dtype: KvDtype, seed: u64) -> Self {
        let blocks: Vec<u32> = (0..positions.div_ceil(BLOCK_POSITIONS) as u32).rev().collect();
        let mut kv = KvLayer::new(blocks.len(), kv_heads, dim, dtype);
        match &mut kv.store {
            AnyStore::Bf16(store) => store.poison(half::bf16::NAN.to_bits()),
            AnyStore::F32(store) => store.poison(f32::NAN),
            AnyStore::Int8(store) => store.poison(i8::MAX),
        }
        let width = (how.heads + 2 * kv_heads) * dim;
        let qkv = (0..positions * width).map(|i| noise(seed, i)).collect();
        let mut sequence = Self {
            kv,
            blocks,
            how,
            qkv,
            width,
        };
        for position in 0..positions {
            let (plan, mut row) = (
                sequence.plan(position..position + 1, 1),
                sequence.row(position).to_vec(),
            );
            store_kv(&Pool::new(1), &mut sequence.kv, &plan, None, None, &mut row);
        }
        sequence
    }

    fn row(&self, position: usize) -> &[f32] {
        &self.qkv[position * self.width..][..self.width]
    }

    /// Does not borrow from self, so that the cache can be written.
    fn plan(&self, positions: std::ops::Range<usize>, threads: usize) -> AttentionPlan<'static> {
        let blocks: &'static [u32] = self.blocks.clone().leak();
        let rows: Vec<Query<'_>> = positions.map(|position| Query { position, blocks }).collect();
        AttentionPlan::new(&rows, self.kv.shape.kv_heads, threads)
    }

    /// Outputs of neighbouring positions, computed in one step.
    fn attend(&self, set: InstructionSet, positions: std::ops::Range<usize>, threads: usize) -> Vec<f32> {
        let plan = self.plan(positions.clone(), threads);
        let q = &self.qkv[positions.start * self.width..positions.end * self.width];
        let mut out = vec![f32::NAN; positions.len() * self.how.heads * self.kv.shape.head_dim];
        let (pool, mut scratch) = (Pool::new(threads), vec![f32::NAN; 7]);
        with_store!(&self.kv.store, store => {
            attend(set, &pool, store, self.kv.shape, self.how, &plan, q, &mut scratch, &mut out);
        });
        out
    }

    /// The formula, for one row.
    fn expected(&self, position: usize) -> Vec<f64> {
        let (shape, how) = (self.kv.shape, self.how);
        let (dim, group) = (shape.head_dim, how.heads / shape.kv_heads);
        let at = |position: usize, head: usize| {
            self.row(position)[head * dim..][..dim]
                .iter()
                .map(|&x| f64::from(x))
        };
        let first = how
            .window
            .map_or(0, |window| (position + 1).saturating_sub(window));
        let mut out = Vec::new();
        for head in 0..how.heads {
            let (key, value) = (
                how.heads + head / group,
                how.heads + shape.kv_heads + head / group,
            );
            let exps: Vec<f64> = (first..=position)
                .map(|p| {
                    let score = at(position, head)
                        .zip(at(p, key))
                        .map(|(q, k)| q * k)
                        .sum::<f64>()
                        * f64::from(how.scale);
                    how.softcap
                        .map_or(score, |c| f64::from(c) * (score / f64::from(c)).tanh())
                        .exp()
                })
                .collect();
            let total: f64 = exps.iter().sum();
            let mut sum = vec![0.0; dim];
            for (p, e) in (first..=position).zip(&exps) {
                sum.iter_mut()
                    .zip(at(p, value))
                    .for_each(|(s, v)| *s += e / total * v);
            }
            out.extend(sum);
        }
        out
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

prop_compose! {
    fn sequence(longest: usize)(
        positions in 1..longest,
        kv_heads in 1usize..3,
        group in prop::sample::select(vec![1usize, 2, 3, 4, 7, 9]),
        dim in prop::sample::select(vec![2usize, 8, 16, 24, 40, 64]),
        window in prop::option::of(1usize..600),
        softcap in prop::option::of(2f32..10.0),
        dtype in prop::sample::select(vec![KvDtype::F32, KvDtype::Bf16, KvDtype::Int8]),
        seed: u64,
    ) -> (Sequence, KvDtype) {
        let how = Attention { heads: kv_heads * group, scale: 0.7, softcap, window };
        (Sequence::new(positions, kv_heads, dim, how, dtype, seed), dtype)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn attention_is_its_formula_whatever_the_cache_holds_beyond_the_sequence((sequence, dtype) in sequence(700)) {
        // Keys within 1 are off by 2⁻⁹ in bf16 and 1/254 in int8, scores by the square root of
        // their features' number.
        let allowed = match dtype { KvDtype::F32 => 3e-5, KvDtype::Bf16 => 0.02, KvDtype::Int8 => 0.04 };
        let last = sequence.qkv.len() / sequence.width - 1;
        let got = sequence.attend(InstructionSet::current(), last..last + 1, 2);
        for (got, want) in got.iter().zip(sequence.expected(last)) {
            prop_assert!((f64::from(*got) - want).abs() < allowed, "{got} for {want}");
        }
    }

    #[test]
    fn rows_chunks_threads_and_instruction_sets_do_not_change_a_bit((sequence, _) in sequence(400), cut in 0f64..1.0) {
        let positions = sequence.qkv.len() / sequence.width;
        let cut = (cut * positions as f64) as usize;
        let best = InstructionSet::current();
        let whole = bits(&sequence.attend(best, 0..positions, 2));
        let mut cut_in_two = sequence.attend(best, 0..cut, 1);
        cut_in_two.extend(sequence.attend(best, cut..positions, 3));
        prop_assert_eq!(&bits(&cut_in_two), &whole);
        let width = whole.len() / positions;
        // The last few rows alone: their contexts are the longest, and cut.
        for position in positions.saturating_sub(5)..positions {
            for set in InstructionSet::available() {
                for threads in [1, 3] {
                    let alone = bits(&sequence.attend(set, position..position + 1, threads));
                    prop_assert_eq!(&alone, &whole[position * width..][..width], "{} {}", set.name(), threads);
                }
            }
        }
    }
}

#[test]
fn a_step_of_many_sequences_gives_each_what_it_gets_alone() {
    let how = Attention {
        heads: 6,
        scale: 0.2,
        softcap: None,
        window: None,
    };
    let mut kv = KvLayer::new(60, 2, 24, KvDtype::Bf16);
    let width = 10 * 24;
    // Sequences of these lengths; the last rows of each attend in one step.
    let lengths = [(1usize, 1usize), (40, 33), (300, 1), (17, 2), (290, 40), (100, 1)];
    let mut next = 0;
    let tables: Vec<Vec<u32>> = lengths
        .iter()
        .map(|(length, _)| {
            let blocks = length.div_ceil(BLOCK_POSITIONS) as u32;
            next += blocks;
            (next - blocks..next).collect()
        })
        .collect();
    let input = |s: usize, p: usize| (0..width).map(move |i| noise(s as u64, p * width + i));
    let run = |kv: &mut KvLayer, rows: &[(usize, usize)], threads: usize| {
        let queries: Vec<Query<'_>> = rows
            .iter()
            .map(|&(s, position)| Query {
                position,
                blocks: &tables[s],
            })
            .collect();
        let plan = AttentionPlan::new(&queries, 2, threads);
        let mut qkv: Vec<f32> = rows.iter().flat_map(|&(s, p)| input(s, p)).collect();
        let mut out = vec![0.0; rows.len() * 6 * 24];
        let pool = Pool::new(threads);
        store_kv(&pool, kv, &plan, None, None, &mut qkv);
        attention(&pool, kv, how, &plan, &qkv, &mut Vec::new(), &mut out);
        bits(&out)
    };
    let mut together = Vec::new();
    for (s, (length, last)) in lengths.iter().enumerate() {
        run(
            &mut kv,
            &(0..length - last).map(|p| (s, p)).collect::<Vec<_>>(),
            1,
        );
        together.extend((length - last..*length).map(|p| (s, p)));
    }
    let mixed = run(&mut kv, &together, 2);
    let mut at = 0;
    for (s, (length, last)) in lengths.iter().enumerate() {
        let alone = run(
            &mut kv,
            &(length - last..*length).map(|p| (s, p)).collect::<Vec<_>>(),
            1,
        );
        assert_eq!(alone, mixed[at..at + alone.len()], "sequence {s}");
        at += alone.len();
    }
}

#[test]
fn a_copied_block_is_the_block() {
    for dtype in [KvDtype::F32, KvDtype::Bf16, KvDtype::Int8] {
        let how = Attention {
            heads: 4,
            scale: 0.5,
            softcap: None,
            window: None,
        };
        let mut sequence = Sequence::new(48, 2, 24, how, dtype, 5);
        let before = sequence.attend(InstructionSet::current(), 40..48, 1);
        // Positions 0..16 lie in block 2, 16..32 in 1; they change places by way of 32..48's, which
        // is stored anew.
        let last = sequence.qkv[32 * sequence.width..].to_vec();
        sequence.kv.copy_block(2, 0);
        sequence.kv.copy_block(1, 2);
        sequence.kv.copy_block(0, 1);
        sequence.blocks = vec![1, 2, 0];
        let plan = sequence.plan(32..48, 1);
        store_kv(
            &Pool::new(1),
            &mut sequence.kv,
            &plan,
            None,
            None,
            &mut last.clone(),
        );
        assert_eq!(
            bits(&sequence.attend(InstructionSet::current(), 40..48, 1)),
            bits(&before),
            "{dtype:?}"
        );
    }
}

#[test]
#[should_panic(expected = "store in one block")]
fn two_sequences_cannot_store_in_one_block() {
    let (a, b) = ([0u32], [0u32]);
    let rows = [
        Query {
            position: 3,
            blocks: &a,
        },
        Query {
            position: 5,
            blocks: &b,
        },
    ];
    AttentionPlan::new(&rows, 1, 1);
}

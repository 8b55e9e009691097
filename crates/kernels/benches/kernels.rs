//! Micro-benchmarks of single kernels: `cargo bench -p multigraft-kernels --bench kernels`, part of
//! a name behind it (`-- matmul/Q4_0`) to run some only.
//!
//! Data is small and stays in caches, so these figures tell one version of a kernel from another;
//! what a model gets out of it is measured by `multigraft bench model` and `multigraft bench lora`,
//! weights coming from memory. Shapes are SmolLM2-135M's. All threads are used, one per core,
//! unless MULTIGRAFT_THREADS says how many.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use multigraft_kernels::{
    ActivationScratch, Activations, Attention, AttentionPlan, BLOCK_POSITIONS, BlockType, KvDtype, KvLayer,
    LoraDtype, LoraSegment, PackedLora, PackedMatrix, Part, Pool, Precision, Query, add_lora, attention,
    matmul, store_kv,
};

const HIDDEN: usize = 576;
const WIDTH: usize = 1536;
const HEADS: usize = 9;
const KV_HEADS: usize = 3;
const HEAD_DIM: usize = 64;

fn pool() -> Pool {
    let asked = std::env::var("MULTIGRAFT_THREADS")
        .ok()
        .and_then(|threads| threads.parse().ok());
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    Pool::new(asked.filter(|threads| *threads > 0).unwrap_or_else(cores))
}

fn noise(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i as f32 * 0.731).sin() * 0.5).collect()
}

/// A matrix `[WIDTH, inputs]` as a file of this type has it. Bytes are a repeated pattern whose
/// floats, wherever a type has them, are finite and small: the speed does not depend on their
/// values.
fn weights(block_type: BlockType, inputs: usize) -> PackedMatrix {
    let length = block_type.bytes_for(WIDTH * inputs).expect("whole blocks");
    let bytes: Vec<u8> = [0x12, 0x2c].into_iter().cycle().take(length).collect();
    PackedMatrix::pack(block_type, &bytes, WIDTH, inputs, Precision::Native).expect("whole blocks")
}

/// `x · Wᵀ` for every block type, at the rows of decoding alone, of a small batch, and of a prompt.
fn matmuls(criterion: &mut Criterion) {
    let pool = pool();
    let mut group = criterion.benchmark_group("matmul");
    for block_type in BlockType::ALL {
        // K-quants have blocks of 256, which do not divide 576.
        let inputs = HIDDEN - HIDDEN % block_type.block_len();
        let weight = weights(block_type, inputs);
        for rows in [1, 8, 64] {
            let x = noise(rows * inputs);
            let mut out = vec![0.0; rows * WIDTH];
            group.throughput(Throughput::Elements((2 * rows * inputs * WIDTH) as u64));
            group.bench_function(BenchmarkId::new(block_type.name(), rows), |bencher| {
                let part = Part {
                    weight: &weight,
                    at: 0,
                };
                let mut scratch = ActivationScratch::default();
                bencher.iter(|| {
                    let mut x = Activations::new(black_box(&x), inputs, &mut scratch);
                    matmul(&pool, &[part], &mut x, &mut out, WIDTH, &[]);
                });
            });
        }
    }
}

/// Low-rank updates of rank 16, kept in brain floats and in eight bits: decoding under 32 adapters,
/// eight rows of each of eight, and one prompt.
fn lora(criterion: &mut Criterion) {
    const RANK: usize = 16;
    const DTYPES: [(&str, LoraDtype); 2] = [("bf16", LoraDtype::Bf16), ("int8", LoraDtype::Int8)];
    let pool = pool();
    let mut group = criterion.benchmark_group("lora");
    let shapes = [(1, 1), (32, 1), (8, 8), (1, 64)];
    for ((segments, rows), (name, dtype)) in shapes
        .iter()
        .flat_map(|shape| DTYPES.map(|dtype| (*shape, dtype)))
    {
        let (a, b) = (noise(RANK * HIDDEN), noise(RANK * WIDTH));
        let pack = || PackedLora::new(&a, &b, RANK, 1.0, dtype);
        let adapters: Vec<PackedLora> = (0..segments).map(|_| pack()).collect();
        let step: Vec<LoraSegment<'_>> = adapters
            .iter()
            .enumerate()
            .map(|(index, lora)| LoraSegment {
                start: index * rows,
                rows,
                lora,
                at: 0,
                scale: 1.0,
            })
            .collect();
        let x = noise(segments * rows * HIDDEN);
        let mut out = vec![0.0; segments * rows * WIDTH];
        let mut shrunk = Vec::new();
        group.throughput(Throughput::Bytes(
            adapters.iter().map(|lora| lora.bytes() as u64).sum(),
        ));
        group.bench_function(
            BenchmarkId::new(format!("rank 16 {name}"), format!("{segments}x{rows}")),
            |bencher| {
                bencher.iter(|| add_lora(&pool, &step, black_box(&x), &mut out, WIDTH, &mut shrunk));
            },
        );
    }
}

/// Attention of one row and of a prompt's last 64, at several lengths of context.
fn attend(criterion: &mut Criterion) {
    let pool = pool();
    let mut group = criterion.benchmark_group("attention");
    let layer = Attention {
        heads: HEADS,
        scale: 0.125,
        softcap: None,
        window: None,
    };
    for (rows, context) in [(1usize, 128usize), (1, 1024), (1, 8000), (64, 512)] {
        let blocks: Vec<u32> = (0..context.div_ceil(BLOCK_POSITIONS) as u32).collect();
        let mut kv = KvLayer::new(blocks.len(), KV_HEADS, HEAD_DIM, KvDtype::Bf16);
        let query = |position| Query {
            position,
            blocks: &blocks,
        };
        let all: Vec<Query<'_>> = (0..context).map(query).collect();
        let width = (HEADS + 2 * KV_HEADS) * HEAD_DIM;
        let mut qkv = noise(context * width);
        let plan = AttentionPlan::new(&all, KV_HEADS, pool.threads());
        store_kv(&pool, &mut kv, &plan, None, None, &mut qkv);
        let plan = AttentionPlan::new(&all[context - rows..], KV_HEADS, pool.threads());
        let qkv = &qkv[(context - rows) * width..];
        let mut out = vec![0.0; rows * HEADS * HEAD_DIM];
        let mut scratch = Vec::new();
        group.throughput(Throughput::Elements(
            (4 * rows * context * HEADS * HEAD_DIM) as u64,
        ));
        group.bench_function(BenchmarkId::new(format!("{rows} rows"), context), |bencher| {
            bencher.iter(|| attention(&pool, &kv, layer, &plan, black_box(qkv), &mut scratch, &mut out));
        });
    }
}

criterion_group!(kernels, matmuls, lora, attend);
criterion_main!(kernels);

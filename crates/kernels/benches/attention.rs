//! Attention of one layer, beside the time that reading its keys and values takes at a given
//! bandwidth and that its multiplications take at a given rate: `cargo bench -p multigraft-kernels
//! --bench attention [-- THREADS]`.
//!
//! Layers take turns in memory of their own, as in a model, so that long contexts come from memory
//! and not from a cache. Times are the least of many: what the kernel takes when nothing else runs.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::time::{Duration, Instant};

use multigraft_kernels::{Attention, AttentionPlan, KvDtype, KvLayer, Pool, Query, attention, store_kv};

/// Bytes a second that the machine reads, and float32 operations a second: rough, for a sense of
/// scale.
const BANDWIDTH: f64 = 30e9;
const FLOPS: f64 = 220e9;

/// Layers that take turns.
const LAYERS: usize = 30;

struct Shape {
    name: &'static str,
    heads: usize,
    kv_heads: usize,
    dim: usize,
}

const SHAPES: [Shape; 3] = [
    Shape {
        name: "smollm2 9/3x64",
        heads: 9,
        kv_heads: 3,
        dim: 64,
    },
    Shape {
        name: "qwen2.5 14/2x64",
        heads: 14,
        kv_heads: 2,
        dim: 64,
    },
    Shape {
        name: "mistral 32/8x128",
        heads: 32,
        kv_heads: 8,
        dim: 128,
    },
];

/// Sequences, rows of each, and positions at their end.
const LOADS: [(&str, usize, usize, usize); 5] = [
    ("decode 1 at 128", 1, 1, 128),
    ("decode 1 at 1024", 1, 1, 1024),
    ("decode 1 at 8000", 1, 1, 8000),
    ("decode 16 at 200", 16, 1, 200),
    ("prefill 512", 1, 512, 512),
];

fn main() {
    let threads = std::env::args()
        .find_map(|argument| argument.parse().ok())
        .unwrap_or(2);
    let pool = Pool::new(threads);
    println!("{threads} threads; microseconds a layer: store_kv, attention, (reading, multiplying)");
    for shape in &SHAPES {
        for dtype in [KvDtype::Bf16, KvDtype::F32, KvDtype::Int8] {
            for (name, sequences, rows, end) in LOADS {
                let (entered, attended) = measure(&pool, shape, dtype, sequences, rows, end);
                let block = KvLayer::block_bytes(shape.kv_heads, shape.dim, dtype);
                let bytes = sequences * end.div_ceil(16) * block;
                let pairs = sequences * (end * (end + 1) - (end - rows) * (end - rows + 1)) / 2;
                let operations = 4 * pairs * shape.heads * shape.dim;
                println!(
                    "{:<17} {:<5} {name:<17} {:>8.1} {:>9.1} ({:.1}, {:.1})",
                    shape.name,
                    format!("{dtype:?}"),
                    entered.as_secs_f64() * 1e6,
                    attended.as_secs_f64() * 1e6,
                    bytes as f64 / BANDWIDTH * 1e6,
                    operations as f64 / FLOPS * 1e6,
                );
            }
        }
    }
}

/// The least time of a layer's entry and attention.
fn measure(
    pool: &Pool,
    shape: &Shape,
    dtype: KvDtype,
    sequences: usize,
    rows: usize,
    end: usize,
) -> (Duration, Duration) {
    let blocks = end.div_ceil(16);
    let tables: Vec<Vec<u32>> = (0..sequences)
        .map(|s| (0..blocks).map(|b| (b * sequences + s) as u32).collect())
        .collect();
    let width = (shape.heads + 2 * shape.kv_heads) * shape.dim;
    let noise = |i: usize| ((i as f64 * 0.37).sin() * 0.5) as f32;
    let queries: Vec<Query<'_>> = tables
        .iter()
        .flat_map(|blocks| (end - rows..end).map(move |position| Query { position, blocks }))
        .collect();
    let plan = AttentionPlan::new(&queries, shape.kv_heads, pool.threads());
    let mut layers: Vec<KvLayer> = (0..LAYERS)
        .map(|_| KvLayer::new(sequences * blocks, shape.kv_heads, shape.dim, dtype))
        .collect();
    for kv in &mut layers {
        for position in (0..end).step_by(16) {
            let written: Vec<Query<'_>> = tables
                .iter()
                .flat_map(|blocks| {
                    (position..end.min(position + 16)).map(move |position| Query { position, blocks })
                })
                .collect();
            let mut qkv: Vec<f32> = (0..written.len() * width).map(|i| noise(i + position)).collect();
            store_kv(
                pool,
                kv,
                &AttentionPlan::new(&written, shape.kv_heads, 1),
                None,
                None,
                &mut qkv,
            );
        }
    }
    let mut qkv: Vec<f32> = (0..queries.len() * width).map(noise).collect();
    let mut out = vec![0.0; queries.len() * shape.heads * shape.dim];
    let how = Attention {
        heads: shape.heads,
        scale: 0.125,
        softcap: None,
        window: None,
    };
    let mut scratch = Vec::new();
    let (mut entered, mut attended) = (Duration::MAX, Duration::MAX);
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(400) {
        for kv in &mut layers {
            let start = Instant::now();
            store_kv(pool, kv, &plan, None, None, &mut qkv);
            entered = entered.min(start.elapsed());
            let start = Instant::now();
            attention(pool, kv, how, &plan, &qkv, &mut scratch, &mut out);
            attended = attended.min(start.elapsed());
        }
    }
    (entered, attended)
}

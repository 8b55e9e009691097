//! The promise that a row's result depends on its own tokens and adapter alone, to the bit:
//! sequences under the adapters of every kind, on every architecture, cut into random chunks,
//! joined in random steps, over KV blocks that others used before, on any number of threads, give
//! the logits, or the hidden states, that each gives alone.

use std::path::Path;
use std::sync::Arc;

use multigraft_cpu::{BLOCK_TOKENS, CpuBackend, CpuBase, LoadOptions};
use multigraft_model::{
    AdapterDtype, Backend, BackendOptions, Base, BlockId, KvDtype, Outputs, ReadyAdapter, Run, Slot, Step,
    Throttle, Wanted,
};
use proptest::prelude::*;
use proptest::sample::Index;

/// Tokens of a sequence under an adapter (`None` is the base).
#[derive(Clone, Debug)]
struct Sequence {
    adapter: Option<usize>,
    scale: f32,
    /// All logits or all hidden states.
    wanted: Wanted,
    tokens: Vec<u32>,
}

struct Served {
    model: Arc<CpuBase>,
    adapters: Vec<Arc<ReadyAdapter>>,
}

impl Served {
    /// A tiny model of `fixtures/peft` with all its adapters.
    fn open(folder: &Path, dtype: AdapterDtype) -> Self {
        let model = CpuBase::open(&folder.join("model"), &LoadOptions::default()).unwrap();
        let mut kinds: Vec<_> = std::fs::read_dir(folder.join("adapters"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        kinds.sort();
        let adapters = kinds
            .iter()
            .map(|kind| {
                let file = multigraft_peft::read(kind, model.config()).unwrap();
                Arc::new(model.ready(&file.weights, dtype, &Throttle::NONE).unwrap())
            })
            .collect();
        Self {
            model: Arc::new(model),
            adapters,
        }
    }

    fn backend(&self, threads: usize) -> (CpuBackend, Vec<Slot>) {
        let options = BackendOptions {
            threads,
            blocks: 40,
            context: 128,
            step_rows: 512,
            kv_dtype: KvDtype::default(),
            throttle: Throttle::NONE,
        };
        let mut backend = CpuBackend::new(Arc::clone(&self.model), options);
        let slots = self
            .adapters
            .iter()
            .map(|adapter| backend.admit(adapter).unwrap())
            .collect();
        (backend, slots)
    }

    /// The outputs of all positions, computed in one piece and alone.
    fn alone(&self, sequence: &Sequence) -> Vec<u32> {
        let (mut backend, slots) = self.backend(1);
        let blocks: Vec<BlockId> = (0..sequence.tokens.len().div_ceil(BLOCK_TOKENS) as u32)
            .map(BlockId)
            .collect();
        let adapter = sequence.adapter.map(|adapter| slots[adapter]);
        let run = Run {
            tokens: &sequence.tokens,
            start: 0,
            blocks: &blocks,
            adapter,
            scale: sequence.scale,
            wanted: sequence.wanted,
        };
        let mut outputs = Outputs::default();
        backend.forward(&Step { runs: &[run] }, &mut outputs).unwrap();
        let Outputs { logits, hidden, .. } = outputs;
        logits.into_iter().chain(hidden).map(f32::to_bits).collect()
    }

    /// The outputs of all positions of all sequences, in steps that `choices` draws.
    fn mixed(&self, sequences: &[Sequence], threads: usize, choices: &[(Index, usize)]) -> Vec<Vec<u32>> {
        let (mut backend, slots) = self.backend(threads);
        let limits = backend.limits();
        let width = |s: usize| match sequences[s].wanted {
            Wanted::Hidden => limits.hidden,
            _ => limits.vocab,
        };
        let mut free: Vec<BlockId> = (0..40).map(|b| BlockId(b * 7 % 40)).collect();
        let mut tables: Vec<Vec<BlockId>> = vec![Vec::new(); sequences.len()];
        let mut results: Vec<Vec<u32>> = vec![Vec::new(); sequences.len()];
        let done = |results: &[Vec<u32>], s: usize| results[s].len() / width(s);
        let mut choices = choices.iter().cycle();
        loop {
            let mut live: Vec<usize> = (0..sequences.len())
                .filter(|&s| done(&results, s) < sequences[s].tokens.len())
                .collect();
            if live.is_empty() {
                return results;
            }
            // Some of the live ones, a chunk of each.
            let mut chunks: Vec<(usize, usize)> = Vec::new();
            for _ in 0..live.len() {
                let (index, size) = choices.next().unwrap();
                let s = live.swap_remove(index.index(live.len()));
                let left = sequences[s].tokens.len() - done(&results, s);
                let chunk = (*size).clamp(1, left);
                let needed = (done(&results, s) + chunk)
                    .div_ceil(BLOCK_TOKENS)
                    .saturating_sub(tables[s].len());
                if needed <= free.len() {
                    tables[s].extend(free.drain(..needed));
                    chunks.push((s, chunk));
                }
                if size % 3 == 0 {
                    break;
                }
            }
            chunks.sort_by_key(|&(s, _)| (sequences[s].adapter, sequences[s].scale.to_bits()));
            let runs: Vec<Run<'_>> = chunks
                .iter()
                .map(|&(s, chunk)| {
                    let start = done(&results, s);
                    Run {
                        tokens: &sequences[s].tokens[start..start + chunk],
                        start,
                        blocks: &tables[s],
                        adapter: sequences[s].adapter.map(|adapter| slots[adapter]),
                        scale: sequences[s].scale,
                        wanted: sequences[s].wanted,
                    }
                })
                .collect();
            let mut outputs = Outputs::default();
            backend.forward(&Step { runs: &runs }, &mut outputs).unwrap();
            let (mut logits, mut hidden) = (outputs.logits.as_slice(), outputs.hidden.as_slice());
            for &(s, chunk) in &chunks {
                let rest = match sequences[s].wanted {
                    Wanted::Hidden => &mut hidden,
                    _ => &mut logits,
                };
                let (mine, others) = rest.split_at(chunk * width(s));
                results[s].extend(mine.iter().map(|x| x.to_bits()));
                *rest = others;
                if done(&results, s) == sequences[s].tokens.len() {
                    free.append(&mut tables[s]);
                }
            }
        }
    }
}

fn check(architecture: &str, dtype: AdapterDtype) {
    let served = Served::open(
        &multigraft_testing::fixtures().join("peft").join(architecture),
        dtype,
    );
    let vocab = u32::try_from(served.model.config().vocab).unwrap();
    let adapter = prop_oneof![1 => Just(None), 4 => (0..served.adapters.len()).prop_map(Some)];
    let scale = prop::sample::select(vec![1.0, 0.5, -2.0, 0.0]);
    let scalable: Vec<bool> = served
        .adapters
        .iter()
        .map(|adapter| adapter.unscalable().is_none())
        .collect();
    let wanted = prop_oneof![3 => Just(Wanted::All), 1 => Just(Wanted::Hidden)];
    let sequence = (adapter, scale, wanted, prop::collection::vec(0..vocab, 1..48)).prop_map(
        move |(adapter, scale, wanted, tokens)| Sequence {
            scale: if adapter.is_some_and(|adapter| scalable[adapter]) {
                scale
            } else {
                1.0
            },
            adapter,
            wanted,
            tokens,
        },
    );
    let sequences = prop::collection::vec(sequence, 1..9);
    let choices = prop::collection::vec((any::<Index>(), 1usize..30), 1..40);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(12));
    runner
        .run(
            &(sequences, 1usize..5, choices),
            |(sequences, threads, choices)| {
                let mixed = served.mixed(&sequences, threads, &choices);
                for (sequence, mixed) in sequences.iter().zip(&mixed) {
                    prop_assert!(&served.alone(sequence) == mixed, "adapter {:?}", sequence.adapter);
                }
                Ok(())
            },
        )
        .unwrap();
}

macro_rules! architectures {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            check(stringify!($name), AdapterDtype::F32);
            check(stringify!($name), AdapterDtype::Bf16);
            check(stringify!($name), AdapterDtype::Int8);
        })*
    };
}

architectures! { llama llama3 mistral qwen2 qwen3 gemma2 gemma3 phi3 smollm3 granite olmo2 mixtral qwen3_moe }

//! The real SmolLM2 file against transformers + PEFT on the same dequantised weights, for the base and every demo
//! adapter: how often the likeliest token agrees, and perplexity. `fixtures/smollm2` holds both references' numbers,
//! transformers' and llama.cpp's; we must be close to the first, and no further from it than the second.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use multigraft_model::{
    AdapterDtype, BLOCK_TOKENS, Backend, BlockId, CpuBackend, CpuOptions, KvDtype, LoadOptions, Model, Run,
    Slot, Step, Wanted,
};
use multigraft_weights::safetensors::Checkpoint;

/// Positions whose likeliest token is transformers'.
const TOP1_AGREEMENT: f64 = 0.98;
/// Relative difference of perplexity.
const PERPLEXITY: f64 = 0.005;
/// Positions that the figures are taken over, for each adapter.
const POSITIONS: usize = 2000;

/// What one implementation said of every window: likeliest tokens, and -ln p of the tokens that follow.
#[derive(Default)]
struct Said {
    top1: Vec<i64>,
    nll: Vec<f32>,
}

impl Said {
    fn read(reference: &Checkpoint, key: &str) -> Option<Self> {
        let top1 = reference.i64s(&format!("{key}.top1"))?;
        Some(Self {
            top1,
            nll: reference.tensor(&format!("{key}.nll")).unwrap().to_f32(),
        })
    }

    fn perplexity(&self) -> f64 {
        (self.nll.iter().map(|&x| f64::from(x)).sum::<f64>() / self.nll.len() as f64).exp()
    }

    fn agreement(&self, other: &Self) -> f64 {
        assert_eq!(self.top1.len(), other.top1.len());
        let same = self.top1.iter().zip(&other.top1).filter(|(a, b)| a == b).count();
        same as f64 / self.top1.len() as f64
    }

    fn extend(&mut self, other: Self) {
        self.top1.extend(other.top1);
        self.nll.extend(other.nll);
    }
}

/// Runs windows of tokens through the backend.
fn run(backend: &mut CpuBackend, adapter: Option<Slot>, windows: &[Vec<u32>]) -> Said {
    let vocab = backend.limits().vocab;
    let mut said = Said::default();
    for tokens in windows {
        let blocks: Vec<BlockId> = (0..tokens.len().div_ceil(BLOCK_TOKENS) as u32)
            .map(BlockId)
            .collect();
        let run = Run {
            tokens,
            start: 0,
            blocks: &blocks,
            adapter,
            scale: 1.0,
            wanted: Wanted::All,
        };
        let mut logits = Vec::new();
        backend.forward(&Step { runs: &[run] }, &mut logits).unwrap();
        for (position, logits) in logits.chunks_exact(vocab).enumerate() {
            let best = (0..vocab)
                .max_by(|&a, &b| logits[a].total_cmp(&logits[b]).then(b.cmp(&a)))
                .unwrap();
            said.top1.push(best as i64);
            if let Some(&next) = tokens.get(position + 1) {
                let largest = f64::from(logits[best]);
                let total: f64 = logits.iter().map(|&x| (f64::from(x) - largest).exp()).sum();
                said.nll
                    .push((largest + total.ln() - f64::from(logits[next as usize])) as f32);
            }
        }
    }
    said
}

#[test]
fn base_and_demo_adapters_agree_with_transformers_and_no_worse_than_llama_cpp() {
    let fixtures = multigraft_testing::fixtures();
    let reference = Checkpoint::open_file(&fixtures.join("smollm2/quality.safetensors")).unwrap();
    let model = Arc::new(Model::open(&multigraft_testing::smollm2(), &LoadOptions::default()).unwrap());
    let options = CpuOptions {
        threads: 2,
        blocks: 64,
        context: 1024,
        step_rows: 1024,
        kv_dtype: KvDtype::default(),
    };
    let mut backend = CpuBackend::new(Arc::clone(&model), options);

    let mut subjects = vec![("base".to_owned(), None)];
    for entry in std::fs::read_dir(fixtures.join("../demo/adapters")).unwrap() {
        let folder = entry.unwrap().path();
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let file = multigraft_adapters::read(&folder, model.config()).unwrap();
        // In the precision of the files: the question is whether the arithmetic is right.
        let packed = model.pack(&file.weights, AdapterDtype::Bf16).unwrap();
        subjects.push((name, Some(backend.admit(&Arc::new(packed)).unwrap())));
    }
    assert_eq!(subjects.len(), 6, "the base and five adapters");

    for (name, slot) in subjects {
        let (mut ours, mut transformers, mut llama_cpp) = (Said::default(), Said::default(), Said::default());
        for set in ["prose", "chat"] {
            let key = format!("{name}.{set}");
            let Some(theirs) = Said::read(&reference, &format!("transformers.{key}")) else {
                continue;
            };
            let ids = if set == "prose" {
                "prose.ids".to_owned()
            } else {
                format!("{key}.ids")
            };
            let width = reference.shape(&ids).unwrap()[1];
            let tokens: Vec<u32> = reference
                .i64s(&ids)
                .unwrap()
                .iter()
                .map(|&t| u32::try_from(t).unwrap())
                .collect();
            let windows: Vec<Vec<u32>> = tokens.chunks(width).map(<[u32]>::to_vec).collect();
            ours.extend(run(&mut backend, slot, &windows));
            transformers.extend(theirs);
            if let Some(theirs) = Said::read(&reference, &format!("llamacpp.{key}")) {
                llama_cpp.extend(theirs);
            }
        }
        assert!(
            ours.top1.len() >= POSITIONS,
            "{name}: only {} positions",
            ours.top1.len()
        );
        let agreement = ours.agreement(&transformers);
        let off = |said: &Said| (said.perplexity() / transformers.perplexity() - 1.0).abs();
        println!(
            "{name}: top-1 {agreement:.4}, perplexity {:.4} ({:.5} off)",
            ours.perplexity(),
            off(&ours)
        );
        assert!(agreement >= TOP1_AGREEMENT, "{name}: top-1 agreement {agreement}");
        assert!(
            off(&ours) <= PERPLEXITY,
            "{name}: perplexity off by {}",
            off(&ours)
        );
        // llama.cpp has no format for some adapters (DoRA).
        if llama_cpp.top1.len() == transformers.top1.len() {
            println!(
                "  llama.cpp: top-1 {:.4}, {:.5} off",
                llama_cpp.agreement(&transformers),
                off(&llama_cpp)
            );
            assert!(
                agreement >= llama_cpp.agreement(&transformers),
                "{name}: top-1 below llama.cpp's"
            );
            assert!(
                off(&ours) <= off(&llama_cpp),
                "{name}: perplexity further off than llama.cpp's"
            );
        }
    }
}

//! The real SmolLM2 file against transformers + PEFT on the same dequantised weights, for the base
//! and every demo adapter: how often the likeliest token agrees, and perplexity. `fixtures/smollm2`
//! holds both references' numbers, transformers' and llama.cpp's; we must be close to the first,
//! and no further from it than the second.

use std::path::PathBuf;
use std::sync::Arc;

use multigraft_cpu::{BLOCK_TOKENS, CpuBackend, CpuBase, LoadOptions};
use multigraft_model::{
    AdapterDtype, Backend, BackendOptions, Base, BlockId, KvDtype, Outputs, Precision, Run, Slot, Step,
    Throttle, Wanted,
};
use multigraft_weights::safetensors::Checkpoint;

/// Fraction of positions whose most likely token must be that of transformers.
const TOP1_AGREEMENT: f64 = 0.98;
/// Largest relative difference of perplexity.
const PERPLEXITY: f64 = 0.005;
/// Number of positions for each adapter.
const POSITIONS: usize = 2000;

/// The results of one implementation over all windows: most likely tokens, and -ln p of the actual
/// next tokens.
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

    /// Adds the logits of a window.
    fn add(&mut self, tokens: &[u32], logits: &[f32]) {
        let vocab = logits.len() / tokens.len();
        for (position, logits) in logits.chunks_exact(vocab).enumerate() {
            let best = (0..vocab)
                .max_by(|&a, &b| logits[a].total_cmp(&logits[b]).then(b.cmp(&a)))
                .unwrap();
            self.top1.push(best as i64);
            if let Some(&next) = tokens.get(position + 1) {
                let largest = f64::from(logits[best]);
                let total: f64 = logits.iter().map(|&x| (f64::from(x) - largest).exp()).sum();
                self.nll
                    .push((largest + total.ln() - f64::from(logits[next as usize])) as f32);
            }
        }
    }

    fn extend(&mut self, other: Self) {
        self.top1.extend(other.top1);
        self.nll.extend(other.nll);
    }
}

/// The logits of a window's positions, `[positions, vocab]`.
fn forward(backend: &mut CpuBackend, adapter: Option<Slot>, tokens: &[u32]) -> Vec<f32> {
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
    let mut outputs = Outputs::default();
    backend.forward(&Step { runs: &[run] }, &mut outputs).unwrap();
    outputs.logits
}

fn open(precision: Precision, kv_dtype: KvDtype) -> (Arc<CpuBase>, CpuBackend) {
    let options = LoadOptions {
        precision,
        ..LoadOptions::default()
    };
    let model = Arc::new(CpuBase::open(&multigraft_testing::smollm2(), &options).unwrap());
    let options = BackendOptions {
        threads: 2,
        blocks: 64,
        context: 1024,
        step_rows: 1024,
        kv_dtype,
        throttle: Throttle::NONE,
    };
    let backend = CpuBackend::new(Arc::clone(&model), options);
    (model, backend)
}

fn reference() -> Checkpoint {
    Checkpoint::open_file(&multigraft_testing::fixtures().join("smollm2/quality.safetensors")).unwrap()
}

/// Folders of the demo's adapters, and their names.
fn adapters() -> Vec<(String, PathBuf)> {
    let folders = std::fs::read_dir(multigraft_testing::fixtures().join("../demo/adapters")).unwrap();
    let mut adapters: Vec<(String, PathBuf)> = folders
        .map(|entry| entry.unwrap().path())
        .map(|folder| (folder.file_name().unwrap().to_str().unwrap().to_owned(), folder))
        .collect();
    adapters.sort();
    assert_eq!(adapters.len(), 5, "the demo's adapters");
    adapters
}

/// The windows of a set in the reference for `name`; empty if the reference has none.
fn windows(reference: &Checkpoint, name: &str, set: &str) -> Vec<Vec<u32>> {
    let ids = match set {
        "prose" => "prose.ids".to_owned(),
        _ => format!("{name}.{set}.ids"),
    };
    let Some(tokens) = reference.i64s(&ids) else {
        return Vec::new();
    };
    let tokens: Vec<u32> = tokens.iter().map(|&t| u32::try_from(t).unwrap()).collect();
    let width = reference.shape(&ids).unwrap()[1];
    tokens.chunks(width).map(<[u32]>::to_vec).collect()
}

#[test]
fn base_and_demo_adapters_agree_with_transformers_and_no_worse_than_llama_cpp() {
    let reference = reference();
    let (model, mut backend) = open(Precision::Native, KvDtype::default());
    let mut subjects = vec![("base".to_owned(), None)];
    for (name, folder) in adapters() {
        let file = multigraft_peft::read(&folder, model.config()).unwrap();
        // In the precision of the files, because the test is about the arithmetic.
        let packed = model
            .ready(&file.weights, AdapterDtype::Bf16, &Throttle::NONE)
            .unwrap();
        subjects.push((name, Some(backend.admit(&Arc::new(packed)).unwrap())));
    }

    for (name, slot) in subjects {
        let (mut ours, mut transformers, mut llama_cpp) = (Said::default(), Said::default(), Said::default());
        for set in ["prose", "chat"] {
            let key = format!("{name}.{set}");
            let Some(theirs) = Said::read(&reference, &format!("transformers.{key}")) else {
                continue;
            };
            for tokens in windows(&reference, &name, set) {
                ours.add(&tokens, &forward(&mut backend, slot, &tokens));
            }
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
        // llama.cpp cannot represent some adapters (DoRA).
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

/// Fraction of all positions whose most likely token must be PEFT's when adapters are kept in eight
/// bits.
const INT8_AGREEMENT: f64 = 0.998;
/// Largest deviation of their logits from those of float32 adapters, as the root mean square of the
/// difference relative to that of the logits.
const INT8_LOGITS: f64 = 0.001;
/// Windows of each set that are compared.
const INT8_WINDOWS: usize = 1;

/// Everything except the adapters is float32, so the deviation is the adapters'. Their files are
/// bf16, which is exact in float32, so bf16 needs no comparison.
#[test]
fn adapters_in_eight_bits_are_as_close_to_peft_as_the_documentation_says() {
    let reference = reference();
    let (model, mut backend) = open(Precision::Exact, KvDtype::F32);
    let square = |x: f32| f64::from(x) * f64::from(x);
    let (mut floats, mut eight, mut peft) = (Said::default(), Said::default(), Said::default());
    for (name, folder) in adapters() {
        let file = multigraft_peft::read(&folder, model.config()).unwrap();
        let mut admit = |dtype| {
            let packed = Arc::new(model.ready(&file.weights, dtype, &Throttle::NONE).unwrap());
            Some(backend.admit(&packed).unwrap())
        };
        let (in_floats, in_eight) = (admit(AdapterDtype::F32), admit(AdapterDtype::Int8));
        let (mut size, mut error) = (0.0, 0.0);
        for set in ["prose", "chat"] {
            let windows = windows(&reference, &name, set);
            assert!(
                windows.len() >= INT8_WINDOWS,
                "{name}: {} of {set}",
                windows.len()
            );
            let expected = Said::read(&reference, &format!("transformers.{name}.{set}")).unwrap();
            let mut positions = 0;
            for tokens in &windows[..INT8_WINDOWS] {
                let want = forward(&mut backend, in_floats, tokens);
                let got = forward(&mut backend, in_eight, tokens);
                size += want.iter().map(|x| square(*x)).sum::<f64>();
                error += got.iter().zip(&want).map(|(a, b)| square(a - b)).sum::<f64>();
                floats.add(tokens, &want);
                eight.add(tokens, &got);
                positions += tokens.len();
            }
            peft.top1.extend(&expected.top1[..positions]);
        }
        let off = (error / size).sqrt();
        println!("{name}: logits {off:.5} off");
        assert!(off <= INT8_LOGITS, "{name}: logits off by {off}");
    }
    let (floats, eight) = (floats.agreement(&peft), eight.agreement(&peft));
    println!(
        "top-1 of {} positions: f32 {floats:.4}, int8 {eight:.4}",
        peft.top1.len()
    );
    assert!(
        eight >= INT8_AGREEMENT,
        "top-1 agreement {eight}, in float32 {floats}"
    );
}

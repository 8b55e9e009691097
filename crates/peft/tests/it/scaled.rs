//! Adapters at a scale: bit-exact equivalents, and adapters that cannot be scaled.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use multigraft_cpu::{BLOCK_TOKENS, CpuBackend, CpuBase, LoadOptions};
use multigraft_model::{
    AdapterDtype, Backend, BackendOptions, Base, BlockId, KvDtype, Outputs, ReadyAdapter, Run, Step,
    Throttle, Wanted,
};
use multigraft_peft::AdapterFile;

const TOKENS: [u32; 21] = [
    1, 3, 17, 42, 5, 9, 9, 2, 30, 31, 11, 8, 7, 6, 40, 46, 45, 12, 3, 3, 17,
];

fn logits(model: &Arc<CpuBase>, adapter: Option<&Arc<ReadyAdapter>>, scale: f32) -> Vec<u32> {
    let options = BackendOptions {
        threads: 1,
        blocks: 8,
        context: 128,
        step_rows: 64,
        kv_dtype: KvDtype::F32,
        throttle: Throttle::NONE,
    };
    let mut backend = CpuBackend::new(Arc::clone(model), options);
    let slot = adapter.map(|adapter| backend.admit(adapter).unwrap());
    let blocks: Vec<BlockId> = (0..TOKENS.len().div_ceil(BLOCK_TOKENS) as u32)
        .map(BlockId)
        .collect();
    let run = Run {
        tokens: &TOKENS,
        start: 0,
        blocks: &blocks,
        adapter: slot,
        scale,
        wanted: Wanted::All,
    };
    let mut outputs = Outputs::default();
    let began = Instant::now();
    backend.forward(&Step { runs: &[run] }, &mut outputs).unwrap();
    let (time, whole) = (outputs.time, began.elapsed());
    assert!(!time.matmul.is_zero() && !time.attention.is_zero(), "{time:?}");
    // Every adapter here changes a linear map, and a scale of 0 equals the base.
    assert_eq!(
        !time.lora.is_zero(),
        adapter.is_some() && scale != 0.0,
        "{time:?}"
    );
    assert!(
        time.matmul + time.attention + time.lora <= whole,
        "{time:?} of {whole:?}"
    );
    outputs.logits.into_iter().map(f32::to_bits).collect()
}

/// The same adapter, with its scaling multiplied by `factor` in training.
fn trained_with(mut file: AdapterFile, factor: f32) -> AdapterFile {
    let linears = file.weights.linears.iter_mut();
    let updates = linears.filter_map(|(_, delta)| delta.low_rank.as_mut());
    let embedding = file.weights.embedding.as_mut();
    let embedding = embedding.and_then(|delta| delta.low_rank.as_mut());
    for update in updates.chain(embedding) {
        update.scaling *= factor;
    }
    file
}

fn open(folder: &Path, kind: &str, model: &CpuBase) -> AdapterFile {
    multigraft_peft::read(&folder.join("adapters").join(kind), model.config()).unwrap()
}

#[test]
fn a_scale_multiplies_the_scaling_and_with_0_the_base_answers() {
    let folder = multigraft_testing::fixtures().join("peft/gemma2");
    let model = Arc::new(CpuBase::open(&folder.join("model"), &LoadOptions::default()).unwrap());
    let base = logits(&model, None, 1.0);
    // Embedding, lm_head and, for powers of two, lora_B.bias scale too.
    for kind in ["all_r8", "patterns", "head_embed", "lora_bias"] {
        let file = open(&folder, kind, &model);
        let packed = Arc::new(
            model
                .ready(&file.weights, AdapterDtype::Bf16, &Throttle::NONE)
                .unwrap(),
        );
        assert_eq!(packed.unscalable(), None, "{kind}");
        for scale in [0.5, -2.0] {
            let other = trained_with(file.clone(), scale);
            let other = Arc::new(
                model
                    .ready(&other.weights, AdapterDtype::Bf16, &Throttle::NONE)
                    .unwrap(),
            );
            let scaled = logits(&model, Some(&packed), scale);
            assert!(scaled == logits(&model, Some(&other), 1.0), "{kind} at {scale}");
            assert!(scaled != logits(&model, Some(&packed), 1.0), "{kind} at {scale}");
        }
        for zero in [0.0, -0.0] {
            assert!(logits(&model, Some(&packed), zero) == base, "{kind}");
        }
    }
}

#[test]
fn what_stands_in_the_bases_stead_has_no_scale() {
    let unscalable = |set: &str, kind: &str| {
        let folder = multigraft_testing::fixtures().join(set);
        let model = CpuBase::open(&folder.join("model"), &LoadOptions::default()).unwrap();
        let file = open(&folder, kind, &model);
        model
            .ready(&file.weights, AdapterDtype::F32, &Throttle::NONE)
            .unwrap()
            .unscalable()
    };
    let table = Some("a whole table in the base's stead (modules_to_save)");
    for (set, kind, what) in [
        ("peft/llama", "dora", Some("scaled outputs (of DoRA or IA³)")),
        ("peft/llama", "save_head", table),
        ("peft/llama", "tokens", Some("trained token rows")),
        ("peft_extra/tied", "save_embed", table),
        ("peft_extra/bias", "bias_all", Some("biases in the base's stead")),
        ("peft/llama", "rslora_r16", None),
    ] {
        assert_eq!(unscalable(set, kind), what, "{kind}");
    }
}

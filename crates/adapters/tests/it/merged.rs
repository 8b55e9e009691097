//! Merged adapters against PEFT's `add_weighted_adapter` (`fixtures/peft_merged`), and the laws of
//! the exact sum.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use multigraft_adapters::{Entry, LoadError, Lookup, MergePart, Packer, Registry, RegistryOptions, Source};
use multigraft_cpu::{BLOCK_TOKENS, CpuBackend, CpuBase, LoadOptions};
use multigraft_model::{
    AdapterDtype, Backend, BackendOptions, Base, BlockId, KvDtype, Outputs, Precision, ReadyAdapter, Run,
    Step, Throttle, Wanted,
};
use multigraft_peft::{BaseShape, MajoritySign, MergeMethod};
use multigraft_sources::Reference;
use multigraft_weights::safetensors::Checkpoint;

/// Largest deviation of a logit, relative to the largest logit.
const TOLERANCE: f32 = 2e-4;

const PAIR: [&str; 2] = ["all_r8", "layers_1_3"];
const TABLES: [&str; 2] = ["qv_r4", "head_embed"];

fn folder() -> PathBuf {
    multigraft_testing::fixtures().join("peft/llama")
}

struct Fixture {
    model: Arc<CpuBase>,
    registry: Registry,
}

impl Fixture {
    fn new(dtype: AdapterDtype, options: RegistryOptions) -> Self {
        let load = LoadOptions {
            precision: Precision::Exact,
            ..LoadOptions::default()
        };
        let model = Arc::new(CpuBase::open(&folder().join("model"), &load).unwrap());
        let packer = Packer::new(model.clone(), BaseShape::new(model.config()), dtype);
        let registry = Registry::open("base", packer, options).unwrap();
        for source in Source::in_folder(&folder().join("adapters")).unwrap().sources {
            registry.register(source).unwrap();
        }
        Self { model, registry }
    }

    fn get(&self, name: &str) -> Entry {
        block(self.registry.get(name)).unwrap()
    }

    fn merged(&self, method: MergeMethod, parts: &[(&str, f64)]) -> Result<Entry, LoadError> {
        let parts: Vec<(MergePart, f64)> = parts
            .iter()
            .map(|&(name, weight)| (MergePart::from(&self.get(name)), weight))
            .collect();
        block(self.registry.merged(method, &parts))
    }

    /// Logits at all positions of sequences that are computed in one step, in the order of their
    /// adapters.
    fn logits(&self, sequences: &[(&Arc<ReadyAdapter>, f32, &[u32])]) -> Vec<Vec<f32>> {
        let options = BackendOptions {
            threads: 2,
            blocks: 64,
            context: 128,
            step_rows: 256,
            kv_dtype: KvDtype::F32,
            throttle: Throttle::NONE,
        };
        let mut backend = CpuBackend::new(Arc::clone(&self.model), options);
        let vocab = backend.limits().vocab;
        let tables: Vec<Vec<BlockId>> = (0..sequences.len() as u32)
            .map(|sequence| (4 * sequence..4 * sequence + 4).map(BlockId).collect())
            .collect();
        let runs: Vec<Run<'_>> = sequences
            .iter()
            .zip(&tables)
            .map(|(&(adapter, scale, tokens), blocks)| {
                assert!(tokens.len() <= 4 * BLOCK_TOKENS);
                Run {
                    tokens,
                    start: 0,
                    blocks,
                    adapter: Some(backend.admit(adapter).unwrap()),
                    scale,
                    wanted: Wanted::All,
                }
            })
            .collect();
        let mut outputs = Outputs::default();
        backend.forward(&Step { runs: &runs }, &mut outputs).unwrap();
        let mut rest = outputs.logits.as_slice();
        let mut each = |rows: usize| {
            let (mine, others) = rest.split_at(rows * vocab);
            rest = others;
            mine.to_vec()
        };
        sequences
            .iter()
            .map(|(_, _, tokens)| each(tokens.len()))
            .collect()
    }
}

fn block(lookup: Lookup) -> Result<Entry, LoadError> {
    match lookup {
        Lookup::Ready(entry) => Ok(entry),
        Lookup::Loading(waiting) => waiting.block(),
        Lookup::Unavailable(error) => Err(error),
        Lookup::Unknown => panic!("unknown"),
    }
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|logit| logit.to_bits()).collect()
}

fn reference() -> (Checkpoint, Vec<u32>) {
    let path: &Path = &multigraft_testing::fixtures().join("peft_merged/llama.safetensors");
    let reference = Checkpoint::open_file(path).unwrap();
    let tokens = reference.i64s("tokens").unwrap();
    let tokens = tokens
        .iter()
        .map(|&token| u32::try_from(token).unwrap())
        .collect();
    (reference, tokens)
}

#[test]
fn every_method_gives_the_logits_of_peft_and_the_same_bits_mixed() {
    let ties = |density, majority| MergeMethod::Ties { density, majority };
    let cases = [
        ("cat", MergeMethod::Sum, PAIR, [0.7, -0.4]),
        ("cat_tables", MergeMethod::Sum, TABLES, [0.5, 1.5]),
        ("linear", MergeMethod::Linear, PAIR, [0.7, 0.4]),
        ("linear_negative", MergeMethod::Linear, PAIR, [0.7, -0.4]),
        ("linear_tables", MergeMethod::Linear, TABLES, [0.5, 1.5]),
        ("ties_total", ties(0.6, MajoritySign::Total), TABLES, [0.7, 0.4]),
        (
            "ties_frequency",
            ties(0.3, MajoritySign::Frequency),
            TABLES,
            [0.7, 0.4],
        ),
        (
            "dare_linear",
            MergeMethod::DareLinear { density: 1.0 },
            PAIR,
            [0.7, 0.4],
        ),
        (
            "dare_ties",
            MergeMethod::DareTies {
                density: 1.0,
                majority: MajoritySign::Total,
            },
            PAIR,
            [0.7, 0.4],
        ),
    ];
    let fixture = Fixture::new(AdapterDtype::F32, RegistryOptions::default());
    let (reference, tokens) = reference();
    let mut entries = Vec::new();
    for (case, method, names, weights) in cases {
        let parts = [(names[0], weights[0]), (names[1], weights[1])];
        let entry = fixture.merged(method, &parts).unwrap();
        assert_eq!(entry.hash, entry.packed.hash(), "{case}");
        let ours = &fixture.logits(&[(&entry.packed, 1.0, &tokens)])[0];
        let expected = reference.tensor(&format!("{case}.logits")).unwrap().to_f32();
        assert_eq!(ours.len(), expected.len(), "{case}");
        let largest = expected
            .iter()
            .fold(0f32, |largest, logit| largest.max(logit.abs()));
        let pairs = ours.iter().zip(&expected);
        let deviation = pairs.fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
        assert!(
            deviation <= TOLERANCE * largest,
            "{case}: {}",
            deviation / largest
        );
        entries.push((entry, bits(ours)));
    }
    let mixed: Vec<_> = entries
        .iter()
        .map(|(entry, _)| (&entry.packed, 1.0, tokens.as_slice()))
        .collect();
    for (mixed, (entry, alone)) in fixture.logits(&mixed).iter().zip(&entries) {
        assert!(&bits(mixed) == alone, "{}", entry.name);
    }
}

#[test]
fn a_sum_of_one_is_that_adapter_at_a_scale() {
    let (_, tokens) = reference();
    for dtype in [AdapterDtype::F32, AdapterDtype::Bf16] {
        let fixture = Fixture::new(dtype, RegistryOptions::default());
        for name in ["all_r8", "patterns", "head_embed", "rslora_r16"] {
            let merged = fixture.merged(MergeMethod::Sum, &[(name, 0.3)]).unwrap();
            let scaled = fixture.get(name);
            let merged = &fixture.logits(&[(&merged.packed, 1.0, &tokens)])[0];
            let scaled = &fixture.logits(&[(&scaled.packed, 0.3, &tokens)])[0];
            assert!(bits(merged) == bits(scaled), "{name}");
        }
    }
}

#[test]
fn dare_draws_the_same_for_the_same_merge_and_not_for_another() {
    let (_, tokens) = reference();
    let dare = |density| {
        let fixture = Fixture::new(AdapterDtype::F32, RegistryOptions::default());
        let parts = [("all_r8", 0.7), ("layers_1_3", 0.4)];
        let entry = fixture
            .merged(MergeMethod::DareLinear { density }, &parts)
            .unwrap();
        (
            entry.hash,
            bits(&fixture.logits(&[(&entry.packed, 1.0, &tokens)])[0]),
        )
    };
    assert_eq!(dare(0.5), dare(0.5));
    assert_ne!(dare(0.5), dare(0.51));
}

#[test]
fn a_merge_is_kept_until_a_part_goes_and_is_within_the_budget() {
    let fixture = Fixture::new(AdapterDtype::Bf16, RegistryOptions::default());
    let parts = [("all_r8", 0.5), ("qv_r4", 0.5)];
    let before = {
        let _parts = parts.map(|(name, _)| fixture.get(name));
        fixture.registry.memory().0
    };
    let first = fixture.merged(MergeMethod::Sum, &parts).unwrap();
    assert_eq!(fixture.registry.memory().0, before + first.packed.bytes());
    let again = fixture.merged(MergeMethod::Sum, &parts).unwrap();
    assert!(Arc::ptr_eq(&first.packed, &again.packed));
    drop((first, again));
    fixture.registry.remove("qv_r4").unwrap();
    assert!(
        fixture.registry.memory().0 < before,
        "the part and the merge are gone"
    );

    let tight = RegistryOptions {
        memory: before,
        room_timeout: std::time::Duration::ZERO,
        ..RegistryOptions::default()
    };
    let fixture = Fixture::new(AdapterDtype::Bf16, tight);
    let held = parts.map(|(name, _)| fixture.get(name));
    let full = fixture.merged(MergeMethod::Sum, &parts).unwrap_err();
    assert!(matches!(full, LoadError::NoRoom { .. }), "{full}");
    drop(held);
}

#[test]
fn what_cannot_be_merged_is_named() {
    let fixture = Fixture::new(AdapterDtype::F32, RegistryOptions::default());
    let refused = |method, parts: [&str; 2]| {
        let parts = parts.map(|name| (name, 1.0));
        fixture.merged(method, &parts).unwrap_err().to_string()
    };
    assert_eq!(
        refused(MergeMethod::Sum, ["all_r8", "dora"]),
        "adapter `dora` cannot be merged with others: it has scaled outputs (of DoRA or IA³), and only updates are merged"
    );
    let folder = multigraft_testing::fixtures().join("peft_activated/adapters/activated");
    let name = "activated".to_owned();
    fixture
        .registry
        .register(Source {
            name,
            at: Reference::Folder(folder),
        })
        .unwrap();
    assert_eq!(
        refused(MergeMethod::Sum, ["all_r8", "activated"]),
        "adapter `activated` cannot be merged with others: it has invocation tokens (aLoRA), and only updates are merged"
    );
    let ranks = refused(MergeMethod::Linear, ["all_r8", "qv_r4"]);
    assert!(
        ranks.starts_with("linear needs equal ranks, but of ")
            && ranks.ends_with("`all_r8` has rank 8 and `qv_r4` 4"),
        "{ranks}"
    );
    let bias = refused(MergeMethod::DareLinear { density: 0.5 }, ["lora_bias", "qv_r4"]);
    assert_eq!(
        bias,
        "dare_linear does not merge adapters with lora_bias, which `lora_bias` has"
    );
}

#[test]
fn weights_that_vary_from_request_to_request_do_not_fill_the_memory() {
    let fixture = Fixture::new(AdapterDtype::F32, RegistryOptions::default());
    let merged = |weight: f64| {
        fixture
            .merged(MergeMethod::Sum, &[("all_r8", weight), ("qv_r4", 1.0)])
            .unwrap()
    };
    let one = merged(0.5).packed.bytes();
    let before = fixture.registry.memory().0 - one;
    for step in 1..=40 {
        drop(merged(f64::from(step)));
    }
    let more = fixture.registry.memory().0 - before;
    assert!((8 * one..=16 * one).contains(&more), "{more} for merges of {one}");
    // Merged adapters in use are not evicted.
    let held: Vec<Entry> = (1..=20).map(|step| merged(f64::from(100 + step))).collect();
    assert!(fixture.registry.memory().0 - before >= held.len() * one);
}

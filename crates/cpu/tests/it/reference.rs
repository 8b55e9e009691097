//! Base models against transformers: logits of every prompt position and greedy continuations, for
//! every architecture, from the files in `fixtures/` (made by `tools/reference`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use multigraft_cpu::{BLOCK_TOKENS, CpuBackend, CpuBase, LoadOptions};
use multigraft_model::drive::{Driver, Sequence, likeliest};
use multigraft_model::{Backend, BackendOptions, Base, BlockId, KvDtype, Precision, Throttle};
use multigraft_weights::safetensors::Checkpoint;

/// Largest deviation of a logit, relative to the largest logit.
const TOLERANCE: f32 = 2e-4;

fn models() -> Vec<PathBuf> {
    let mut models = Vec::new();
    for set in ["peft", "peft_extra"] {
        for entry in std::fs::read_dir(multigraft_testing::fixtures().join(set)).unwrap() {
            let path = entry.unwrap().path();
            if path.join("reference.safetensors").is_file() {
                models.push(path);
            }
        }
    }
    models.sort();
    assert!(models.len() >= 13, "found only {models:?}");
    models
}

fn backend(folder: &Path, threads: usize) -> CpuBackend {
    let model = CpuBase::open(&folder.join("model"), &exact()).unwrap();
    let context = model.config().default_context();
    CpuBackend::new(
        Arc::new(model),
        BackendOptions {
            threads,
            blocks: 64,
            context,
            step_rows: 256,
            kv_dtype: KvDtype::F32,
            throttle: Throttle::NONE,
        },
    )
}

/// Logits of every position of `tokens`, computed in chunks.
fn logits(backend: &mut CpuBackend, tokens: &[u32], chunk: usize) -> Vec<f32> {
    let blocks = (0..tokens.len().div_ceil(BLOCK_TOKENS) as u32).rev().map(BlockId);
    let mut sequence = Sequence::new(blocks.collect(), None);
    let mut driver = Driver::in_chunks(backend, chunk);
    driver.logits(&mut sequence, tokens).unwrap()
}

#[test]
fn every_architecture_agrees_with_transformers() {
    for folder in models() {
        let reference = Checkpoint::open_file(&folder.join("reference.safetensors")).unwrap();
        let mut backend = backend(&folder, 2);
        for prompt in 0.. {
            let Some(ids) = reference.i64s(&format!("prompt.{prompt}")) else {
                break;
            };
            let mut tokens: Vec<u32> = ids.iter().map(|&t| u32::try_from(t).unwrap()).collect();
            let expected = reference
                .tensor(&format!("base.{prompt}.logits"))
                .unwrap()
                .to_f32();
            let got = logits(&mut backend, &tokens, 256);
            assert_eq!(got.len(), expected.len());
            let largest = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
            let deviation = got
                .iter()
                .zip(&expected)
                .fold(0f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(
                deviation <= TOLERANCE * largest,
                "{}: {}",
                folder.display(),
                deviation / largest
            );

            let greedy = reference.i64s(&format!("base.{prompt}.greedy")).unwrap();
            let vocab = backend.limits().vocab;
            for (step, &want) in greedy.iter().enumerate() {
                let all = logits(&mut backend, &tokens, 256);
                let next = likeliest(&all[all.len() - vocab..]);
                assert_eq!(
                    i64::from(next),
                    want,
                    "{}: greedy token {step} of prompt {prompt}",
                    folder.display()
                );
                tokens.push(next);
            }
        }
    }
}

#[test]
fn chunks_and_threads_do_not_change_a_bit() {
    for folder in models() {
        let reference = Checkpoint::open_file(&folder.join("reference.safetensors")).unwrap();
        let longest = (0..)
            .map_while(|p| reference.i64s(&format!("prompt.{p}")))
            .max_by_key(Vec::len)
            .unwrap();
        let tokens: Vec<u32> = longest.iter().map(|&t| u32::try_from(t).unwrap()).collect();
        let whole = logits(&mut backend(&folder, 1), &tokens, 256);
        for (chunk, threads) in [(1, 2), (3, 3), (7, 1), (16, 2)] {
            let chunked = logits(&mut backend(&folder, threads), &tokens, chunk);
            let same = whole
                .iter()
                .zip(&chunked)
                .all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(
                same && whole.len() == chunked.len(),
                "{}: chunks of {chunk}",
                folder.display()
            );
        }
    }
}

/// GGUF files that llama.cpp's converter made of the models in `fixtures/peft`. Settings that a
/// GGUF cannot express are removed from the folder's configuration first: mistral's window,
/// smollm3's layers without rotation other than every fourth, gemma's query scale and gemma3's
/// sliding layers where they are not those of the published models.
#[test]
fn gguf_files_give_the_bits_of_the_folders_they_were_made_of() {
    let (mut compared, mut worst) = (0, 0f32);
    for entry in std::fs::read_dir(multigraft_testing::fixtures().join("gguf")).unwrap() {
        let file = entry.unwrap().path();
        let architecture = file.file_stem().unwrap().to_str().unwrap();
        let source = multigraft_testing::fixtures()
            .join("peft")
            .join(architecture)
            .join("model");
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(
            source.join("model.safetensors"),
            folder.path().join("model.safetensors"),
        )
        .unwrap();
        let mut config: serde_json::Value =
            serde_json::from_slice(&std::fs::read(source.join("config.json")).unwrap()).unwrap();
        match architecture {
            "mistral" => config["sliding_window"] = serde_json::Value::Null,
            "smollm3" => config["no_rope_layers"] = serde_json::json!([1, 1, 1, 0]),
            "gemma2" => config["query_pre_attn_scalar"] = config["head_dim"].clone(),
            "gemma3" => {
                config["query_pre_attn_scalar"] = config["head_dim"].clone();
                config["layer_types"] = serde_json::Value::Null;
                config["sliding_window_pattern"] = 6.into();
            }
            _ => {}
        }
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();

        let run = |path: &Path| {
            let model = CpuBase::open(path, &exact()).unwrap();
            let options = BackendOptions {
                threads: 1,
                blocks: 8,
                context: model.config().default_context(),
                step_rows: 64,
                kv_dtype: KvDtype::F32,
                throttle: Throttle::NONE,
            };
            let tokens: Vec<u32> = (0..40).map(|i| (i * 7 + 3) % 43).collect();
            logits(&mut CpuBackend::new(Arc::new(model), options), &tokens, 64)
        };
        let (ours, theirs) = (run(&file), run(folder.path()));
        assert_eq!(ours.len(), theirs.len(), "{architecture}");
        let off = ours
            .iter()
            .zip(&theirs)
            .fold(0f32, |off, (a, b)| off.max((a - b).abs()));
        println!("{architecture}: {off}");
        worst = off.max(worst);
        compared += 1;
    }
    assert_eq!(compared, 13);
    assert!(worst == 0.0, "a GGUF file differs by {worst}");
}

/// The reference numbers are in float32.
fn exact() -> LoadOptions<'static> {
    LoadOptions {
        precision: Precision::Exact,
        ..LoadOptions::default()
    }
}

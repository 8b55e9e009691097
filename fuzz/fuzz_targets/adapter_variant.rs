//! Any bytes as the tensors of one of LoRA's variants (the first byte says which) for a real base:
//! refused, or an adapter that changes something.
#![no_main]

use std::fs;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use multigraft_model::Config;
use multigraft_peft::{BaseShape, read_for};
use tempfile::TempDir;

const BASE: &str = include_str!("../../fixtures/relatives/llama/model/config.json");
const KINDS: [&str; 5] = ["ADALORA", "LOHA", "LOKR", "VERA", "IA3"];

static SHAPE: LazyLock<BaseShape> =
    LazyLock::new(|| BaseShape::new(&Config::from_hf_json(BASE).expect("the fixture is valid")));

static FOLDER: LazyLock<TempDir> =
    LazyLock::new(|| tempfile::tempdir().expect("a folder for temporary files"));

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, tensors)) = bytes.split_first() else { return };
    let kind = KINDS[usize::from(*kind) % KINDS.len()];
    let rank = if kind == "ADALORA" { "init_r" } else { "r" };
    let rank = if kind == "IA3" { String::new() } else { format!(r#", "{rank}": 2"#) };
    let write = |name: &str, bytes: &[u8]| fs::write(FOLDER.path().join(name), bytes).expect("room for a small file");
    write("adapter_config.json", format!(r#"{{"peft_type": "{kind}"{rank}}}"#).as_bytes());
    write("adapter_model.safetensors", tensors);
    if let Ok(adapter) = read_for(FOLDER.path(), &SHAPE) {
        assert!(!adapter.weights.linears.is_empty() || adapter.weights.embedding.is_some());
    }
});

//! Any bytes as an adapter in llama.cpp's format, for a real base: refused, or an adapter whose
//! every update fits.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use multigraft_model::Config;
use multigraft_peft::{BaseShape, read_for};
use tempfile::TempDir;

const BASE: &str = include_str!("../../fixtures/peft/llama/model/config.json");

static SHAPE: LazyLock<BaseShape> =
    LazyLock::new(|| BaseShape::new(&Config::from_hf_json(BASE).expect("the fixture is valid")));

static FILE: LazyLock<(TempDir, PathBuf)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let path = folder.path().join("adapter.gguf");
    (folder, path)
});

fuzz_target!(|bytes: &[u8]| {
    fs::write(&FILE.1, bytes).expect("room for a small file");
    if let Ok(adapter) = read_for(&FILE.1, &SHAPE) {
        assert!(!adapter.weights.linears.is_empty() || adapter.weights.embedding.is_some());
    }
});

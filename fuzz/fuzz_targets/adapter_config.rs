//! Any bytes as an `adapter_config.json`, beside the tensors of a real adapter and for a real base:
//! refused, or an adapter whose every update fits. What parses is also matched against the base's
//! modules, so patterns are run too.
#![no_main]

use std::fs;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use multigraft_model::Config;
use multigraft_peft::{BaseShape, parse_config, read_for};
use tempfile::TempDir;

const BASE: &str = include_str!("../../fixtures/peft/llama/model/config.json");
const WEIGHTS: &[u8] = include_bytes!("../../fixtures/peft/llama/adapters/qv_r4/adapter_model.safetensors");

static SHAPE: LazyLock<BaseShape> =
    LazyLock::new(|| BaseShape::new(&Config::from_hf_json(BASE).expect("the fixture is valid")));

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    fs::write(folder.path().join("adapter_model.safetensors"), WEIGHTS).expect("room for a small file");
    folder
});

fuzz_target!(|bytes: &[u8]| {
    if parse_config(bytes).is_err() {
        return;
    }
    fs::write(FOLDER.path().join("adapter_config.json"), bytes).expect("room for a small file");
    if let Ok(adapter) = read_for(FOLDER.path(), &SHAPE) {
        assert!(!adapter.weights.linears.is_empty());
    }
});

//! What the self test detects: adapters with and without an effect, and adapters that contradict
//! their own reference.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use multigraft_adapters::{
    LoadError, Lookup, OnFailure, Packer, Registry, RegistryOptions, SelfTest, Source,
};
use multigraft_cpu::{CpuBase, LoadOptions};
use multigraft_model::{AdapterDtype, Base, Precision, Throttle};
use multigraft_peft::{AdapterInfo, Agreement, BaseShape};
use multigraft_sources::Reference;
use multigraft_weights::safetensors::Checkpoint;

fn fixture() -> PathBuf {
    multigraft_testing::fixtures().join("peft").join("llama")
}

fn registry(on_failure: OnFailure) -> Registry {
    let options = LoadOptions {
        threads: 1,
        precision: Precision::Exact,
        progress: None,
    };
    let base: Arc<dyn Base> = Arc::new(CpuBase::open(&fixture().join("model"), &options).unwrap());
    let shape = BaseShape::new(base.config());
    let mut packer = Packer::new(Arc::clone(&base), shape, AdapterDtype::F32);
    let encode = Box::new(|text: &str| Err(format!("no tokenizer for {text}")));
    packer.self_test = Some(SelfTest::new(base, encode, on_failure, Throttle::NONE).unwrap());
    Registry::open("base", packer, RegistryOptions::default()).unwrap()
}

fn load(registry: &Registry, folder: &Path) -> Result<AdapterInfo, LoadError> {
    let name = folder.display().to_string();
    let at = Reference::Folder(folder.to_owned());
    registry
        .register(Source {
            name: name.clone(),
            at,
        })
        .unwrap();
    match registry.get(&name) {
        Lookup::Loading(waiting) => waiting.block().map(|entry| (*entry.info).clone()),
        other => panic!("{other:?}"),
    }
}

/// Copies an adapter of the fixture and applies `change` to the bytes of its tensors.
fn copy(to: &Path, kind: &str, change: impl Fn(&mut [u8])) {
    let from = fixture().join("adapters").join(kind);
    fs::create_dir_all(to).unwrap();
    fs::copy(from.join("adapter_config.json"), to.join("adapter_config.json")).unwrap();
    let mut bytes = fs::read(from.join("adapter_model.safetensors")).unwrap();
    let header = usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
    change(&mut bytes[8 + header..]);
    fs::write(to.join("adapter_model.safetensors"), bytes).unwrap();
}

fn kinds() -> Vec<String> {
    let kinds = fs::read_dir(fixture().join("adapters")).unwrap();
    let mut kinds: Vec<String> = kinds
        .map(|kind| kind.unwrap().file_name().into_string().unwrap())
        .collect();
    kinds.sort();
    kinds
}

#[test]
fn every_kind_of_adapter_is_found_to_do_something() {
    let registry = registry(OnFailure::Refuse);
    for kind in kinds() {
        let info = load(&registry, &fixture().join("adapters").join(&kind)).unwrap();
        let effect = info.effect.unwrap();
        assert!(effect.moved > 1e-4 && effect.moved < 10.0, "{kind}: {effect:?}");
        assert!(effect.positions >= 8 && effect.changed <= effect.positions);
    }
}

#[test]
fn an_adapter_that_changes_nothing_is_warned_of_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    copy(dir.path(), "all_r8", |tensors| tensors.fill(0));
    let info = load(&registry(OnFailure::Warn), dir.path()).unwrap();
    assert_eq!(info.effect.unwrap().moved, 0.0);
    let warned = info
        .warnings
        .iter()
        .any(|warning| warning.contains("self test moved no logit"));
    assert!(warned, "{:?}", info.warnings);
    let error = load(&registry(OnFailure::Refuse), dir.path())
        .unwrap_err()
        .to_string();
    assert!(error.contains("self test moved no logit"), "{error}");
}

#[test]
fn an_adapter_whose_effect_is_beyond_what_floats_hold_is_never_served() {
    let dir = tempfile::tempdir().unwrap();
    copy(dir.path(), "all_r8", |_| ());
    let config = dir.path().join("adapter_config.json");
    let mut changed: serde_json::Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    changed["lora_alpha"] = 1e38.into();
    fs::write(&config, changed.to_string()).unwrap();
    let error = load(&registry(OnFailure::Warn), dir.path())
        .unwrap_err()
        .to_string();
    assert!(error.contains("not finite"), "{error}");
}

#[test]
fn an_adapter_is_held_to_the_reference_that_it_brings() {
    let reference = Checkpoint::open_file(&fixture().join("reference.safetensors")).unwrap();
    let ids = |name: &str| reference.i64s(name).unwrap();
    let (prompt, greedy) = (ids("prompt.0"), ids("all_r8.0.greedy"));
    let with = |expected: &[i64]| {
        let dir = tempfile::tempdir().unwrap();
        copy(dir.path(), "all_r8", |_| ());
        let text = format!(r#"{{"prompt": {prompt:?}, "expected_tokens": {expected:?}}}"#);
        fs::write(dir.path().join("reference.json"), text).unwrap();
        load(&registry(OnFailure::Refuse), dir.path())
    };
    let of = greedy.len();
    let agreement = with(&greedy).unwrap().effect.unwrap().reference;
    assert_eq!(agreement, Some(Agreement { agree: of, of }));
    let mut wrong = greedy.clone();
    wrong[of - 1] = (wrong[of - 1] + 1) % 8;
    let error = with(&wrong).unwrap_err().to_string();
    assert!(
        error.contains(&format!("{} of the {of} tokens", of - 1)),
        "{error}"
    );
    // An unusable reference is a warning, unless failures refuse adapters.
    let dir = tempfile::tempdir().unwrap();
    copy(dir.path(), "all_r8", |_| ());
    fs::write(dir.path().join("reference.json"), r#"{"references": []}"#).unwrap();
    let info = load(&registry(OnFailure::Warn), dir.path()).unwrap();
    assert!(
        info.warnings
            .iter()
            .any(|warning| warning.contains("cannot be used")),
        "{:?}",
        info.warnings
    );
    for (bad, reason) in [
        (vec![], "at least"),
        (vec![1 << 40], "reference.json"),
        (vec![9_999_999], "no token"),
    ] {
        let error = with(&bad).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

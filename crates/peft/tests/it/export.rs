//! Adapters that are exported and read back.

use std::fs;
use std::path::{Path, PathBuf};

use multigraft_model::{LowRank, ModelFiles};
use multigraft_peft::{AdapterFile, Form, export, read};
use multigraft_weights::gguf::Gguf;
use tempfile::tempdir;

fn fixture(path: &str) -> PathBuf {
    multigraft_testing::fixtures().join(path)
}

fn open(base: &Path, adapter: &Path) -> AdapterFile {
    let config = ModelFiles::open(base).unwrap().config().unwrap();
    read(adapter, &config).unwrap_or_else(|error| panic!("{error}"))
}

/// The adapters of some models, each with its base.
fn adapters(set: &str) -> Vec<(PathBuf, PathBuf)> {
    let mut found = Vec::new();
    for model in fs::read_dir(fixture(set)).unwrap() {
        let model = model.unwrap().path();
        for adapter in fs::read_dir(model.join("adapters")).unwrap() {
            found.push((model.join("model"), adapter.unwrap().path()));
        }
    }
    found.sort();
    found
}

#[test]
fn what_is_written_for_peft_is_what_is_served_to_the_bit() {
    let dir = tempdir().unwrap();
    let sets = ["peft", "peft_extra", "relatives"].into_iter().flat_map(adapters);
    let mut written = 0;
    for (base, path) in sets {
        let out = dir.path().join(written.to_string());
        let adapter = open(&base, &path);
        match export(&adapter, &base, Form::Peft, &out) {
            Ok(()) => {}
            Err(error) if error.to_string().contains("IA³") && path.to_string_lossy().contains("ia3") => {
                continue;
            }
            Err(error) => panic!("{}: {error}", path.display()),
        }
        let again = open(&base, &out);
        assert_eq!(
            again.weights.linears,
            adapter.weights.linears,
            "{}",
            path.display()
        );
        assert_eq!(
            again.weights.embedding,
            adapter.weights.embedding,
            "{}",
            path.display()
        );
        written += 1;
    }
    assert!(written > 200, "only {written} were written");
}

fn updates(adapter: &AdapterFile) -> Vec<&LowRank> {
    let linears = adapter
        .weights
        .linears
        .iter()
        .filter_map(|(_, delta)| delta.low_rank.as_ref());
    linears
        .chain(
            adapter
                .weights
                .embedding
                .iter()
                .filter_map(|delta| delta.low_rank.as_ref()),
        )
        .collect()
}

#[test]
fn what_is_written_for_llama_cpp_is_what_its_converter_writes() {
    let dir = tempdir().unwrap();
    for entry in fs::read_dir(fixture("gguf_adapters")).unwrap() {
        let folder = entry.unwrap().path();
        let architecture = folder.file_name().unwrap().to_str().unwrap();
        let model = fixture("peft").join(architecture);
        for file in fs::read_dir(&folder).unwrap() {
            let file = file.unwrap().path();
            let name = file.file_name().unwrap().to_str().unwrap();
            let (kind, storage) = name.split_once('.').unwrap();
            if !matches!(storage, "f32.gguf" | "bf16.gguf") {
                continue;
            }
            let out = dir.path().join(format!("{architecture}.{name}"));
            let adapter = open(&model.join("model"), &model.join("adapters").join(kind));
            export(&adapter, &model.join("model"), Form::Gguf, &out).unwrap();
            let (ours, theirs) = (Gguf::open(&out).unwrap(), Gguf::open(&file).unwrap());
            assert_eq!(ours.tensors().count(), theirs.tensors().count(), "{name}");
            for tensor in theirs.tensors() {
                let mine = ours.require(tensor.name).unwrap();
                assert_eq!(
                    (mine.shape, mine.to_f32()),
                    (tensor.shape, tensor.to_f32()),
                    "{architecture} {name} {}",
                    tensor.name
                );
            }
            for key in ["general.architecture", "general.type", "adapter.type"] {
                assert_eq!(ours.metadata().str(key), theirs.metadata().str(key), "{key}");
            }
            assert_eq!(
                ours.metadata().f32("adapter.lora.alpha"),
                theirs.metadata().f32("adapter.lora.alpha")
            );
        }
    }
}

#[test]
fn updates_of_several_scalings_keep_them_under_one_alpha() {
    let dir = tempdir().unwrap();
    for kind in ["patterns", "rslora_r16"] {
        let (base, path) = (
            fixture("peft/llama/model"),
            fixture("peft/llama/adapters").join(kind),
        );
        let adapter = open(&base, &path);
        let out = dir.path().join(format!("{kind}.gguf"));
        export(&adapter, &base, Form::Gguf, &out).unwrap();
        let again = open(&base, &out);
        for (one, other) in updates(&adapter).into_iter().zip(updates(&again)) {
            assert_eq!(one.a, other.a);
            for (one_b, other_b) in one.b.values.iter().zip(&other.b.values) {
                let (one, other) = (one_b * one.scaling, other_b * other.scaling);
                assert!((one - other).abs() <= 1e-6 * one.abs(), "{one} {other}");
            }
        }
    }
}

#[test]
fn an_adapter_in_one_form_is_written_in_the_other() {
    let dir = tempdir().unwrap();
    let base = fixture("peft/llama/model");
    let adapter = open(&base, &fixture("gguf_adapters/llama/all_r8.bf16.gguf"));
    let peft = dir.path().join("peft");
    // A GGUF base works too, because only its shapes matter.
    export(&adapter, &fixture("gguf/llama.gguf"), Form::Peft, &peft).unwrap();
    let original = open(&base, &fixture("peft/llama/adapters/all_r8"));
    assert_eq!(open(&base, &peft).weights.linears, original.weights.linears);
    let loha = open(
        &fixture("relatives/llama/model"),
        &fixture("relatives/llama/adapters/loha"),
    );
    let out = dir.path().join("loha.gguf");
    export(&loha, &fixture("relatives/llama/model"), Form::Gguf, &out).unwrap();
    assert_eq!(
        open(&fixture("relatives/llama/model"), &out).weights.linears,
        loha.weights.linears
    );
}

#[test]
fn nothing_is_overwritten_and_nothing_half_written_is_left() {
    let dir = tempdir().unwrap();
    let base = fixture("peft/llama/model");
    let out = dir.path().join("out");
    let adapter = open(&base, &fixture("peft/llama/adapters/dora"));
    let error = export(&adapter, &base, Form::Gguf, &out).unwrap_err().to_string();
    assert!(error.contains("DoRA's magnitude on model.layers.0"), "{error}");
    let lora_bias = open(&base, &fixture("peft/llama/adapters/lora_bias"));
    let error = export(&lora_bias, &base, Form::Merged, &out)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("adds a bias to model.layers.0.self_attn.q_proj"),
        "{error}"
    );
    let error = export(&lora_bias, &fixture("gguf/llama.gguf"), Form::Merged, &out)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("adds a bias to model.layers.0.self_attn.q_proj"),
        "{error}"
    );
    let (small, ia3) = (
        fixture("relatives/qwen2/model"),
        fixture("relatives/qwen2/adapters/ia3"),
    );
    let ia3 = open(&small, &ia3);
    for form in [Form::Peft, Form::Gguf] {
        assert!(
            export(&ia3, &small, form, &out)
                .unwrap_err()
                .to_string()
                .contains("IA³")
        );
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    for form in [Form::Peft, Form::Gguf, Form::Merged] {
        fs::write(&out, "mine").unwrap();
        let error = export(&adapter, &base, form, &out).unwrap_err().to_string();
        assert!(error.contains("there already"), "{error}");
        assert_eq!(fs::read_to_string(&out).unwrap(), "mine");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_merged_model_brings_the_files_of_its_base() {
    let dir = tempdir().unwrap();
    let base = dir.path().join("base");
    fs::create_dir(&base).unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(fixture("peft/qwen2/model").join(name), base.join(name)).unwrap();
    }
    for name in [
        "tokenizer.json",
        "chat_template.jinja",
        "adapter_config.json",
        "pytorch_model.bin",
    ] {
        fs::write(base.join(name), name).unwrap();
    }
    let out = dir.path().join("out");
    let adapter = open(&base, &fixture("peft/qwen2/adapters/tokens"));
    export(&adapter, &base, Form::Merged, &out).unwrap();
    let mut names: Vec<_> = fs::read_dir(&out)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "chat_template.jinja",
            "config.json",
            "model.safetensors",
            "tokenizer.json"
        ]
    );
}

#[test]
fn what_sets_in_within_a_sequence_stays_so_for_peft_and_is_refused_elsewhere() {
    let dir = tempdir().unwrap();
    let base = fixture("peft/llama/model");
    let adapter = open(&base, &fixture("peft_activated/adapters/activated"));
    let to = |form, name: &str| export(&adapter, &base, form, &dir.path().join(name));
    to(Form::Peft, "peft").unwrap();
    let read = open(&base, &dir.path().join("peft"));
    assert!(!read.weights.invocation.is_empty());
    assert_eq!(read.weights.invocation, adapter.weights.invocation);
    for form in [Form::Gguf, Form::Merged] {
        let error = to(form, "other").unwrap_err().to_string();
        assert!(error.contains("alora_invocation_tokens"), "{error}");
        assert!(!dir.path().join("other").exists());
    }
}

#[test]
fn a_chat_template_is_written_along() {
    let dir = tempdir().unwrap();
    let base = dir.path().join("base");
    let source = dir.path().join("adapter");
    for (from, to) in [("model", &base), ("adapters/tokens", &source)] {
        fs::create_dir(to).unwrap();
        for entry in fs::read_dir(fixture("peft/qwen2").join(from)).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
    fs::write(base.join("chat_template.jinja"), "the base's").unwrap();
    let named = r#"{"chat_template": [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]}"#;
    fs::write(source.join("tokenizer_config.json"), named).unwrap();
    let adapter = open(&base, &source);
    let to = |form, name: &str| {
        let out = dir.path().join(name);
        export(&adapter, &base, form, &out).unwrap();
        out
    };
    let again = open(&base, &to(Form::Peft, "peft"));
    assert_eq!(again.info.chat_template.as_deref(), Some("tokenizer_config.json"));
    let merged = to(Form::Merged, "merged");
    let text = |name: &str| fs::read_to_string(merged.join(name)).unwrap();
    assert_eq!(text("chat_template.jinja"), "plain");
    assert_eq!(text("additional_chat_templates/tool_use.jinja"), "tools");
}

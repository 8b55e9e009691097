//! Adapters written by llama.cpp's converter, compared with the PEFT folders that they were
//! converted from.

use std::fs;
use std::path::{Path, PathBuf};

use multigraft_model::{AdapterWeights, Config, LinearId, LowRank, ModelFiles};
use multigraft_peft::{is_adapter, read};
use multigraft_weights::gguf::Gguf;
use tempfile::tempdir;

fn peft(path: &str) -> PathBuf {
    multigraft_testing::fixtures().join("peft").join(path)
}

fn gguf(path: &str) -> PathBuf {
    multigraft_testing::fixtures().join("gguf_adapters").join(path)
}

fn config(architecture: &str) -> Config {
    ModelFiles::open(&peft(architecture).join("model"))
        .unwrap()
        .config()
        .unwrap()
}

/// All low-rank updates; the embedding's is last and has no id.
fn updates(weights: &AdapterWeights) -> Vec<(Option<LinearId>, &LowRank)> {
    let linears = weights.linears.iter();
    let linears = linears.filter_map(|(id, delta)| Some((Some(*id), delta.low_rank.as_ref()?)));
    let embedding = weights
        .embedding
        .as_ref()
        .and_then(|delta| delta.low_rank.as_ref());
    linears.chain(embedding.map(|update| (None, update))).collect()
}

/// Compares an adapter saved by PEFT with its conversion: all values must agree within `tolerance`
/// of the largest.
fn agree(architecture: &str, kind: &str, storage: &str, tolerance: f32) {
    let config = config(architecture);
    let ours = read(&gguf(&format!("{architecture}/{kind}.{storage}.gguf")), &config).unwrap();
    let theirs = read(&peft(&format!("{architecture}/adapters/{kind}")), &config).unwrap();
    let (ours, theirs) = (updates(&ours.weights), updates(&theirs.weights));
    assert_eq!(ours.len(), theirs.len());
    for ((id, ours), (their_id, theirs)) in ours.into_iter().zip(theirs) {
        assert_eq!(id, their_id);
        assert_eq!(
            ours.scaling.to_bits(),
            theirs.scaling.to_bits(),
            "{architecture} {kind} {id:?}"
        );
        for (ours, theirs) in [(&ours.a, &theirs.a), (&ours.b, &theirs.b)] {
            assert_eq!(
                (ours.rows, ours.cols),
                (theirs.rows, theirs.cols),
                "{architecture} {kind} {id:?}"
            );
            let largest = theirs
                .values
                .iter()
                .fold(0f32, |largest, value| largest.max(value.abs()));
            for (ours, theirs) in ours.values.iter().zip(&theirs.values) {
                assert!(
                    (ours - theirs).abs() <= tolerance * largest,
                    "{architecture} {kind} {id:?}"
                );
            }
        }
    }
}

#[test]
fn every_architecture_reads_what_the_converter_wrote_to_the_bit() {
    let folders = fs::read_dir(gguf("")).unwrap();
    let names: Vec<String> = folders
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names.len(), 13);
    for architecture in names {
        agree(&architecture, "qv_r4", "f32", 0.0);
    }
    agree("llama", "all_r8", "bf16", 0.0);
    agree("qwen2", "all_r8", "bf16", 0.0);
    agree("llama", "head_embed", "f32", 0.0);
}

#[test]
fn smaller_storage_types_differ_by_their_rounding_alone() {
    agree("llama", "qv_r4", "f16", 1.0 / 2048.0);
    agree("qwen2", "qv_r4", "f16", 1.0 / 2048.0);
    agree("llama", "all_r48", "q8_0", 1.0 / 250.0);
}

#[test]
fn a_base_from_gguf_reads_the_same_as_one_from_safetensors() {
    for architecture in ["llama", "qwen2", "granite", "phi3"] {
        let base = multigraft_testing::fixtures().join(format!("gguf/{architecture}.gguf"));
        let from_gguf = ModelFiles::open(&base).unwrap().config().unwrap();
        let path = gguf(&format!("{architecture}/qv_r4.f32.gguf"));
        let (one, other) = (
            read(&path, &from_gguf).unwrap(),
            read(&path, &config(architecture)).unwrap(),
        );
        assert_eq!(one.weights.linears, other.weights.linears, "{architecture}");
    }
}

/// A copy of an adapter whose bytes `change` has edited.
fn changed(folder: &Path, from: &str, change: impl FnOnce(&mut Vec<u8>)) -> PathBuf {
    let mut bytes = fs::read(gguf(from)).unwrap();
    change(&mut bytes);
    let path = folder.join("changed.gguf");
    fs::write(&path, bytes).unwrap();
    path
}

/// Replaces bytes with as many other bytes, everywhere.
fn replace(bytes: &mut [u8], from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let places: Vec<usize> = (0..bytes.len() - from.len())
        .filter(|&at| bytes[at..].starts_with(from.as_bytes()))
        .collect();
    assert!(!places.is_empty(), "{from}");
    for at in places {
        bytes[at..][..to.len()].copy_from_slice(to.as_bytes());
    }
}

#[test]
fn what_cannot_be_applied_is_refused_by_name() {
    let dir = tempdir().unwrap();
    let config = config("llama");
    let cases: [(&str, &str, &[&str]); 8] = [
        ("lora", "dora", &["adapter.type", "`dora`", "`lora`"]),
        (
            "adapter.lora.alpha",
            "adapter.lora.alphX",
            &["adapter.lora.alphX", "does not know"],
        ),
        (
            "adapter.lora.alpha",
            "adapter.alora.toks",
            &["adapter.alora.toks", "aLoRA"],
        ),
        (
            "general.architecture",
            "general.architectuXe",
            &["no general.architecture"],
        ),
        (
            "blk.0.attn_q.weight.lora_a",
            "blk.0.attn_q.weight.lora_c",
            &["blk.0.attn_q.weight.lora_c"],
        ),
        (
            "blk.3.attn_q.weight.lora_a",
            "blk.9.attn_q.weight.lora_a",
            &["blk.9.attn_q.weight.lora_a", "no module"],
        ),
        (
            "blk.0.attn_q.weight.lora_a",
            "blk.0.attn_k.weight.lora_a",
            &["q_proj", "no lora_A"],
        ),
        (
            "blk.0.attn_q",
            "blk.0.attn_k",
            &["blk.0.attn_k.weight.lora_b", "[16, 4]"],
        ),
    ];
    for (from, to, words) in cases {
        let path = changed(dir.path(), "llama/qv_r4.f32.gguf", |bytes| match from {
            // Only the value of `adapter.type`.
            "lora" => replace(bytes, "\u{4}\0\0\0\0\0\0\0lora", "\u{4}\0\0\0\0\0\0\0dora"),
            _ => replace(bytes, from, to),
        });
        let error = read(&path, &config).unwrap_err().to_string();
        assert!(
            words.iter().all(|word| error.contains(word)),
            "{from} → {to}: {error}"
        );
        assert!(error.contains("changed.gguf"), "{error}");
    }
    let error = read(&gguf("qwen2/qv_r4.f32.gguf"), &config)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("architecture `qwen2`") && error.contains("base is `llama`"),
        "{error}"
    );
    let model = multigraft_testing::fixtures().join("gguf/llama.gguf");
    let error = read(&model, &config).unwrap_err().to_string();
    assert!(error.contains("general.type is `model`"), "{error}");
    assert!(!is_adapter(&model) && is_adapter(&gguf("llama/qv_r4.f32.gguf")));
}

#[test]
fn the_hash_is_of_the_contents_and_not_of_the_name_or_place() {
    let dir = tempdir().unwrap();
    let config = config("llama");
    let original = read(&gguf("llama/qv_r4.f32.gguf"), &config).unwrap().weights.hash;
    let copy = changed(dir.path(), "llama/qv_r4.f32.gguf", |_| {});
    assert_eq!(read(&copy, &config).unwrap().weights.hash, original);
    assert_eq!(
        read(dir.path(), &config).unwrap().weights.hash,
        original,
        "the folder with it alone"
    );
    let last = changed(dir.path(), "llama/qv_r4.f32.gguf", |bytes| {
        *bytes.last_mut().unwrap() ^= 1
    });
    assert_ne!(read(&last, &config).unwrap().weights.hash, original);
    fs::copy(&last, dir.path().join("second.gguf")).unwrap();
    let error = read(dir.path(), &config).unwrap_err().to_string();
    assert!(
        error.contains("second.gguf") && error.contains("name one"),
        "{error}"
    );
}

#[test]
fn every_truncation_is_refused() {
    let dir = tempdir().unwrap();
    let config = config("llama");
    let whole = fs::read(gguf("llama/qv_r4.f32.gguf")).unwrap();
    // The header in steps of one byte, the data in larger steps.
    let header = whole.len()
        - Gguf::open(&gguf("llama/qv_r4.f32.gguf"))
            .unwrap()
            .tensors()
            .map(|t| t.bytes.len())
            .sum::<usize>();
    for len in (0..header).chain((header..whole.len()).step_by(97)) {
        let path = changed(dir.path(), "llama/qv_r4.f32.gguf", |bytes| bytes.truncate(len));
        assert!(read(&path, &config).is_err(), "{len} bytes");
    }
}

/// A flipped bit causes an error or another hash, never a panic.
#[test]
fn no_flipped_bit_keeps_the_hash() {
    let dir = tempdir().unwrap();
    let config = config("llama");
    let from = "llama/qv_r4.f16.gguf";
    let hash = read(&gguf(from), &config).unwrap().weights.hash;
    let bits = 8 * fs::metadata(gguf(from)).unwrap().len() as usize;
    for bit in (0..bits).step_by(23) {
        let path = changed(dir.path(), from, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        if let Ok(file) = read(&path, &config) {
            assert_ne!(file.weights.hash, hash, "bit {bit}");
        }
    }
}

#[test]
fn a_chat_template_beside_the_file_is_the_folders_not_the_files() {
    let dir = tempdir().unwrap();
    let file = dir.path().join("adapter.gguf");
    fs::copy(gguf("llama/all_r8.bf16.gguf"), &file).unwrap();
    fs::write(dir.path().join("chat_template.jinja"), "mine").unwrap();
    let config = config("llama");
    let (folder, alone) = (read(dir.path(), &config).unwrap(), read(&file, &config).unwrap());
    assert_eq!(folder.template.unwrap().file, "chat_template.jinja");
    assert!(alone.template.is_none());
    assert_ne!(folder.info.hash, alone.info.hash);
}

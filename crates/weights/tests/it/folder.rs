//! Which files of a folder make a checkpoint.

use std::fs;
use std::path::Path;

use crate::builders::safetensors;
use multigraft_weights::safetensors::Checkpoint;
use multigraft_weights::{Fault, WeightsError};
use tempfile::TempDir;

/// A safetensors file of one-element F32 tensors, all of this value.
fn file_of(names: &[&str], value: f32) -> Vec<u8> {
    let entries: Vec<String> = names
        .iter()
        .enumerate()
        .map(|(i, name)| {
            format!(
                r#""{name}":{{"dtype":"F32","shape":[1],"data_offsets":[{},{}]}}"#,
                4 * i,
                4 * i + 4
            )
        })
        .collect();
    safetensors(
        &format!("{{{}}}", entries.join(",")),
        &value.to_le_bytes().repeat(names.len()),
    )
}

fn folder_of(files: &[(&str, Vec<u8>)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

fn index_of(pairs: &[(&str, &str)]) -> (&'static str, Vec<u8>) {
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(tensor, file)| format!(r#""{tensor}":{file:?}"#))
        .collect();
    let json = format!(
        r#"{{"metadata":{{"total_size":8}},"weight_map":{{{}}}}}"#,
        pairs.join(",")
    );
    ("model.safetensors.index.json", json.into_bytes())
}

fn open(folder: &TempDir) -> Result<Checkpoint, WeightsError> {
    Checkpoint::open_folder(folder.path())
}

fn names(checkpoint: &Checkpoint) -> Vec<&str> {
    checkpoint.tensors().map(|t| t.name).collect()
}

#[test]
fn the_single_file_comes_before_the_index_before_any_other() {
    let folder = folder_of(&[
        ("extra.safetensors", file_of(&["extra"], 3.0)),
        ("s1.safetensors", file_of(&["a"], 2.0)),
        index_of(&[("a", "s1.safetensors")]),
        ("model.safetensors", file_of(&["single"], 1.0)),
    ]);
    assert_eq!(names(&open(&folder).unwrap()), ["single"]);
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    assert_eq!(names(&open(&folder).unwrap()), ["a"]);
    fs::remove_file(folder.path().join("model.safetensors.index.json")).unwrap();
    assert_eq!(names(&open(&folder).unwrap()), ["extra", "a"]);
}

#[test]
fn shards_are_joined_as_the_index_says() {
    let folder = folder_of(&[
        ("s1.safetensors", file_of(&["a", "both", "unlisted"], 1.0)),
        ("s2.safetensors", file_of(&["b", "both"], 2.0)),
        index_of(&[
            ("a", "s1.safetensors"),
            ("b", "s2.safetensors"),
            ("both", "s2.safetensors"),
        ]),
    ]);
    let checkpoint = open(&folder).unwrap();
    assert_eq!(names(&checkpoint), ["a", "b", "both"]);
    assert_eq!(checkpoint.tensor("both").unwrap().to_f32(), [2.0]);
}

#[test]
fn an_index_cannot_lead_out_of_its_folder() {
    let outside = folder_of(&[("s.safetensors", file_of(&["a"], 1.0))]);
    let absolute = outside.path().join("s.safetensors");
    for shard in [
        absolute.to_str().unwrap(),
        "../s.safetensors",
        "..",
        "sub/s.safetensors",
        "sub\\s.safetensors",
        "C:s.safetensors",
        "./s.safetensors",
        "..safetensors",
        "s.bin",
        "",
    ] {
        let folder = folder_of(&[index_of(&[("a", shard)])]);
        match open(&folder) {
            Err(WeightsError::Invalid {
                fault: Fault::BadShardName { tensor, shard: named },
                ..
            }) => {
                assert_eq!((tensor.as_str(), named.as_str()), ("a", shard));
            }
            other => panic!("{shard}: {other:?}"),
        }
    }
}

#[test]
fn a_missing_shard_and_a_missing_tensor_are_named() {
    let folder = folder_of(&[
        ("s1.safetensors", file_of(&["a"], 1.0)),
        index_of(&[("a", "s1.safetensors"), ("b", "s2.safetensors")]),
    ]);
    match open(&folder).unwrap_err() {
        WeightsError::MissingShard { shard, tensor, .. } => {
            assert_eq!(
                (shard, tensor.as_str()),
                (folder.path().join("s2.safetensors"), "b")
            );
        }
        other => panic!("{other:?}"),
    }
    fs::write(folder.path().join("s2.safetensors"), file_of(&["c"], 1.0)).unwrap();
    match open(&folder).unwrap_err() {
        WeightsError::Invalid { path, fault } => {
            assert_eq!(
                (path, fault),
                (
                    folder.path().join("s2.safetensors"),
                    Fault::MissingFromShard("b".into())
                )
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_broken_index_or_shard_is_named() {
    let index_fault = |json: &str| {
        let folder = folder_of(&[("model.safetensors.index.json", json.into())]);
        match open(&folder).unwrap_err() {
            WeightsError::Invalid { path, fault } if path.ends_with("model.safetensors.index.json") => fault,
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(index_fault("{"), Fault::BadJson { .. }));
    assert!(matches!(index_fault("{}"), Fault::BadJson { .. }));
    assert!(matches!(
        index_fault(r#"{"weight_map":{"a":1}}"#),
        Fault::BadJson { .. }
    ));
    assert_eq!(index_fault(r#"{"weight_map":{}}"#), Fault::EmptyIndex);
    assert_eq!(index_fault(""), Fault::Empty);

    let mut short = file_of(&["a"], 1.0);
    short.pop();
    let folder = folder_of(&[("model.safetensors", short)]);
    let message = open(&folder).unwrap_err().to_string();
    assert!(
        message.contains("model.safetensors") && message.contains("truncated"),
        "{message}"
    );
}

#[test]
fn two_files_cannot_hold_the_same_tensor() {
    let folder = folder_of(&[
        ("x.safetensors", file_of(&["a"], 1.0)),
        ("y.safetensors", file_of(&["a"], 2.0)),
    ]);
    match open(&folder).unwrap_err() {
        WeightsError::Invalid { path, fault } => {
            assert_eq!(
                (path, fault),
                (
                    folder.path().join("y.safetensors"),
                    Fault::DuplicateTensor("a".into())
                )
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn pickled_files_are_refused_by_name() {
    for name in ["pytorch_model.bin", "adapter_model.bin", "consolidated.00.pth"] {
        let folder = folder_of(&[("a_training_args.bin", vec![0]), (name, vec![0])]);
        let error = open(&folder).unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, WeightsError::Pickled { .. }), "{message}");
        assert!(message.contains("convert it to safetensors"), "{message}");
        if name.contains("model") {
            assert!(message.contains(name), "{message}");
        }
    }
}

#[test]
fn a_folder_without_weights_says_what_was_looked_for() {
    let folder = folder_of(&[("config.json", b"{}".to_vec())]);
    let message = open(&folder).unwrap_err().to_string();
    assert!(
        message.contains("model.safetensors.index.json") && !message.contains("GGUF"),
        "{message}"
    );
    fs::write(folder.path().join("tiny.gguf"), [0]).unwrap();
    let message = open(&folder).unwrap_err().to_string();
    assert!(
        message.contains("give the file itself") && message.contains("tiny.gguf"),
        "{message}"
    );
    assert!(matches!(
        Checkpoint::open_folder(Path::new("/nonexistent")),
        Err(WeightsError::Read { .. })
    ));
}

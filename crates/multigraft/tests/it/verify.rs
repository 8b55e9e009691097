//! `multigraft verify` as its users run it, on the reference numbers of transformers and PEFT.

use std::{collections::BTreeMap, fs, path::Path};

use crate::program::{Output, run};
use multigraft_testing::fixtures;
use multigraft_weights::safetensors::Checkpoint;
use serde_json::Value;

fn verify(base: &Path, adapters: &Path, reference: &Path, flags: &[&str]) -> Output {
    let mut arguments = vec!["verify", "--threads", "2", "--base"];
    let paths = [base, adapters, reference].map(|path| path.to_str().expect("UTF-8"));
    arguments.extend([paths[0], "--adapters", paths[1], "--reference", paths[2]]);
    arguments.extend(flags);
    run(&arguments)
}

/// The status of each adapter in the JSON report.
fn statuses(output: &Output) -> BTreeMap<String, String> {
    let report: Value = serde_json::from_str(&output.stdout).expect("JSON");
    let results = report["results"].as_array().expect("results");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    results
        .iter()
        .map(|row| (text(&row["name"]), text(&row["status"])))
        .collect()
}

#[test]
fn every_kind_of_adapter_on_every_architecture_agrees_with_peft() {
    let mut architectures = 0;
    for entry in fs::read_dir(fixtures().join("peft")).expect("the fixtures") {
        let folder = entry.expect("an entry").path();
        if !folder.is_dir() {
            continue;
        }
        architectures += 1;
        let output = verify(
            &folder.join("model"),
            &folder.join("adapters"),
            &folder.join("reference.safetensors"),
            &["--json"],
        );
        assert_eq!(output.status, 0, "{folder:?}: {}{}", output.stdout, output.stderr);
        let statuses = statuses(&output);
        assert_eq!(statuses["base"], "agrees");
        let kinds = fs::read_to_string(folder.join("kinds.json")).expect("kinds.json");
        let kinds: BTreeMap<String, Value> = serde_json::from_str(&kinds).expect("JSON");
        // A kind that PEFT itself refused is described by a sentence.
        for (kind, _) in kinds.iter().filter(|(_, config)| config.is_object()) {
            assert_eq!(
                statuses.get(kind).map(String::as_str),
                Some("agrees"),
                "{folder:?} {kind}"
            );
        }
    }
    assert_eq!(architectures, 13);
}

/// A copy of the llama fixture's reference with one tensor's bytes changed.
fn damaged(folder: &Path, tensor: &str, change: impl FnOnce(&mut [u8])) -> std::path::PathBuf {
    let original = fixtures().join("peft/llama/reference.safetensors");
    let mut bytes = fs::read(&original).expect("the reference");
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes"));
    let begin = 8 + usize::try_from(length).expect("small");
    let header: Value = serde_json::from_slice(&bytes[8..begin]).expect("JSON");
    let offsets = header[tensor]["data_offsets"].as_array().expect("the tensor");
    let [from, to] =
        [0, 1].map(|end| begin + usize::try_from(offsets[end].as_u64().expect("an offset")).expect("small"));
    change(&mut bytes[from..to]);
    let path = folder.join("reference.safetensors");
    fs::write(&path, bytes).expect("written");
    assert!(Checkpoint::open_file(&path).is_ok());
    path
}

fn verify_llama(reference: &Path, flags: &[&str]) -> Output {
    let llama = fixtures().join("peft/llama");
    verify(&llama.join("model"), &llama.join("adapters"), reference, flags)
}

#[test]
fn a_deviation_is_status_1_and_names_the_adapter() {
    let folder = tempfile::tempdir().expect("a folder");
    let logits = damaged(folder.path(), "dora.1.logits", |bytes| bytes[3] ^= 0x40);
    let output = verify_llama(&logits, &[]);
    assert_eq!(output.status, 1);
    assert!(
        output.stdout.contains("dora: logits deviate"),
        "{}",
        output.stdout
    );
    assert!(
        output.stdout.contains("1 of 13 do not agree"),
        "{}",
        output.stdout
    );

    let greedy = damaged(folder.path(), "qv_r4.2.greedy", |bytes| bytes[0] ^= 1);
    let output = verify_llama(&greedy, &[]);
    assert_eq!(output.status, 1);
    assert!(
        output.stdout.contains("qv_r4: greedy tokens differ"),
        "{}",
        output.stdout
    );
}

#[test]
fn the_tolerance_can_be_set() {
    let reference = fixtures().join("peft/llama/reference.safetensors");
    assert_eq!(verify_llama(&reference, &["--tolerance", "1e-9"]).status, 1);
    assert_eq!(verify_llama(&reference, &["--tolerance", "1e-3"]).status, 0);
}

#[test]
fn adapters_that_are_not_compared_are_listed() {
    let llama = fixtures().join("peft/llama");
    let folder = tempfile::tempdir().expect("a folder");
    let copy = |from: &str, to: &str| {
        let target = folder.path().join(to);
        fs::create_dir(&target).expect("a folder");
        for file in ["adapter_config.json", "adapter_model.safetensors"] {
            fs::copy(llama.join("adapters").join(from).join(file), target.join(file)).expect("copied");
        }
    };
    copy("qv_r4", "qv_r4");
    copy("dora", "unheard_of");
    fs::create_dir(folder.path().join("empty")).expect("a folder");
    let reference = llama.join("reference.safetensors");
    let output = verify(&llama.join("model"), folder.path(), &reference, &[]);
    assert_eq!(output.status, 0, "{}", output.stderr);
    for sentence in [
        "unheard_of: not compared: the reference has no numbers for it",
        "dora: not compared: the reference has numbers for it, but there is no such folder",
        "empty",
        "all 2 agree",
    ] {
        assert!(output.stdout.contains(sentence), "{sentence}: {}", output.stdout);
    }
}

#[test]
fn an_adapter_that_cannot_be_applied_is_status_1_with_the_reason() {
    let llama = fixtures().join("peft/llama");
    // Another base: the adapters are too wide or too narrow for it.
    let folder = tempfile::tempdir().expect("a folder");
    let broken = folder.path().join("qv_r4");
    fs::create_dir(&broken).expect("a folder");
    fs::copy(
        llama.join("adapters/qv_r4/adapter_config.json"),
        broken.join("adapter_config.json"),
    )
    .expect("copied");
    fs::write(
        broken.join("adapter_model.safetensors"),
        b"not a safetensors file",
    )
    .expect("written");
    let reference = llama.join("reference.safetensors");
    let output = verify(&llama.join("model"), folder.path(), &reference, &[]);
    assert_eq!(output.status, 1, "{}", output.stderr);
    assert!(
        output.stdout.contains("qv_r4: cannot be applied:"),
        "{}",
        output.stdout
    );
}

#[test]
fn bad_input_is_status_2_and_names_the_file() {
    let llama = fixtures().join("peft/llama");
    let reference = llama.join("reference.safetensors");
    let nothing = Path::new("/no/such/thing");
    for (output, name) in [
        (verify_llama(nothing, &[]), "/no/such/thing"),
        (
            verify(nothing, &llama.join("adapters"), &reference, &[]),
            "/no/such/thing",
        ),
        (
            verify(&llama.join("model"), nothing, &reference, &[]),
            "/no/such/thing",
        ),
        (verify_llama(&llama.join("kinds.json"), &[]), "kinds.json"),
        (
            verify_llama(&llama.join("model/model.safetensors"), &[]),
            "prompt.0",
        ),
        (verify_llama(&reference, &["--tolerance=-1"]), "tolerance"),
    ] {
        assert_eq!(output.status, 2, "{}{}", output.stdout, output.stderr);
        assert!(output.stderr.contains(name), "{name}: {}", output.stderr);
    }
}

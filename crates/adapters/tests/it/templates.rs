//! An adapter's chat template belongs to its version, and takes memory.

use std::fs;

use multigraft_adapters::{Entry, RegistryOptions};
use multigraft_text::{ChatInput, ChatTemplate};
use serde_json::{Map, json};

use crate::support::{BYTES, Place};

const JINJA: &str = "chat_template.jinja";
const TOKENIZER: &str = "tokenizer_config.json";

/// What it makes of a conversation.
fn text(template: &ChatTemplate) -> String {
    let input = ChatInput {
        messages: &[json!({"role": "user", "content": "hi"})],
        tools: None,
        add_generation_prompt: true,
        bos: "<s>",
        eos: "</s>",
        extra: &Map::new(),
    };
    template.render(&input).unwrap()
}

fn spoken(entry: &Entry) -> Option<String> {
    entry.template.as_deref().map(text)
}

#[test]
fn a_version_brings_its_own_template_back_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let options = || RegistryOptions {
        data: Some(dir.path().to_owned()),
        ..RegistryOptions::default()
    };
    let place = Place::with(options(), None);
    let folder = place.write("a", 1);
    let plain = place.replace("a", &folder).unwrap();
    assert_eq!(spoken(&plain), None);
    fs::write(folder.join(JINJA), "first").unwrap();
    let first = place.replace("a", &folder).unwrap();
    // The weights are the same, and yet it answers otherwise.
    assert_ne!(first.hash, plain.hash);
    fs::remove_file(folder.join(JINJA)).unwrap();
    fs::write(
        folder.join(TOKENIZER),
        json!({"chat_template": "second"}).to_string(),
    )
    .unwrap();
    let second = place.replace("a", &folder).unwrap();
    assert_eq!(spoken(&second).as_deref(), Some("second"));
    // What cannot be used changes nothing.
    fs::write(folder.join(JINJA), "{% if %}").unwrap();
    let error = place.replace("a", &folder).unwrap_err().to_string();
    assert!(error.contains(JINJA), "{error}");
    assert_eq!(place.get("a").unwrap().hash, second.hash);

    let versions = [(plain, None), (first, Some("first")), (second, Some("second"))];
    let hashes = versions.map(|(entry, said)| (entry.hash, said));
    fs::remove_dir_all(folder).unwrap();
    drop(place);
    let place = Place::with(options(), None);
    let listed = place.registry.listed("a").unwrap();
    let versions = listed.versions.iter();
    let files: Vec<_> = versions
        .map(|version| version.info.as_ref().unwrap().chat_template.as_deref())
        .collect();
    assert_eq!(files, [None, Some(JINJA), Some(TOKENIZER)]);
    for (hash, said) in hashes {
        place.registry.activate("a", Some(hash)).unwrap();
        let entry = place.get("a").unwrap();
        assert_eq!((entry.hash, spoken(&entry).as_deref()), (hash, said));
    }
}

#[test]
fn a_template_counts_as_memory() {
    let place = Place::new();
    let without = place.write("without", 1);
    place.replace("without", &without).unwrap();
    let (before, _) = place.registry.memory();
    let folder = place.write("with", 1);
    fs::write(folder.join(JINJA), "x".repeat(10_000)).unwrap();
    place.replace("with", &folder).unwrap();
    let (after, _) = place.registry.memory();
    assert!(after - before > BYTES + 10_000, "{before} {after}");
}

//! The chat template of an adapter belongs to its version and counts as memory.

use std::fs;

use multigraft_adapters::{Entry, RegistryOptions};
use multigraft_text::{ChatInput, ChatTemplate};
use serde_json::{Map, json};

use crate::support::{BYTES, Fixture};

const JINJA: &str = "chat_template.jinja";
const TOKENIZER: &str = "tokenizer_config.json";

/// Renders a conversation.
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
    let fixture = Fixture::with(options(), None);
    let folder = fixture.write("a", 1);
    let plain = fixture.replace("a", &folder).unwrap();
    assert_eq!(spoken(&plain), None);
    fs::write(folder.join(JINJA), "first").unwrap();
    let first = fixture.replace("a", &folder).unwrap();
    // The weights are the same, but the answers differ.
    assert_ne!(first.hash, plain.hash);
    fs::remove_file(folder.join(JINJA)).unwrap();
    fs::write(
        folder.join(TOKENIZER),
        json!({"chat_template": "second"}).to_string(),
    )
    .unwrap();
    let second = fixture.replace("a", &folder).unwrap();
    assert_eq!(spoken(&second).as_deref(), Some("second"));
    // An unusable template changes nothing.
    fs::write(folder.join(JINJA), "{% if %}").unwrap();
    let error = fixture.replace("a", &folder).unwrap_err().to_string();
    assert!(error.contains(JINJA), "{error}");
    assert_eq!(fixture.get("a").unwrap().hash, second.hash);

    let versions = [(plain, None), (first, Some("first")), (second, Some("second"))];
    let hashes = versions.map(|(entry, said)| (entry.hash, said));
    fs::remove_dir_all(folder).unwrap();
    drop(fixture);
    let fixture = Fixture::with(options(), None);
    let listed = fixture.registry.listed("a").unwrap();
    let versions = listed.versions.iter();
    let files: Vec<_> = versions
        .map(|version| version.info.as_ref().unwrap().chat_template.as_deref())
        .collect();
    assert_eq!(files, [None, Some(JINJA), Some(TOKENIZER)]);
    for (hash, said) in hashes {
        fixture.registry.activate("a", Some(hash)).unwrap();
        let entry = fixture.get("a").unwrap();
        assert_eq!((entry.hash, spoken(&entry).as_deref()), (hash, said));
    }
}

#[test]
fn a_template_counts_as_memory() {
    let fixture = Fixture::new();
    let without = fixture.write("without", 1);
    fixture.replace("without", &without).unwrap();
    let (before, _) = fixture.registry.memory();
    let folder = fixture.write("with", 1);
    fs::write(folder.join(JINJA), "x".repeat(10_000)).unwrap();
    fixture.replace("with", &folder).unwrap();
    let (after, _) = fixture.registry.memory();
    assert!(after - before > BYTES + 10_000, "{before} {after}");
}

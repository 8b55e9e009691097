//! The chat template in an adapter's folder: which file holds it, and that it is part of the
//! adapter's hash.

use std::fs;
use std::path::Path;

use multigraft_peft::{AdapterFile, read_for};
use multigraft_text::{ChatInput, ChatTemplate};
use serde_json::{Map, Value, json};

use crate::support::{Adapter, base, message};

const JINJA: &str = "chat_template.jinja";
const TOKENIZER: &str = "tokenizer_config.json";
const PROCESSOR: &str = "chat_template.json";

/// Renders a conversation, with tools or without.
fn text(template: &ChatTemplate, tools: Option<&[Value]>) -> String {
    let input = ChatInput {
        messages: &[json!({"role": "user", "content": "hi"})],
        tools,
        add_generation_prompt: true,
        bos: "<s>",
        eos: "</s>",
        extra: &Map::new(),
    };
    template.render(&input).unwrap()
}

/// An adapter's folder with these further files.
fn with(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    Adapter::good().write(folder.path());
    for (name, contents) in files {
        fs::write(folder.path().join(name), contents).unwrap();
    }
    folder
}

fn read(folder: &Path) -> AdapterFile {
    read_for(folder, &base(false)).unwrap()
}

#[test]
fn the_first_file_that_holds_a_template_is_taken() {
    let none = read(with(&[]).path());
    assert!(none.template.is_none() && none.info.chat_template.is_none());
    let tokenizer = json!({"chat_template": "tokenizer's", "added_tokens_decoder": {}}).to_string();
    let processor = json!({"chat_template": "processor's"}).to_string();
    let silent = json!({"tokenizer_class": "GPT2Tokenizer", "chat_template": null}).to_string();
    let all = [
        (JINJA, "jinja's {{ bos_token }}"),
        (TOKENIZER, &tokenizer),
        (PROCESSOR, &processor),
    ];
    for (files, file, said) in [
        (&all[..], JINJA, "jinja's <s>"),
        (&all[1..], TOKENIZER, "tokenizer's"),
        (&[(TOKENIZER, &silent), all[2]], PROCESSOR, "processor's"),
    ] {
        let adapter = read(with(files).path());
        assert_eq!(adapter.info.chat_template.as_deref(), Some(file));
        assert_eq!(text(&adapter.template.unwrap().compiled, None), said);
        assert_ne!(adapter.info.hash, none.info.hash);
    }
    // A file without a template is not part of the adapter.
    let adapter = read(with(&[(TOKENIZER, &silent)]).path());
    assert!(adapter.template.is_none());
    assert_eq!(adapter.info.hash, none.info.hash);
}

#[test]
fn a_list_has_one_for_tools() {
    let named = json!({"chat_template": [
        {"name": "tool_use", "template": "with tools"}, {"name": "default", "template": "plain"}, {"name": "rag", "template": "no"},
    ]});
    let template = read(with(&[(TOKENIZER, &named.to_string())]).path())
        .template
        .unwrap();
    assert_eq!(text(&template.compiled, None), "plain");
    assert_eq!(text(&template.compiled, Some(&[json!({})])), "with tools");
}

#[test]
fn a_template_that_cannot_be_used_refuses_its_adapter() {
    let long = "x".repeat(200_000);
    let large = " ".repeat((16 << 20) + 1);
    let listed = json!({"chat_template": [{"name": "rag", "template": ""}]}).to_string();
    for (file, contents, reason) in [
        (JINJA, "{% if %}", "the chat template is not valid: syntax error"),
        (
            JINJA,
            &long,
            "it has 200000 bytes, more than 131072 are not compiled",
        ),
        (TOKENIZER, "{", "`: is not valid JSON"),
        (TOKENIZER, &large, "the limit is 16777216"),
        (TOKENIZER, &listed, "has no template named `default`"),
        (
            PROCESSOR,
            r#"{"chat_template": 3}"#,
            "neither a string nor a list of templates",
        ),
    ] {
        let folder = with(&[(file, contents)]);
        let error = message(&read_for(folder.path(), &base(false)).unwrap_err(), folder.path());
        assert!(error.starts_with(&format!("`DIR/{file}`")), "{error}");
        assert!(error.contains(reason), "{error}");
    }
    let folder = with(&[]);
    fs::write(folder.path().join(JINJA), b"\xff").unwrap();
    let error = message(&read_for(folder.path(), &base(false)).unwrap_err(), folder.path());
    assert_eq!(error, "`DIR/chat_template.jinja`: is not UTF-8");
}

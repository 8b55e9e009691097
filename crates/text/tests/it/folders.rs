//! Hugging Face folders: what the files beside `tokenizer.json` say, and what is wrong with them is
//! named.

use std::{fs, path::Path};

use multigraft_text::{ChatInput, ChatTemplate, Tokenizer};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

/// A byte-level tokenizer: `a b ab <s> </s> <|im_end|>`, the last three special.
fn tokenizer_json() -> Value {
    let special = |id: u32, content: &str| {
        json!({
            "id": id, "content": content, "special": true,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        })
    };
    json!({
        "version": "1.0",
        "truncation": { "direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0 },
        "padding": {
            "strategy": { "Fixed": 8 }, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "a",
        },
        "added_tokens": [special(3, "<s>"), special(5, "<|im_end|>")],
        "normalizer": null,
        "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{ "SpecialToken": { "id": "<s>", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } }],
            "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 0 } }],
            "special_tokens": { "<s>": { "id": "<s>", "ids": [3], "tokens": ["<s>"] } },
        },
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": { "a": 0, "b": 1, "ab": 2, "<s>": 3, "</s>": 4, "<|im_end|>": 5 },
            "merges": [["a", "b"]],
        },
    })
}

/// A folder with these files.
fn folder(files: &[(&str, Value)]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder can be made");
    for (name, value) in files {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("it is in the folder")).expect("a folder can be made");
        fs::write(path, text).expect("a file can be written");
    }
    folder
}

fn load(files: &[(&str, Value)]) -> Tokenizer {
    Tokenizer::from_folder(folder(files).path()).unwrap_or_else(|error| panic!("{error}"))
}

fn load_error(files: &[(&str, Value)]) -> String {
    let folder = folder(files);
    let message = Tokenizer::from_folder(folder.path())
        .expect_err("it is broken")
        .to_string();
    message.replace(&folder.path().display().to_string(), "…")
}

fn with(name: &'static str, value: Value) -> Vec<(&'static str, Value)> {
    vec![("tokenizer.json", tokenizer_json()), (name, value)]
}

#[test]
fn tokenizer_json_is_enough() {
    let tokenizer = load(&[("tokenizer.json", tokenizer_json())]);
    // Neither cut to two tokens nor padded to eight.
    assert_eq!(tokenizer.encode("abab", false).unwrap(), [2, 2]);
    assert_eq!(
        tokenizer.encode("abab", true).unwrap(),
        [3, 2, 2],
        "the post-processor adds <s>"
    );
    assert_eq!(tokenizer.bos(), None);
    assert_eq!(tokenizer.eos(), [5], "<|im_end|> by its name");
}

#[test]
fn the_tokenizer_config_decides_about_bos_and_eos() {
    let encode = |config: Value| {
        load(&with("tokenizer_config.json", config))
            .encode("a", true)
            .unwrap()
    };
    assert_eq!(encode(json!({ "bos_token": "<s>", "add_bos_token": false })), [0]);
    assert_eq!(
        encode(json!({ "bos_token": "<s>", "add_bos_token": true })),
        [3, 0]
    );
    let token = json!({ "content": "</s>", "lstrip": false });
    assert_eq!(
        encode(json!({ "eos_token": token, "add_bos_token": false, "add_eos_token": true })),
        [0, 4]
    );
    assert_eq!(encode(json!({ "bos_token": null, "add_bos_token": true })), [0]);
    assert_eq!(
        encode(json!({ "bos_token": "<s>" })),
        [3, 0],
        "else the post-processor does"
    );
}

#[test]
fn named_special_tokens_are_special() {
    let tokenizer = load(&with(
        "special_tokens_map.json",
        json!({ "eos_token": "</s>", "bos_token": "<nope>" }),
    ));
    assert!(tokenizer.is_special(4));
    assert_eq!(tokenizer.encode("a</s>", false).unwrap(), [0, 4]);
    assert_eq!(
        tokenizer.vocab_size(),
        6,
        "a token that the vocabulary has not is not made up"
    );
}

#[test]
fn all_ends_of_a_turn_are_found() {
    let eos = |files: &[(&str, Value)]| load(files).eos().to_vec();
    let one = with("generation_config.json", json!({ "eos_token_id": 2 }));
    assert_eq!(eos(&one), [2, 5]);
    let mut list = with("generation_config.json", json!({ "eos_token_id": [2, 1, 2] }));
    assert_eq!(eos(&list), [2, 1, 5]);
    list.push(("tokenizer_config.json", json!({ "eos_token": "</s>" })));
    list.push(("config.json", json!({ "eos_token_id": 0 })));
    assert_eq!(
        eos(&list),
        [4, 2, 1, 5],
        "the eos_token of chat templates is the first"
    );
    let model = with("config.json", json!({ "eos_token_id": 0, "bos_token_id": 3 }));
    assert_eq!(
        eos(&model),
        [0, 5],
        "config.json if generation_config.json has none"
    );
    assert_eq!(load(&model).bos(), Some(3));
}

#[test]
fn an_end_of_turn_that_is_no_token_is_an_error() {
    let message = load_error(&with("generation_config.json", json!({ "eos_token_id": [2, 6] })));
    assert_eq!(
        message,
        "the tokenizer cannot be built: the model's files name token 6 as a special token, but the vocabulary has 6 tokens"
    );
}

#[test]
fn what_is_wrong_with_a_folder_is_named() {
    let changed = |pointer: &str, value: Value| {
        let mut json = tokenizer_json();
        *json.pointer_mut(pointer).expect("the field is there") = value;
        vec![("tokenizer.json", json)]
    };
    let cases = [
        (
            vec![],
            "…/tokenizer.json: there is no such file; the folder needs the tokenizer in this format",
        ),
        (
            vec![("tokenizer.json", "{\"version\": ".into())],
            "…/tokenizer.json: is not valid JSON: EOF while parsing a value at line 1 column 12",
        ),
        (
            changed(
                "/decoder",
                json!({ "type": "WordPiece", "prefix": "##", "cleanup": true }),
            ),
            "…/tokenizer.json: decoder `WordPiece` is not supported here",
        ),
        (
            changed("/model/merges", json!([["b", "a"]])),
            "…/tokenizer.json: merge 0 names `ba`, which is not in the vocabulary",
        ),
        (
            changed("/model/merges", json!(["a"])),
            "…/tokenizer.json: merge 0 is not a pair of tokens",
        ),
        (
            changed("/model/continuing_subword_prefix", json!("##")),
            "…/tokenizer.json: `continuing_subword_prefix` is not supported",
        ),
        (
            changed("/model/vocab", json!({ "a": 0, "b": 1, "ab": 4_000_000_000_u32 })),
            "the tokenizer cannot be built: token `ab` has the id 4000000000; \
             more than 4194304 tokens are not supported",
        ),
        (
            with("tokenizer_config.json", "[".into()),
            "…/tokenizer_config.json: is not valid JSON: EOF while parsing a list at line 1 column 1",
        ),
    ];
    for (files, message) in cases {
        assert_eq!(load_error(&files), message);
    }
    let message = load_error(&changed("/model/type", json!("Guess")));
    assert!(
        message.starts_with("…/tokenizer.json: is not a tokenizer: "),
        "{message}"
    );
}

fn render(folder: &Path, tools: Option<&[Value]>) -> String {
    let template = ChatTemplate::from_folder(folder)
        .expect("it is valid")
        .expect("there is one");
    let input = ChatInput {
        messages: &[],
        tools,
        add_generation_prompt: false,
        bos: "",
        eos: "",
        extra: &Map::new(),
    };
    template.render(&input).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_jinja_file_wins_over_the_config() {
    let config = json!({ "chat_template": "from the config" });
    let both = folder(&[
        ("tokenizer_config.json", config.clone()),
        ("chat_template.jinja", "from the file".into()),
    ]);
    assert_eq!(render(both.path(), None), "from the file");
    assert_eq!(
        render(folder(&[("tokenizer_config.json", config)]).path(), None),
        "from the config"
    );
    assert!(ChatTemplate::from_folder(folder(&[]).path()).unwrap().is_none());
}

#[test]
fn conversations_with_tools_have_their_own_template() {
    let named = json!({ "chat_template": [
        { "name": "tool_use", "template": "with tools" },
        { "name": "default", "template": "plain" },
    ]});
    let list = folder(&[("tokenizer_config.json", named)]);
    let files = folder(&[
        ("chat_template.jinja", "plain".into()),
        ("additional_chat_templates/tool_use.jinja", "with tools".into()),
    ]);
    for folder in [list, files] {
        assert_eq!(render(folder.path(), None), "plain");
        assert_eq!(render(folder.path(), Some(&[json!({})])), "with tools");
    }
}

#[test]
fn a_template_list_without_a_default_is_an_error() {
    for (value, reason) in [
        (
            json!([{ "name": "rag", "template": "" }]),
            "the list `chat_template` has no template named `default`",
        ),
        (
            json!(3),
            "`chat_template` is neither a string nor a list of templates",
        ),
    ] {
        let folder = folder(&[("tokenizer_config.json", json!({ "chat_template": value }))]);
        let error = ChatTemplate::from_folder(folder.path()).unwrap_err().to_string();
        assert!(error.ends_with(reason), "{error}");
    }
}

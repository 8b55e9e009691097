//! Tokenizers of every kind against what Hugging Face's `tokenizers` gives for the originals, on a
//! corpus of many scripts, code, emoji, control characters and special tokens.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use multigraft_text::{Detokenizer, Tokenizer};
use multigraft_weights::gguf::Gguf;
use serde::{Deserialize, de::DeserializeOwned};

/// What the original computes for every string of the corpus.
#[derive(Deserialize)]
struct Reference {
    encode: Vec<Vec<u32>>,
    encode_special: Vec<Vec<u32>>,
    decode: Vec<String>,
    pieces: Vec<Piece>,
}

/// A run of ids from the middle of a text, perhaps from the middle of a character.
#[derive(Deserialize)]
struct Piece {
    ids: Vec<u32>,
    text: String,
}

fn folder() -> PathBuf {
    multigraft_testing::fixtures().join("tokenizer")
}

fn json<T: DeserializeOwned>(path: &Path) -> T {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The kinds that have a file called `name`.
fn kinds_with(name: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder()).expect("the fixtures are there");
    let paths = entries.map(|entry| entry.expect("the folder can be read").path());
    let mut kinds: Vec<_> = paths.filter(|path| path.join(name).is_file()).collect();
    kinds.sort();
    kinds
}

fn from_gguf(path: &Path) -> Tokenizer {
    let gguf = Gguf::open(path).unwrap_or_else(|error| panic!("{error}"));
    Tokenizer::from_gguf(gguf.metadata()).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Everything the reference says must be so, and the stream must be the whole.
fn check(what: &str, tokenizer: Tokenizer, reference: &Reference) {
    let corpus: Vec<String> = json(&folder().join("corpus.json"));
    assert_eq!(corpus.len(), reference.encode.len(), "{what}");
    let encode = |text: &str, add_special| {
        tokenizer
            .encode(text, add_special)
            .unwrap_or_else(|error| panic!("{what}: {text:?}: {error}"))
    };
    for (index, text) in corpus.iter().enumerate() {
        assert_eq!(encode(text, false), reference.encode[index], "{what}: {text:?}");
        assert_eq!(
            encode(text, true),
            reference.encode_special[index],
            "{what}: {text:?}"
        );
        let (decoded, expected) = (
            tokenizer.decode(&reference.encode[index], false),
            &reference.decode[index],
        );
        if expected.contains(BROKEN) && !text.contains(BROKEN) {
            // `tokenizers` reads an added token `<Ñ>` in byte-level vocabularies as if it were
            // spelled in bytes.
            assert!(!decoded.contains(BROKEN), "{what}: {decoded:?}");
        } else {
            assert_eq!(decoded, *expected, "{what}");
        }
    }
    let tokenizer = Arc::new(tokenizer);
    for Piece { ids, text: expected } in &reference.pieces {
        let text = tokenizer.decode(ids, false);
        assert!(
            same_but_for_broken_bytes(&text, expected),
            "{what}: {ids:?}: {text:?} is not {expected:?}"
        );
        let mut detokenizer = Detokenizer::new(tokenizer.clone(), false);
        let mut streamed: String = ids.iter().map(|&id| detokenizer.push(id)).collect();
        streamed.push_str(&detokenizer.finish());
        assert_eq!(streamed, text, "{what}: {ids:?}");
    }
}

const BROKEN: char = char::REPLACEMENT_CHARACTER;

/// Whether `text` is what `tokenizers` decodes, with one difference allowed: its byte fallback
/// gives up on a whole run of byte tokens if a part of it is broken. That cannot be done while the
/// tokens are still coming in, and loses characters that are whole; we keep those.
fn same_but_for_broken_bytes(text: &str, expected: &str) -> bool {
    match (expected.find(BROKEN), expected.rfind(BROKEN)) {
        (Some(first), Some(last)) => {
            let (before, after) = (&expected[..first], &expected[last + BROKEN.len_utf8()..]);
            text.contains(BROKEN) && text.starts_with(before) && text.ends_with(after)
        }
        _ => text == expected,
    }
}

#[test]
fn folders_give_the_originals_ids() {
    let kinds = kinds_with("tokenizer.json");
    assert!(kinds.len() >= 9, "{kinds:?}");
    for kind in kinds {
        let tokenizer = Tokenizer::from_folder(&kind).unwrap();
        check(
            &kind.join("tokenizer.json").display().to_string(),
            tokenizer,
            &json(&kind.join("ids.json")),
        );
    }
}

#[test]
fn gguf_metadata_gives_the_originals_ids() {
    let kinds = kinds_with("tokenizer.gguf");
    assert!(kinds.len() >= 7, "{kinds:?}");
    for kind in kinds {
        let path = kind.join("tokenizer.gguf");
        check(
            &path.display().to_string(),
            from_gguf(&path),
            &json(&kind.join("ids.json")),
        );
    }
}

#[test]
fn the_real_model_gives_the_originals_ids() {
    let tokenizer = from_gguf(&multigraft_testing::smollm2());
    check("SmolLM2", tokenizer, &json(&folder().join("smollm2.json")));
}

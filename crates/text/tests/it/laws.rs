//! Laws that hold for every tokenizer and every input.

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, LazyLock},
};

use multigraft_testing::GgufWriter;
use multigraft_text::{ChatTemplate, Detokenizer, Tokenizer};
use multigraft_weights::gguf::Gguf;
use proptest::prelude::*;

fn fixtures() -> PathBuf {
    multigraft_testing::fixtures().join("tokenizer")
}

/// The tokenizers of the fixtures, by kind.
static TOKENIZERS: LazyLock<Vec<(String, Arc<Tokenizer>)>> = LazyLock::new(|| {
    let mut all = Vec::new();
    for entry in fs::read_dir(fixtures()).expect("the fixtures are there") {
        let path = entry.expect("the folder can be read").path();
        if path.join("tokenizer.json").is_file() {
            let tokenizer = Tokenizer::from_folder(&path).unwrap_or_else(|error| panic!("{error}"));
            let kind = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            all.push((kind, Arc::new(tokenizer)));
        }
    }
    assert!(all.len() >= 9);
    all
});

/// The GGUF files of the fixtures, as bytes.
static FILES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let kinds = ["gpt-2", "qwen2", "spm-gemma", "spm-llama-legacy"];
    let read = |kind| fs::read(fixtures().join(kind).join("tokenizer.gguf")).expect("the fixture is there");
    kinds.map(read).into()
});

/// Text of all scripts, with white space, digits, special tokens and letters that combine.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => any::<char>().prop_map(String::from),
        4 => "[ a-zA-Z0-9'.,\n\t]{1,8}",
        1 => "[àéîõü漢字かな🦀👍🏽\u{301}\u{200D}]{1,4}",
        1 => proptest::sample::select(vec!["<|im_end|>", "<s>", "</s>", "<bos>", "[INST]", "<0x41>", "▁", "Ġ"])
            .prop_map(String::from),
    ];
    proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_stream_is_the_text_of_the_whole(
        ids in proptest::collection::vec(0_u32..1300, 0..60),
        skip_special: bool,
    ) {
        for (kind, tokenizer) in TOKENIZERS.iter() {
            let mut detokenizer = Detokenizer::new(tokenizer.clone(), skip_special);
            let mut streamed: String = ids.iter().map(|&id| detokenizer.push(id)).collect();
            streamed.push_str(&detokenizer.finish());
            prop_assert_eq!(&streamed, &tokenizer.decode(&ids, skip_special), "{}", kind);
        }
    }

    #[test]
    fn a_stream_of_text_never_shows_a_broken_character(text in text()) {
        for (kind, tokenizer) in TOKENIZERS.iter() {
            let ids = tokenizer.encode(&text, true).unwrap();
            let mut detokenizer = Detokenizer::new(tokenizer.clone(), false);
            let mut streamed: String = ids.iter().map(|&id| detokenizer.push(id)).collect();
            streamed.push_str(&detokenizer.finish());
            let broken = |text: &str| text.matches(char::REPLACEMENT_CHARACTER).count();
            prop_assert_eq!(broken(&streamed), broken(&text), "{}: {:?}", kind, streamed);
        }
    }

    #[test]
    fn byte_level_text_comes_back(text in text()) {
        for (kind, tokenizer) in TOKENIZERS.iter() {
            if ["gpt-2", "smollm", "llama-bpe", "tekken"].contains(&kind.as_str()) {
                let ids = tokenizer.encode(&text, false).unwrap();
                prop_assert_eq!(&tokenizer.decode(&ids, false), &text, "{}", kind);
            }
        }
    }

    #[test]
    fn sentencepiece_text_comes_back(text in "([a-z0-9\n漢🦀][ a-z0-9,.'\n\t漢🦀é]{0,40})?") {
        for (kind, tokenizer) in TOKENIZERS.iter().filter(|(kind, _)| kind.starts_with("spm")) {
            let ids = tokenizer.encode(&text, false).unwrap();
            prop_assert_eq!(&tokenizer.decode(&ids, false), &text, "{}", kind);
        }
    }

    #[test]
    fn a_continuation_goes_on_where_the_prompt_ended(text in "[ a-z]{1,40}", cut in 0_usize..40) {
        for (kind, tokenizer) in TOKENIZERS.iter() {
            let ids = tokenizer.encode(&text, false).unwrap();
            let (prompt, answer) = ids.split_at(cut.clamp(1, ids.len()));
            let mut detokenizer = Detokenizer::continuing(tokenizer.clone(), false);
            let mut whole = tokenizer.decode(prompt, false);
            whole.extend(answer.iter().map(|&id| detokenizer.push(id)));
            prop_assert_eq!(&whole, &tokenizer.decode(&ids, false), "{}", kind);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever is in the file, the answer is a tokenizer that works or an error.
    #[test]
    fn damaged_files_are_errors_or_tokenizers(
        file in 0..FILES.len(),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8),
        length in any::<proptest::sample::Index>(),
        truncate in proptest::bool::weighted(0.2),
    ) {
        let mut bytes = FILES[file].clone();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if truncate {
            bytes.truncate(length.index(bytes.len()));
        }
        if let Ok(gguf) = Gguf::from_bytes("damaged", bytes)
            && let Ok(tokenizer) = Tokenizer::from_gguf(gguf.metadata())
        {
            let _ = ChatTemplate::from_gguf(gguf.metadata());
            exercise(&tokenizer);
        }
    }

    /// Keys that are each well-formed, but need not go together.
    #[test]
    fn contradictory_metadata_is_an_error_or_a_tokenizer(
        model in proptest::sample::select(vec!["gpt2", "llama", "bert"]),
        pre in proptest::sample::select(vec!["gpt-2", "llama-bpe", "qwen2", "?"]),
        architecture in proptest::sample::select(vec!["llama", "gemma3", "phi3"]),
        tokens in proptest::collection::vec("[ab▁ Ġ<]{0,3}|<0x[0-9A-F]{2}>", 0..12),
        types in proptest::option::of(proptest::collection::vec(-1..8, 0..12)),
        scores in proptest::option::of(proptest::collection::vec(any::<f32>(), 0..12)),
        merges in proptest::option::of(proptest::collection::vec("[ab▁Ġ]{0,2} [ab▁Ġ]{0,2}", 0..4)),
        special in proptest::collection::vec(0_u32..12, 0..4),
        fit: bool,
    ) {
        let keys = ["bos", "eos", "eot", "unknown"].map(|name| format!("tokenizer.ggml.{name}_token_id"));
        let mut file = GgufWriter::new()
            .string("general.architecture", architecture)
            .string("tokenizer.ggml.model", model)
            .string("tokenizer.ggml.pre", pre)
            .strings("tokenizer.ggml.tokens", &tokens);
        let size = if fit { tokens.len() } else { usize::MAX };
        if let Some(types) = types {
            let padded = types.into_iter().chain(std::iter::repeat_n(1, 12));
            file = file.i32s("tokenizer.ggml.token_type", padded.take(size));
        }
        if let Some(scores) = scores {
            let padded = scores.into_iter().chain(std::iter::repeat_n(0.0, 12));
            file = file.f32s("tokenizer.ggml.scores", padded.take(size));
        }
        if let Some(merges) = merges {
            file = file.strings("tokenizer.ggml.merges", merges);
        }
        for (key, id) in keys.iter().zip(special) {
            file = file.u32(key, id);
        }
        let gguf = Gguf::from_bytes("contradictory", file.bytes()).unwrap();
        if let Ok(tokenizer) = Tokenizer::from_gguf(gguf.metadata()) {
            exercise(&tokenizer);
        }
    }

    /// The same for `tokenizer.json`.
    #[test]
    fn damaged_folders_are_errors_or_tokenizers(
        kind in proptest::sample::select(vec!["added", "qwen2", "spm-llama"]),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), "[\\[\\]{}\":,0-9a-z \\\\]"), 1..4),
        config in "(\\{\"(add_bos_token|bos_token|eos_token)\": ?(true|false|3|\"<s>\"|null|\\{\\}))?\\}?",
    ) {
        let mut json = fs::read(fixtures().join(kind).join("tokenizer.json")).unwrap();
        for (at, byte) in damage {
            let at = at.index(json.len());
            json.splice(at..=at, byte.into_bytes());
        }
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("tokenizer.json"), json).unwrap();
        fs::write(folder.path().join("tokenizer_config.json"), &config).unwrap();
        if let Ok(tokenizer) = Tokenizer::from_folder(folder.path()) {
            exercise(&tokenizer);
        }
        let _ = ChatTemplate::from_folder(folder.path());
    }
}

/// Uses everything a tokenizer does.
fn exercise(tokenizer: &Tokenizer) {
    for text in ["", "a  ab▁<unk>\n", "é🦀 <|im_end|>\u{0}"] {
        if let Ok(ids) = tokenizer.encode(text, true) {
            let _ = tokenizer.decode(&ids, false);
        }
    }
    let all: Vec<u32> = (0..tokenizer.vocab_size() as u32 + 2).collect();
    let _ = tokenizer.decode(&all, true);
    for &id in tokenizer.eos() {
        assert!((id as usize) < tokenizer.vocab_size());
        let _ = tokenizer.token_text(id);
    }
}

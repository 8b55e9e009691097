//! GGUF metadata that a tokenizer is built from: what each key means, and what is wrong with a file
//! is named.

use multigraft_testing::GgufWriter;
use multigraft_text::{ChatTemplate, TextError, Tokenizer};
use multigraft_weights::gguf::Gguf;

const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const BYTE: i32 = 6;

fn build(file: &GgufWriter) -> Result<Tokenizer, TextError> {
    let gguf = Gguf::from_bytes("test", file.bytes()).expect("the writer writes GGUF");
    Tokenizer::from_gguf(gguf.metadata())
}

/// A byte-level file: `a b ab <|im_end|> <tool> Ġ`, plus what `rest` adds.
fn byte_level(pre: &str) -> GgufWriter {
    GgufWriter::new()
        .string("tokenizer.ggml.model", "gpt2")
        .string("tokenizer.ggml.pre", pre)
        .strings(
            "tokenizer.ggml.tokens",
            ["a", "b", "ab", "<|im_end|>", "<tool>", "Ġ"],
        )
        .i32s(
            "tokenizer.ggml.token_type",
            [NORMAL, NORMAL, NORMAL, CONTROL, USER_DEFINED, NORMAL],
        )
        .strings("tokenizer.ggml.merges", ["a b"])
        .u32("tokenizer.ggml.bos_token_id", 3)
}

/// A SentencePiece file: `<unk> <s> </s> ▁ a b ▁a ab <0x0A>`; `▁a` has the better score.
fn sentencepiece() -> GgufWriter {
    GgufWriter::new()
        .string("tokenizer.ggml.model", "llama")
        .strings(
            "tokenizer.ggml.tokens",
            ["<unk>", "<s>", "</s>", "▁", "a", "b", "▁a", "ab", "<0x0A>"],
        )
        .f32s(
            "tokenizer.ggml.scores",
            [0.0, 0.0, 0.0, -9.0, -8.0, -7.0, -1.0, -2.0, 0.0],
        )
        .i32s(
            "tokenizer.ggml.token_type",
            [
                UNKNOWN, CONTROL, CONTROL, NORMAL, NORMAL, NORMAL, NORMAL, NORMAL, BYTE,
            ],
        )
        .u32("tokenizer.ggml.bos_token_id", 1)
        .u32("tokenizer.ggml.eos_token_id", 2)
        .u32("tokenizer.ggml.unknown_token_id", 0)
}

fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    tokenizer
        .encode(text, true)
        .unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

#[test]
fn control_and_user_defined_tokens_are_found_in_the_text() {
    let tokenizer = build(&byte_level("gpt-2")).unwrap();
    assert_eq!(ids(&tokenizer, "ab<|im_end|>a<tool>b a"), [2, 3, 0, 4, 1, 5, 0]);
    assert!(tokenizer.is_special(3), "control tokens are special");
    assert!(!tokenizer.is_special(4), "user-defined tokens are text");
    assert_eq!(tokenizer.decode(&[2, 3, 0, 4, 1], true), "aba<tool>b");
    assert_eq!(tokenizer.token_text(5), " ");
    assert_eq!(tokenizer.vocab_size(), 6);
}

#[test]
fn the_file_decides_about_bos_and_eos_else_the_kind() {
    let with = |file: GgufWriter| ids(&build(&file).unwrap(), "a");
    assert_eq!(with(byte_level("gpt-2")), [0]);
    assert_eq!(with(byte_level("llama-bpe")), [3, 0]);
    assert_eq!(
        with(byte_level("llama-bpe").bool("tokenizer.ggml.add_bos_token", false)),
        [0]
    );
    assert_eq!(
        with(byte_level("gpt-2").bool("tokenizer.ggml.add_bos_token", true)),
        [3, 0]
    );
    assert_eq!(with(sentencepiece()), [1, 6]);
    assert_eq!(
        with(sentencepiece().bool("tokenizer.ggml.add_bos_token", false)),
        [6]
    );
    assert_eq!(
        with(sentencepiece().bool("tokenizer.ggml.add_eos_token", true)),
        [1, 6, 2]
    );
    let tokenizer = build(&sentencepiece()).unwrap();
    assert_eq!(tokenizer.encode("a", false).unwrap(), [6]);
}

#[test]
fn every_token_that_ends_a_turn_is_an_eos() {
    let file = byte_level("gpt-2")
        .u32("tokenizer.ggml.eos_token_id", 5)
        .u32("tokenizer.ggml.eot_token_id", 4)
        .u32("tokenizer.ggml.eom_token_id", 5);
    // The file's own first, then <|im_end|> by its name; each once, and all of them special.
    let tokenizer = build(&file).unwrap();
    assert_eq!(tokenizer.eos(), [5, 4, 3]);
    assert!(tokenizer.is_special(4) && tokenizer.is_special(5));
    // A name without a special token behind it ends nothing.
    let text = GgufWriter::new()
        .string("tokenizer.ggml.model", "gpt2")
        .string("tokenizer.ggml.pre", "gpt-2")
        .strings("tokenizer.ggml.tokens", ["<|im_end|>"])
        .strings("tokenizer.ggml.merges", [""; 0]);
    assert!(build(&text).unwrap().eos().is_empty());
}

#[test]
fn whole_words_skip_the_merges_where_the_model_does() {
    let file = |pre| {
        GgufWriter::new()
            .string("tokenizer.ggml.model", "gpt2")
            .string("tokenizer.ggml.pre", pre)
            .strings("tokenizer.ggml.tokens", ["a", "b", "ab", "abab", "bos"])
            .strings("tokenizer.ggml.merges", ["a b"])
            .bool("tokenizer.ggml.add_bos_token", false)
    };
    assert_eq!(ids(&build(&file("llama-bpe")).unwrap(), "abab"), [3]);
    assert_eq!(ids(&build(&file("dbrx")).unwrap(), "abab"), [2, 2]);
}

#[test]
fn scores_order_the_merges() {
    let tokenizer = build(&sentencepiece()).unwrap();
    // `▁a` (-1) is merged before `ab` (-2).
    assert_eq!(tokenizer.encode("ab", false).unwrap(), [6, 5]);
    assert_eq!(tokenizer.encode("bab", false).unwrap(), [3, 5, 7]);
    assert_eq!(
        tokenizer.encode("a\n", false).unwrap(),
        [6, 8],
        "bytes have tokens"
    );
    assert_eq!(
        tokenizer.encode("aé", false).unwrap(),
        [6, 0],
        "what has none is unknown"
    );
}

#[test]
fn a_space_is_put_before_the_text_if_the_file_says_so() {
    let without = build(&sentencepiece().bool("tokenizer.ggml.add_space_prefix", false)).unwrap();
    assert_eq!(without.encode("ab a", false).unwrap(), [7, 6]);
    assert_eq!(without.decode(&[6, 5], false), " ab");
    let with = build(&sentencepiece()).unwrap();
    assert_eq!(with.encode("b</s>b", false).unwrap(), [3, 5, 2, 3, 5]);
    assert_eq!(with.decode(&[6, 5], false), "ab");
    assert_eq!(
        with.decode(&[3, 6], false),
        " a",
        "only the one that was added is dropped"
    );
    assert_eq!(
        with.token_text(6),
        " a",
        "in the middle of a text the space is a space"
    );
}

#[test]
fn phi3s_special_tokens_take_the_space_after_them() {
    let phi3 = sentencepiece().string("general.architecture", "phi3");
    let tokenizer = build(&phi3).unwrap();
    assert_eq!(tokenizer.encode("</s> \na", false).unwrap(), [2, 6]);
    assert_eq!(
        tokenizer.encode("<s> a", false).unwrap(),
        [1, 3, 6],
        "but not <s>"
    );
    let llama = build(&sentencepiece()).unwrap();
    assert_eq!(llama.encode("</s> a", false).unwrap(), [2, 3, 6]);
}

#[test]
fn gemmas_runs_of_spaces_are_tokens_by_merging() {
    let file = GgufWriter::new()
        .string("general.architecture", "gemma3")
        .string("tokenizer.ggml.model", "llama")
        .strings("tokenizer.ggml.tokens", ["<unk>", "<bos>", "  ", "a", "▁", "▁a"])
        .i32s(
            "tokenizer.ggml.token_type",
            [UNKNOWN, CONTROL, USER_DEFINED, NORMAL, NORMAL, NORMAL],
        )
        .bool("tokenizer.ggml.add_space_prefix", false)
        .u32("tokenizer.ggml.bos_token_id", 1);
    let tokenizer = build(&file).unwrap();
    assert_eq!(tokenizer.encode("  a", false).unwrap(), [2, 3]);
    assert_eq!(tokenizer.encode(" a", false).unwrap(), [5]);
    assert_eq!(tokenizer.decode(&[2, 5], false), "   a");
    assert_eq!(tokenizer.vocab_size(), 6);
}

#[test]
fn tokens_without_a_spelling_fill_up_a_vocabulary() {
    let file = GgufWriter::new()
        .string("tokenizer.ggml.model", "gpt2")
        .string("tokenizer.ggml.pre", "gpt-2")
        .strings("tokenizer.ggml.tokens", ["", "a", "", "b"])
        .i32s("tokenizer.ggml.token_type", [CONTROL, NORMAL, NORMAL, NORMAL])
        .strings("tokenizer.ggml.merges", [""; 0]);
    let tokenizer = build(&file).unwrap();
    assert_eq!(ids(&tokenizer, "ab"), [1, 3]);
    assert_eq!(tokenizer.decode(&[0, 1, 2, 3, 99], false), "ab");
}

#[test]
fn what_is_wrong_with_a_file_is_named() {
    let tokens = "tokenizer.ggml.tokens";
    let kind = |model: &str| GgufWriter::new().string("tokenizer.ggml.model", model);
    let gpt2 = || kind("gpt2").string("tokenizer.ggml.pre", "gpt-2");
    let llama = || kind("llama").strings(tokens, ["a", "b"]);
    let cases = [
        (
            GgufWriter::new(),
            "the GGUF file has no `tokenizer.ggml.model`: it names the kind of tokenizer",
        ),
        (
            kind("bert"),
            "GGUF tokenizers of kind `bert` are not supported (supported: gpt2, llama)",
        ),
        (
            kind("gpt2"),
            "the GGUF file has no `tokenizer.ggml.tokens`: it lists the vocabulary",
        ),
        (
            GgufWriter::new().u32("tokenizer.ggml.model", 1),
            "GGUF metadata `tokenizer.ggml.model` is not a string",
        ),
        (
            kind("gpt2").strings(tokens, ["a"]),
            "the GGUF file has no `tokenizer.ggml.pre`: text cannot be cut into words the way the model learned",
        ),
        (
            gpt2().strings(tokens, ["a"]),
            "the GGUF file has no `tokenizer.ggml.merges`: BPE needs the list of merges",
        ),
        (
            gpt2().i32s(tokens, [1]),
            "GGUF metadata `tokenizer.ggml.tokens` is not an array of strings",
        ),
        (
            gpt2().strings(tokens, [""; 0]),
            "GGUF metadata `tokenizer.ggml.tokens` has 0 tokens, not 1 to 4194304",
        ),
        (
            gpt2().strings(tokens, ["a", "b", "a"]),
            "GGUF metadata `tokenizer.ggml.tokens` has `a` twice, as token 0 and as token 2",
        ),
        (
            gpt2()
                .strings(tokens, ["a"])
                .i32s("tokenizer.ggml.token_type", [1, 1]),
            "GGUF metadata `tokenizer.ggml.token_type` has 2 entries for 1 tokens",
        ),
        (
            gpt2()
                .strings(tokens, ["a"])
                .i32s("tokenizer.ggml.token_type", [7]),
            "GGUF metadata `tokenizer.ggml.token_type` has 7 for token 0; types are 0 to 6",
        ),
        (
            gpt2()
                .strings(tokens, ["a"])
                .strings("tokenizer.ggml.token_type", ["a"]),
            "GGUF metadata `tokenizer.ggml.token_type` is not an array of integers",
        ),
        (
            gpt2()
                .strings(tokens, ["a", "b"])
                .strings("tokenizer.ggml.merges", ["a b"]),
            "GGUF metadata `tokenizer.ggml.merges` names `ab` in merge 0, which is not a token",
        ),
        (
            gpt2()
                .strings(tokens, ["a", "aq"])
                .strings("tokenizer.ggml.merges", ["a q"]),
            "GGUF metadata `tokenizer.ggml.merges` names `q` in merge 0, which is not a token",
        ),
        (
            gpt2()
                .strings(tokens, ["a"])
                .strings("tokenizer.ggml.merges", ["a"]),
            "GGUF metadata `tokenizer.ggml.merges` has `a` as merge 0, not two tokens with a space between",
        ),
        (
            byte_level("gpt-2").u32("tokenizer.ggml.eos_token_id", 6),
            "GGUF metadata `tokenizer.ggml.eos_token_id` is 6, but the vocabulary has 6 tokens",
        ),
        (
            byte_level("gpt-2").string("tokenizer.ggml.eos_token_id", "x"),
            "GGUF metadata `tokenizer.ggml.eos_token_id` is not a token id",
        ),
        (
            byte_level("gpt-2").u32("tokenizer.ggml.add_bos_token", 1),
            "GGUF metadata `tokenizer.ggml.add_bos_token` is not true or false",
        ),
        (
            llama(),
            "the GGUF file has no `tokenizer.ggml.scores`: a SentencePiece vocabulary is ordered by them",
        ),
        (
            llama().f32s("tokenizer.ggml.scores", [0.0]),
            "GGUF metadata `tokenizer.ggml.scores` has 1 entries for 2 tokens",
        ),
        (
            llama().f32s("tokenizer.ggml.scores", [0.0, f32::NAN]),
            "GGUF metadata `tokenizer.ggml.scores` has no number for token 1 (`b`)",
        ),
    ];
    for (file, message) in cases {
        assert_eq!(build(&file).unwrap_err().to_string(), message);
    }
    let unknown = build(&byte_level("my-pre")).unwrap_err().to_string();
    assert!(
        unknown.starts_with("the GGUF pre-tokenizer `my-pre` is not known (known: gpt-2, "),
        "{unknown}"
    );
}

#[test]
fn a_chat_template_is_optional_but_must_be_right() {
    let template = |file: GgufWriter| {
        let gguf = Gguf::from_bytes("test", file.bytes()).unwrap();
        ChatTemplate::from_gguf(gguf.metadata())
    };
    assert!(template(GgufWriter::new()).unwrap().is_none());
    let key = "tokenizer.chat_template";
    assert!(
        template(GgufWriter::new().string(key, "{{ messages }}"))
            .unwrap()
            .is_some()
    );
    let error = template(GgufWriter::new().u32(key, 1)).unwrap_err().to_string();
    assert_eq!(error, "GGUF metadata `tokenizer.chat_template` is not a string");
    let error = template(GgufWriter::new().string(key, "\n{% if %}"))
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("the chat template is not valid: syntax error"),
        "{error}"
    );
    assert!(error.ends_with("(line 2)"), "{error}");
}

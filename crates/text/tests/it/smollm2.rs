//! The real SmolLM2 file: what a user gets from it.

use std::sync::Arc;

use multigraft_text::{ChatInput, ChatTemplate, Detokenizer, Tokenizer};
use multigraft_weights::gguf::Gguf;
use serde_json::{Map, json};

fn gguf() -> Gguf {
    Gguf::open(&multigraft_testing::smollm2()).expect("the test model is a GGUF file")
}

#[test]
fn text_is_cut_as_the_model_learned() {
    let tokenizer = Tokenizer::from_gguf(gguf().metadata()).unwrap();
    let ids = tokenizer
        .encode("<|im_start|>user\nHello, world 123!<|im_end|>\n", true)
        .unwrap();
    // From transformers: AutoTokenizer on the original repository's tokenizer.
    assert_eq!(ids, [1, 4093, 198, 19556, 28, 905, 216, 33, 34, 35, 17, 2, 198]);
    assert_eq!(
        tokenizer.decode(&ids, false),
        "<|im_start|>user\nHello, world 123!<|im_end|>\n"
    );
    assert_eq!(tokenizer.decode(&ids, true), "user\nHello, world 123!\n");
}

#[test]
fn turn_ends_are_known() {
    let tokenizer = Tokenizer::from_gguf(gguf().metadata()).unwrap();
    assert_eq!(tokenizer.vocab_size(), 49152);
    assert_eq!(tokenizer.bos(), Some(1));
    // <|im_end|> by the file, <|endoftext|> by name.
    assert_eq!(tokenizer.eos(), [2, 0]);
    assert_eq!(tokenizer.token_text(2), "<|im_end|>");
    assert!(tokenizer.is_special(2) && !tokenizer.is_special(4093));
}

#[test]
fn a_stream_never_shows_half_a_character() {
    let tokenizer = Arc::new(Tokenizer::from_gguf(gguf().metadata()).unwrap());
    let text = "naïve 🦀 crab, 日本語, \u{1F468}\u{200D}\u{1F469}\u{200D}\u{1F467}";
    let ids = tokenizer.encode(text, false).unwrap();
    let mut detokenizer = Detokenizer::new(tokenizer, true);
    let mut streamed = String::new();
    for id in ids {
        let piece = detokenizer.push(id);
        assert!(!piece.contains(char::REPLACEMENT_CHARACTER), "{piece:?}");
        streamed.push_str(&piece);
    }
    assert_eq!(detokenizer.finish(), "");
    assert_eq!(streamed, text);
}

#[test]
fn the_chat_template_opens_the_assistants_turn() {
    let template = ChatTemplate::from_gguf(gguf().metadata()).unwrap().unwrap();
    let messages = [json!({ "role": "user", "content": "Hi" })];
    let input = ChatInput {
        messages: &messages,
        tools: None,
        add_generation_prompt: true,
        bos: "",
        eos: "",
        extra: &Map::new(),
    };
    assert_eq!(
        template.render(&input).unwrap(),
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n\
         <|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    );
}

#[test]
#[cfg(target_os = "linux")]
fn words_that_were_encoded_are_not_kept() {
    let tokenizer = Tokenizer::from_gguf(gguf().metadata()).unwrap();
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() / 1024
    };
    let encode = |number: u32| {
        // Hangul has hardly any merges: each of these words is more than a hundred symbols.
        let letter =
            |at: u32| char::from_u32(0xac00 + number.wrapping_mul(2_654_435_761).rotate_left(at) % 10_000);
        let word: String = (0..38).filter_map(letter).collect();
        assert!(tokenizer.encode(&word, false).unwrap().len() > 38, "{word}");
    };
    (0..100).for_each(encode);
    let before = resident();
    (100..20_000).for_each(encode);
    let grown = resident().saturating_sub(before);
    assert!(grown < 20, "{grown} MiB more after 20,000 words");
}

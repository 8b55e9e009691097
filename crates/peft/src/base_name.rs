//! Compares the name of the base that an adapter was trained on with the name of the base that is
//! served. A difference is a warning only: shapes decide whether an adapter can be applied.

use std::fs;
use std::path::Path;

use crate::files::{CARD_FILE, CONFIG_FILE};
use crate::refusal::Quoted;

/// Words in names of files and repositories that describe how weights are stored, not which model
/// they are.
const STORAGE_WORDS: [&str; 15] = [
    "gguf", "hf", "bnb", "4bit", "8bit", "awq", "gptq", "int4", "int8", "fp8", "fp16", "f16", "bf16", "f32",
    "unsloth",
];

/// The name of the base that the adapter in `folder` was trained on, from its config or its model
/// card.
pub fn trained_on(folder: &Path) -> Option<String> {
    let config = fs::read(folder.join(CONFIG_FILE)).ok()?;
    let config: serde_json::Value = serde_json::from_slice(&config).ok()?;
    let name = config["base_model_name_or_path"].as_str().map(str::to_owned);
    let is_name = |name: &String| !name.is_empty() && !is_local(name);
    let card = || of_card(&fs::read_to_string(folder.join(CARD_FILE)).ok()?);
    name.filter(is_name).or_else(|| card().filter(is_name))
}

/// The base in a model card's front matter: `base_model: org/name`, the first item of such a list,
/// or the tag `base_model:adapter:org/name`.
fn of_card(text: &str) -> Option<String> {
    let front = text.trim_start().strip_prefix("---")?;
    let (front, _) = front.split_once("\n---")?;
    let plain = |value: &str| value.trim().trim_matches(['"', '\'']).to_owned();
    let mut lines = front.lines().peekable();
    let mut tagged = None;
    while let Some(line) = lines.next() {
        if let Some(value) = line.strip_prefix("base_model:") {
            let mut first = || lines.peek()?.trim().strip_prefix("- ");
            let value = if value.trim().is_empty() { first()? } else { value };
            return Some(plain(value.trim().trim_matches(['[', ']']).split(',').next()?));
        }
        let item = line.trim().strip_prefix("- ").map(plain);
        tagged = tagged.or_else(|| Some(item?.strip_prefix("base_model:adapter:")?.to_owned()));
    }
    tagged
}

/// A warning if the names differ. `None` if they agree or if one is unknown.
pub(crate) fn verdict(trained_on: Option<&str>, served: Option<&str>) -> Option<String> {
    let (trained_on, served) = (trained_on?, served?);
    if is_local(trained_on) || words(trained_on) == words(served) {
        return None;
    }
    Some(format!(
        "it was trained on {} and the base is {}: the shapes fit, but if the weights are others its answers will be poor",
        Quoted(trained_on),
        Quoted(served)
    ))
}

/// Whether a name is a local path, which identifies no model.
fn is_local(name: &str) -> bool {
    name.starts_with(['/', '.', '~']) || name.contains('\\') || name.matches('/').count() > 1
}

/// The last path segment of a name in lower case, without the words that describe storage,
/// concatenated.
fn words(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or(name).to_lowercase();
    let words: Vec<&str> = last
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect();
    let mut kept: Vec<&str> = Vec::new();
    let mut quantisation = false;
    for word in words {
        // `Q4_K_M` is split into three words, of which only the first is recognisable by itself.
        quantisation = is_quantisation(word) || (quantisation && is_quantisation_rest(word));
        if !quantisation && !STORAGE_WORDS.contains(&word) {
            kept.push(word);
        }
    }
    kept.concat()
}

/// Whether a word starts the name of a quantisation, such as `q4` or `iq3`.
fn is_quantisation(word: &str) -> bool {
    let digits = word.trim_start_matches('i').strip_prefix('q');
    digits.is_some_and(|digits| digits.len() == 1 && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// Whether a word continues the name of a quantisation.
fn is_quantisation_rest(word: &str) -> bool {
    matches!(word, "0" | "1" | "k" | "s" | "m" | "l" | "xs" | "xxs" | "nl")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_found_in_configuration_or_card() {
        let dir = tempfile::tempdir().unwrap();
        let found = |config: &str, card: &str| {
            fs::write(dir.path().join(CONFIG_FILE), config).unwrap();
            fs::write(dir.path().join(CARD_FILE), card).unwrap();
            trained_on(dir.path())
        };
        let named = r#"{"base_model_name_or_path": "org/base"}"#;
        let local = r#"{"base_model_name_or_path": "/home/me/base"}"#;
        assert_eq!(found(named, "").as_deref(), Some("org/base"));
        assert_eq!(found(local, ""), None);
        for card in [
            "---\nlibrary_name: peft\nbase_model: org/base\n---\ntext",
            "---\nbase_model:\n- org/base\n- org/other\n---\n",
            "---\nbase_model: [\"org/base\"]\n---\n",
            "---\ntags:\n- lora\n- base_model:adapter:org/base\n---\n",
        ] {
            assert_eq!(
                found(r#"{"base_model_name_or_path": null}"#, card).as_deref(),
                Some("org/base"),
                "{card}"
            );
        }
        for card in [
            "",
            "base_model: org/base",
            "---\nbase_model:\n---\n",
            "---\ntags: [a]\n---\n",
            "---\nbase_model: org/base",
        ] {
            assert_eq!(found(local, card), None, "{card}");
        }
    }

    #[test]
    fn the_same_base_in_other_clothes_is_no_warning() {
        for (trained_on, served) in [
            (
                "HuggingFaceTB/SmolLM2-135M-Instruct",
                "SmolLM2-135M-Instruct.Q4_1",
            ),
            ("HuggingFaceTB/SmolLM2-135M-Instruct", "smollm2 135m instruct"),
            (
                "unsloth/Meta-Llama-3.1-8B-Instruct-bnb-4bit",
                "Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf",
            ),
            ("Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-0.5B"),
            ("/home/me/models/my-base", "SmolLM2-135M-Instruct"),
            (r"C:\models\x", "SmolLM2-135M-Instruct"),
            ("./out/checkpoint-500", "SmolLM2-135M-Instruct"),
        ] {
            assert_eq!(
                verdict(Some(trained_on), Some(served)),
                None,
                "{trained_on} on {served}"
            );
        }
        assert_eq!(verdict(None, Some("a")), None);
        assert_eq!(verdict(Some("a/b"), None), None);
    }

    #[test]
    fn another_base_is_a_sentence_with_both_names() {
        for (trained_on, served) in [
            ("HuggingFaceTB/SmolLM2-135M", "SmolLM2-135M-Instruct"),
            ("meta-llama/Llama-3.1-8B", "Llama-3.2-8B"),
        ] {
            let sentence = verdict(Some(trained_on), Some(served)).unwrap();
            assert!(
                sentence.contains(trained_on) && sentence.contains(served),
                "{sentence}"
            );
        }
    }
}

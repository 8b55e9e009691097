//! Whether an adapter was trained on the base that is served, by the names of both. Shapes decide, names only warn.

use crate::refusal::Quoted;

/// Words in the names of files and repositories that say how the weights are stored and not which they are.
const STORAGE_WORDS: [&str; 15] = [
    "gguf", "hf", "bnb", "4bit", "8bit", "awq", "gptq", "int4", "int8", "fp8", "fp16", "f16", "bf16", "f32",
    "unsloth",
];

/// A sentence if the names differ; nothing if they agree or if one says nothing.
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

/// A path of somebody's machine, which says nothing here.
fn is_local(name: &str) -> bool {
    name.starts_with(['/', '.', '~']) || name.contains('\\') || name.matches('/').count() > 1
}

/// The last part of a name in lower case, without what says how weights are stored, run together.
fn words(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or(name).to_lowercase();
    let words: Vec<&str> = last
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect();
    let mut kept: Vec<&str> = Vec::new();
    let mut quantisation = false;
    for word in words {
        // `Q4_K_M` is three words, of which the first alone would tell.
        quantisation = is_quantisation(word) || (quantisation && is_quantisation_rest(word));
        if !quantisation && !STORAGE_WORDS.contains(&word) {
            kept.push(word);
        }
    }
    kept.concat()
}

/// `q4`, `iq3`
fn is_quantisation(word: &str) -> bool {
    let digits = word.trim_start_matches('i').strip_prefix('q');
    digits.is_some_and(|digits| digits.len() == 1 && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// What follows: `0`, `1`, `k`, `m`, `xs` …
fn is_quantisation_rest(word: &str) -> bool {
    matches!(word, "0" | "1" | "k" | "s" | "m" | "l" | "xs" | "xxs" | "nl")
}

#[cfg(test)]
mod tests {
    use super::*;

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

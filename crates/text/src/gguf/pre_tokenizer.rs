//! The pre-tokenizers that GGUF files name (`tokenizer.ggml.pre`), as in the `tokenizer.json` of
//! the models behind the names.

use tokenizers::{
    NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior,
    normalizers::unicode::NFC,
    pre_tokenizers::{
        byte_level::ByteLevel,
        digits::Digits,
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
};

use crate::TextError;

/// GPT-4's (cl100k) words, with numbers in groups of up to three digits.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The same with single digits.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Mistral's Tekken: words end where lower case turns to upper case.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// GPT-4o's (o200k).
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How text is split into words before BPE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// By GPT-2's expression, which is built into the byte-level pre-tokenizer.
    Gpt2,
    /// Every digit by itself, then by GPT-2's expression.
    DigitsThenGpt2,
    /// By this expression.
    Expression(&'static str),
}

/// One named pre-tokenizer.
#[derive(Debug, Clone, Copy)]
pub(super) struct PreTokenizer {
    cut: Cut,
    /// Whether text is first normalised to Unicode's composed form (NFC).
    composed: bool,
    /// Whether a word that is a token as a whole becomes that token, whatever the merges.
    pub(super) whole_words: bool,
    /// Whether a beginning-of-text token is put before every text, unless the file says otherwise.
    pub(super) add_bos: bool,
}

const fn plain(cut: Cut) -> PreTokenizer {
    PreTokenizer {
        cut,
        composed: false,
        whole_words: false,
        add_bos: false,
    }
}

const LLAMA3_BPE: PreTokenizer = PreTokenizer {
    whole_words: true,
    add_bos: true,
    ..plain(Cut::Expression(LLAMA3))
};
const QWEN: PreTokenizer = PreTokenizer {
    composed: true,
    ..plain(Cut::Expression(QWEN2))
};

/// Every known name, in the order in which the error message lists them.
///
/// `default` is not among them: converters write it for models that they do not know.
const KNOWN: [(&str, PreTokenizer); 13] = [
    ("gpt-2", plain(Cut::Gpt2)),
    ("smollm", plain(Cut::DigitsThenGpt2)),
    ("starcoder", plain(Cut::DigitsThenGpt2)),
    ("refact", plain(Cut::DigitsThenGpt2)),
    ("llama-bpe", LLAMA3_BPE),
    ("llama3", LLAMA3_BPE),
    ("llama-v3", LLAMA3_BPE),
    ("smaug-bpe", plain(Cut::Expression(LLAMA3))),
    ("dbrx", plain(Cut::Expression(LLAMA3))),
    ("qwen2", QWEN),
    ("deepseek-r1-qwen", QWEN),
    (
        "tekken",
        PreTokenizer {
            whole_words: true,
            add_bos: true,
            ..plain(Cut::Expression(TEKKEN))
        },
    ),
    ("gpt-4o", plain(Cut::Expression(GPT4O))),
];

/// The pre-tokenizer called `name`.
pub(super) fn named(name: &str) -> Result<PreTokenizer, TextError> {
    KNOWN
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, pre)| *pre)
        .ok_or_else(|| {
            let known = KNOWN.map(|(known, _)| known).join(", ");
            TextError::UnknownPreTokenizer {
                name: name.to_owned(),
                known,
            }
        })
}

impl PreTokenizer {
    pub(super) fn normalizer(&self) -> Option<NormalizerWrapper> {
        self.composed.then(|| NFC.into())
    }

    pub(super) fn pre_tokenizer(&self) -> Result<PreTokenizerWrapper, TextError> {
        let byte_level = |use_regex| PreTokenizerWrapper::from(ByteLevel::new(false, true, use_regex));
        Ok(match self.cut {
            Cut::Gpt2 => byte_level(true),
            Cut::DigitsThenGpt2 => Sequence::new(vec![Digits::new(true).into(), byte_level(true)]).into(),
            Cut::Expression(expression) => {
                let pattern = SplitPattern::Regex(expression.to_owned());
                let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false)
                    .map_err(|error| TextError::Build(error.to_string()))?;
                Sequence::new(vec![split.into(), byte_level(false)]).into()
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _};

    use super::*;

    /// The words of `text`, in the byte alphabet (`Ġ` is a space, `Ċ` a line feed).
    fn words(name: &str, text: &str) -> Vec<String> {
        let mut pieces = PreTokenizedString::from(text);
        named(name)
            .unwrap()
            .pre_tokenizer()
            .unwrap()
            .pre_tokenize(&mut pieces)
            .unwrap();
        let splits = pieces.get_splits(OffsetReferential::Normalized, OffsetType::Byte);
        splits.into_iter().map(|(word, ..)| word.to_owned()).collect()
    }

    #[test]
    fn every_known_name_can_be_built() {
        for (name, _) in KNOWN {
            assert_eq!(words(name, "ab").concat(), "ab", "{name}");
        }
    }

    #[test]
    fn digits_are_grouped_as_the_model_learned() {
        assert_eq!(words("gpt-2", "x 12345"), ["x", "Ġ12345"]);
        assert_eq!(words("smollm", "x 12345"), ["x", "Ġ", "1", "2", "3", "4", "5"]);
        assert_eq!(words("llama-bpe", "x 12345"), ["x", "Ġ", "123", "45"]);
        assert_eq!(words("qwen2", "x 123"), ["x", "Ġ", "1", "2", "3"]);
        assert_eq!(words("tekken", "x 123"), ["x", "Ġ", "1", "2", "3"]);
        assert_eq!(words("gpt-4o", "x 12345"), ["x", "Ġ", "123", "45"]);
    }

    #[test]
    fn words_end_where_the_model_learned() {
        assert_eq!(words("gpt-2", "I'M HTTPServer"), ["I", "'", "M", "ĠHTTPServer"]);
        assert_eq!(words("llama-bpe", "I'M HTTPServer"), ["I", "'M", "ĠHTTPServer"]);
        assert_eq!(words("tekken", "anHTTPServer"), ["an", "HTTPServer"]);
        assert_eq!(words("gpt-4o", "I'M aB"), ["I'M", "Ġa", "B"]);
        assert_eq!(words("gpt-2", "a  b\n\n"), ["a", "Ġ", "Ġb", "ĊĊ"]);
    }

    #[test]
    fn only_qwen_composes_characters() {
        for (name, pre) in KNOWN {
            assert_eq!(pre.normalizer().is_some(), name.contains("qwen"), "{name}");
        }
    }

    #[test]
    fn an_unknown_name_is_an_error_that_lists_the_known() {
        let message = named("default").unwrap_err().to_string();
        assert!(
            message.contains("`default`") && message.contains("gpt-2, smollm"),
            "{message}"
        );
    }
}

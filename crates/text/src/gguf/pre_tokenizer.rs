//! The pre-tokenizers that GGUF files name (`tokenizer.ggml.pre`), as they are in the `tokenizer.json` of the
//! models behind the names.

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

/// How text is cut into words before BPE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// By GPT-2's expression, which is built into the byte-level pre-tokenizer.
    Gpt2,
    /// Every digit alone, then by GPT-2's expression.
    DigitsThenGpt2,
    /// By this expression.
    Expression(&'static str),
}

/// One named pre-tokenizer.
#[derive(Debug, Clone, Copy)]
pub(super) struct PreTokenizer {
    cut: Cut,
    /// Text is brought into Unicode's composed form (NFC) first.
    composed: bool,
    /// A word that is a token as a whole is that token, whatever the merges say.
    pub(super) whole_words: bool,
    /// A beginning-of-text token is put before every text unless the file says otherwise.
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

/// Every known name, in the order of the error message that lists them.
const KNOWN: [(&str, PreTokenizer); 17] = [
    ("default", plain(Cut::Gpt2)),
    ("gpt-2", plain(Cut::Gpt2)),
    ("phi-2", plain(Cut::Gpt2)),
    ("olmo", plain(Cut::Gpt2)),
    ("smollm", plain(Cut::DigitsThenGpt2)),
    ("starcoder", plain(Cut::DigitsThenGpt2)),
    ("refact", plain(Cut::DigitsThenGpt2)),
    ("llama-bpe", LLAMA3_BPE),
    ("llama3", LLAMA3_BPE),
    ("llama-v3", LLAMA3_BPE),
    ("smaug-bpe", LLAMA3_BPE),
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
    ("llama4", plain(Cut::Expression(GPT4O))),
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

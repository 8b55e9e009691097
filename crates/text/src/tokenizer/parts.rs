//! What a [`Tokenizer`](super::Tokenizer) is assembled from, whatever files describe it.

use super::DecodeRules;

/// The most tokens a vocabulary may have; the largest in use have about 262,000. Bounds the tables
/// that are sized by token id before an id from a file is trusted.
pub(crate) const MAX_VOCABULARY: usize = 1 << 22;

/// What adds the special tokens that begin and end a text.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Affixes {
    /// The post-processor of `tokenizer.json`.
    PostProcessor,
    /// The tokens given here.
    Fixed {
        /// Before the first token.
        before: Option<u32>,
        /// After the last token.
        after: Option<u32>,
    },
}

/// The parts of a [`Tokenizer`].
pub(crate) struct Parts {
    pub(crate) inner: tokenizers::Tokenizer,
    pub(crate) rules: DecodeRules,
    pub(crate) affixes: Affixes,
    pub(crate) bos: Option<u32>,
    /// Tokens that the model's files say end a turn; the first is the `eos_token` of chat
    /// templates.
    pub(crate) eos: Vec<u32>,
}

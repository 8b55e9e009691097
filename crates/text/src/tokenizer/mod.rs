//! The tokenizer: text to token ids, and ids to text.

mod byte_level;
mod decoder;
mod detokenizer;
mod folder;
mod parts;
mod pieces;
mod stops;

use std::{fmt, path::Path};

use multigraft_weights::gguf::Metadata;

use crate::TextError;

pub(crate) use decoder::DecodeRules;
pub use detokenizer::Detokenizer;
pub(crate) use parts::{Affixes, MAX_VOCABULARY, Parts};
pub(crate) use pieces::Pieces;
pub(crate) use stops::turn_ends;

/// A model's tokenizer. Immutable; share it by `Arc`.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    pieces: Pieces,
    affixes: Affixes,
    bos: Option<u32>,
    eos: Vec<u32>,
}

impl Tokenizer {
    /// Loads the tokenizer of a Hugging Face model folder: `tokenizer.json`, with
    /// `tokenizer_config.json`, `special_tokens_map.json` and `generation_config.json` where they
    /// are there.
    ///
    /// # Errors
    ///
    /// If `tokenizer.json` is missing, or one of these files is broken or asks for something
    /// unsupported.
    pub fn from_folder(path: &Path) -> Result<Self, TextError> {
        folder::load(path)
    }

    /// Builds the tokenizer that a GGUF file describes.
    ///
    /// # Errors
    ///
    /// If the kind of tokenizer or its pre-tokenizer is not supported, or the metadata is
    /// incomplete or contradicts itself.
    pub fn from_gguf(metadata: &Metadata) -> Result<Self, TextError> {
        Self::assemble(crate::gguf::parts(metadata)?)
    }

    pub(crate) fn assemble(parts: Parts) -> Result<Self, TextError> {
        let Parts {
            mut inner,
            rules,
            affixes,
            bos,
            mut eos,
        } = parts;
        // A file may ask for every text to be truncated or padded; a server must do neither
        // silently.
        inner
            .with_truncation(None)
            .map_err(|error| TextError::Build(error.to_string()))?;
        inner.with_padding(None);
        // No cache: each thread would keep ten thousand words that clients sent, tens of megabytes,
        // for its lifetime. The cache saves a quarter of the time of encoding, which is negligible
        // beside the model's.
        let mut model = inner.get_model().clone();
        model.resize_cache(0);
        inner.with_model(model);
        let pieces = Pieces::new(&inner, &rules)?;
        turn_ends(&inner, &mut eos);
        if let Some(id) = eos.iter().copied().chain(bos).find(|&id| !pieces.contains(id)) {
            return Err(TextError::Build(format!(
                "the model's files name token {id} as a special token, but the vocabulary has {} tokens",
                pieces.len()
            )));
        }
        Ok(Self {
            inner,
            pieces,
            affixes,
            bos,
            eos,
        })
    }

    /// The token ids of `text`. Special tokens that are written out in the text (`<|im_end|>`)
    /// become their own tokens. With `add_special`, the tokens that the model wants around every
    /// text (often a beginning-of-text token) are added; leave it off for text from a chat
    /// template, which writes them itself.
    ///
    /// # Errors
    ///
    /// If a normaliser or pre-tokenizer of the model fails on the text.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, TextError> {
        let by_post_processor = add_special && matches!(self.affixes, Affixes::PostProcessor);
        let encoding = self
            .inner
            .encode_fast(text, by_post_processor)
            .map_err(|error| TextError::Encode(error.to_string()))?;
        let ids = encoding.get_ids();
        match self.affixes {
            Affixes::Fixed { before, after } if add_special => Ok(before
                .into_iter()
                .chain(ids.iter().copied())
                .chain(after)
                .collect()),
            _ => Ok(ids.to_vec()),
        }
    }

    /// The text of `ids`. Ids outside the vocabulary have no text; bytes that are not valid UTF-8
    /// become U+FFFD.
    #[must_use]
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        Detokenizer::decode(&self.pieces, ids, skip_special)
    }

    /// The text that token `id` adds in the middle of a text: `" the"`, not `"Ġthe"`. Half a
    /// character shows as U+FFFD, an id outside the vocabulary as nothing.
    #[must_use]
    pub fn token_text(&self, id: u32) -> String {
        String::from_utf8_lossy(self.token_bytes(id)).into_owned()
    }

    /// The bytes that token `id` adds in the middle of a text; perhaps a part of a character.
    #[must_use]
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.pieces.bytes(id)
    }

    /// Whether a text has the same tokens wherever it stands: false if encoding puts a space before
    /// every text.
    #[must_use]
    pub fn is_the_same_everywhere(&self) -> bool {
        self.pieces.begins_plainly()
    }

    /// Whether `id` is a special token: one that controls the model and is no part of the text.
    #[must_use]
    pub fn is_special(&self, id: u32) -> bool {
        self.pieces.is_special(id)
    }

    /// One more than the largest token id. A model's embedding may have more rows than that.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.pieces.len()
    }

    /// The id of the token that is written `token` in the vocabulary (`<|im_end|>`, `Ġthe`).
    #[must_use]
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token that begins a text, if the model has one.
    #[must_use]
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// Every token that ends a turn: the model's end-of-text and end-of-turn tokens, each once. The
    /// first is the one that chat templates know as `eos_token`.
    #[must_use]
    pub fn eos(&self) -> &[u32] {
        &self.eos
    }

    pub(crate) fn pieces(&self) -> &Pieces {
        &self.pieces
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size())
            .field("bos", &self.bos)
            .field("eos", &self.eos)
            .finish_non_exhaustive()
    }
}

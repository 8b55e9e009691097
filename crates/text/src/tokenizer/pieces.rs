//! The bytes that every token of the vocabulary adds to a text.

use std::collections::HashMap;

use tokenizers::Tokenizer;

use super::{
    MAX_VOCABULARY,
    decoder::{DecodeRules, StartRule},
};
use crate::TextError;

/// The bytes of every token, by id, in one allocation.
pub(crate) struct Pieces {
    bytes: Vec<u8>,
    /// The end of each token in `bytes`, which is the start of the next.
    ends: Vec<u32>,
    special: Vec<bool>,
    start: StartRule,
    /// With [`StartRule::FirstWithout`]: the bytes of tokens that differ at the start of a text.
    first: HashMap<u32, Vec<u8>>,
}

impl Pieces {
    /// Computes the bytes of a tokenizer's whole vocabulary.
    ///
    /// # Errors
    ///
    /// If a token id is 2²² or more, or all tokens together have more than 4 GiB of text.
    pub(crate) fn new(tokenizer: &Tokenizer, rules: &DecodeRules) -> Result<Self, TextError> {
        let added = tokenizer.get_added_vocabulary().get_added_tokens_decoder();
        let spellings = spellings_by_id(tokenizer)?;
        let mut pieces = Self {
            bytes: Vec::new(),
            ends: Vec::with_capacity(spellings.len()),
            special: Vec::with_capacity(spellings.len()),
            start: rules.start.clone(),
            first: HashMap::new(),
        };
        for (id, spelling) in (0..).zip(spellings) {
            let special = if let Some(token) = added.get(&id) {
                pieces.bytes.extend(rules.added_bytes(&token.content));
                token.special
            } else {
                pieces.bytes.extend(rules.bytes(&spelling));
                if let StartRule::FirstWithout(marker) = &rules.start
                    && spelling.contains(marker.as_str())
                {
                    pieces
                        .first
                        .insert(id, rules.bytes(&spelling.replace(marker.as_str(), "")));
                }
                false
            };
            pieces.special.push(special);
            let end = u32::try_from(pieces.bytes.len())
                .map_err(|_| TextError::Build("the vocabulary's text is larger than 4 GiB".into()))?;
            pieces.ends.push(end);
        }
        Ok(pieces)
    }

    /// One more than the largest id.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The bytes that `id` adds in the middle of a text; none for an id outside the vocabulary.
    pub(crate) fn bytes(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let Some(&end) = self.ends.get(id) else { return &[] };
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        &self.bytes[start as usize..end as usize]
    }

    /// The bytes that `id` adds as the first token of a text, before [`Pieces::leading_spaces`] are
    /// dropped.
    pub(crate) fn first_bytes(&self, id: u32) -> &[u8] {
        self.first.get(&id).map_or_else(|| self.bytes(id), Vec::as_slice)
    }

    /// How many spaces are dropped from the start of a text.
    pub(crate) fn leading_spaces(&self) -> usize {
        match self.start {
            StartRule::StripSpaces(count) => count,
            _ => 0,
        }
    }

    /// Whether tokens at the start of a text are decoded like all others.
    pub(crate) fn begins_plainly(&self) -> bool {
        self.start == StartRule::Keep
    }

    /// Whether `id` is a special token.
    pub(crate) fn is_special(&self, id: u32) -> bool {
        self.special.get(id as usize).copied().unwrap_or(false)
    }

    /// Whether `id` is in the vocabulary.
    pub(crate) fn contains(&self, id: u32) -> bool {
        (id as usize) < self.ends.len()
    }
}

/// The spelling of every token, by id; empty where an id has no token.
fn spellings_by_id(tokenizer: &Tokenizer) -> Result<Vec<String>, TextError> {
    let mut spellings = Vec::new();
    for (token, id) in tokenizer.get_vocab(true) {
        let id = id as usize;
        if id >= MAX_VOCABULARY {
            let reason = format!(
                "token `{token}` has the id {id}; more than {MAX_VOCABULARY} tokens are not supported"
            );
            return Err(TextError::Build(reason));
        }
        if id >= spellings.len() {
            spellings.resize(id + 1, String::new());
        }
        spellings[id] = token;
    }
    Ok(spellings)
}

impl std::fmt::Debug for Pieces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pieces")
            .field("len", &self.len())
            .field("start", &self.start)
            .finish_non_exhaustive()
    }
}

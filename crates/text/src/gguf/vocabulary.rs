//! The tokens of a GGUF file, checked against each other.

use std::collections::HashMap;

use multigraft_weights::gguf::Metadata;

use crate::{TextError, tokenizer::MAX_VOCABULARY};

const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";

/// Keys of tokens that are special, whatever their type.
const SPECIAL_IDS: [&str; 6] = [
    "tokenizer.ggml.bos_token_id",
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.eom_token_id",
    "tokenizer.ggml.unknown_token_id",
    "tokenizer.ggml.padding_token_id",
];

/// The type of a token; the numbers are those of the file format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenType {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

/// All tokens by id. Spellings are unique, except for the empty one: empty tokens pad a vocabulary
/// to a round size, and no text encodes to them.
#[derive(Debug)]
pub(super) struct Vocabulary<'a> {
    tokens: &'a [String],
    types: Vec<TokenType>,
    ids: HashMap<&'a str, u32>,
}

impl<'a> Vocabulary<'a> {
    pub(super) fn read(metadata: &'a Metadata) -> Result<Self, TextError> {
        let tokens = match metadata.strings(TOKENS) {
            Some(tokens) if !tokens.is_empty() && tokens.len() <= MAX_VOCABULARY => tokens,
            Some(tokens) => {
                return Err(invalid(
                    TOKENS,
                    format!("has {} tokens, not 1 to {MAX_VOCABULARY}", tokens.len()),
                ));
            }
            None if metadata.get(TOKENS).is_some() => {
                return Err(invalid(TOKENS, "is not an array of strings".into()));
            }
            None => {
                return Err(TextError::MissingMetadata {
                    key: TOKENS,
                    consequence: "it lists the vocabulary",
                });
            }
        };
        let mut ids = HashMap::with_capacity(tokens.len());
        for (id, token) in (0..).zip(tokens).filter(|(_, token)| !token.is_empty()) {
            if let Some(first) = ids.insert(token.as_str(), id) {
                return Err(invalid(
                    TOKENS,
                    format!("has `{token}` twice, as token {first} and as token {id}"),
                ));
            }
        }
        let mut vocabulary = Self {
            tokens,
            types: read_types(metadata, tokens.len())?,
            ids,
        };
        for key in SPECIAL_IDS {
            if let Some(id) = vocabulary.named_id(metadata, key)? {
                let token_type = &mut vocabulary.types[id as usize];
                if *token_type != TokenType::Unknown {
                    *token_type = TokenType::Control;
                }
            }
        }
        Ok(vocabulary)
    }

    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Every token with its id and type.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &'a str, TokenType)> {
        (0..)
            .zip(self.tokens)
            .zip(&self.types)
            .map(|((id, token), &kind)| (id, token.as_str(), kind))
    }

    pub(super) fn token(&self, id: u32) -> &'a str {
        &self.tokens[id as usize]
    }

    pub(super) fn id(&self, token: &str) -> Option<u32> {
        self.ids.get(token).copied()
    }

    /// The token id that `key` holds, if the file has the key.
    pub(super) fn named_id(&self, metadata: &Metadata, key: &'static str) -> Result<Option<u32>, TextError> {
        match (metadata.u32(key), metadata.get(key)) {
            (None, None) => Ok(None),
            (None, Some(_)) => Err(invalid(key, "is not a token id".into())),
            (Some(id), _) if (id as usize) < self.len() => Ok(Some(id)),
            (Some(id), _) => Err(invalid(
                key,
                format!("is {id}, but the vocabulary has {} tokens", self.len()),
            )),
        }
    }

    /// The score of every token.
    pub(super) fn scores(&self, metadata: &'a Metadata) -> Result<std::borrow::Cow<'a, [f32]>, TextError> {
        let Some(scores) = metadata.f32s(SCORES) else {
            return Err(TextError::MissingMetadata {
                key: SCORES,
                consequence: "a SentencePiece vocabulary is ordered by them",
            });
        };
        same_length(SCORES, scores.len(), self.len())?;
        match scores.iter().position(|score| score.is_nan()) {
            Some(id) => Err(invalid(
                SCORES,
                format!("has no number for token {id} (`{}`)", self.tokens[id]),
            )),
            None => Ok(scores),
        }
    }
}

fn read_types(metadata: &Metadata, count: usize) -> Result<Vec<TokenType>, TextError> {
    let Some(numbers) = metadata.i32s(TYPES) else {
        return match metadata.get(TYPES) {
            Some(_) => Err(invalid(TYPES, "is not an array of integers".into())),
            None => Ok(vec![TokenType::Normal; count]),
        };
    };
    same_length(TYPES, numbers.len(), count)?;
    let parse = |(id, number)| match number {
        0 | 1 => Ok(TokenType::Normal),
        2 => Ok(TokenType::Unknown),
        3 => Ok(TokenType::Control),
        4 => Ok(TokenType::UserDefined),
        5 => Ok(TokenType::Unused),
        6 => Ok(TokenType::Byte),
        other => Err(invalid(
            TYPES,
            format!("has {other} for token {id}; types are 0 to 6"),
        )),
    };
    numbers
        .into_iter()
        .enumerate()
        .map(|(id, number)| parse((id, number)))
        .collect()
}

fn same_length(key: &'static str, length: usize, tokens: usize) -> Result<(), TextError> {
    if length == tokens {
        return Ok(());
    }
    Err(invalid(key, format!("has {length} entries for {tokens} tokens")))
}

pub(super) fn invalid(key: &'static str, reason: String) -> TextError {
    TextError::InvalidMetadata { key, reason }
}

//! SentencePiece BPE (`tokenizer.ggml.model` = `llama`): tokens are text with `▁` for the space,
//! bytes that no token covers have tokens of their own, and merges are implied by the tokens'
//! scores.

use std::{borrow::Cow, cmp::Ordering};

use multigraft_weights::gguf::Metadata;
use tokenizers::{
    NormalizerWrapper, Tokenizer as Inner,
    models::bpe::{BPE, Vocab},
    normalizers::{prepend::Prepend, replace::Replace, utils::Sequence},
};

use super::{
    Skeleton, flag,
    vocabulary::{Vocabulary, invalid},
};
use crate::{TextError, tokenizer::DecodeRules};

/// How a space is written in the vocabulary.
const SPACE: &str = "▁";

pub(super) fn skeleton(metadata: &Metadata, vocabulary: &Vocabulary<'_>) -> Result<Skeleton, TextError> {
    let family = Family::of(metadata);
    let space_prefix = flag(metadata, "tokenizer.ggml.add_space_prefix")?.unwrap_or(family != Family::Gemma);
    let scores = match family {
        // Gemma's scores are not in the order in which its tokens were merged; its ids are.
        Family::Gemma => None,
        Family::Llama | Family::Phi3 => Some(vocabulary.scores(metadata)?),
    };
    let tokens: Vec<Token<'_>> = vocabulary
        .iter()
        .map(|(id, token, _)| Token {
            id,
            spelling: if family == Family::Gemma {
                respelled(token)
            } else {
                token.into()
            },
            rank: scores.as_ref().map_or(-(id as f32), |scores| scores[id as usize]),
        })
        .collect();
    let vocab: Vocab = tokens
        .iter()
        .map(|token| (token.spelling.clone().into_owned(), token.id))
        .collect();
    if vocab.len() < tokens.len() {
        return Err(invalid(
            "tokenizer.ggml.tokens",
            "has a run of spaces twice, as spaces and as `▁`".into(),
        ));
    }
    let merges = implied_merges(&tokens, &vocab);
    let mut builder = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .fuse_unk(true)
        .byte_fallback(true);
    let unknown = vocabulary.named_id(metadata, "tokenizer.ggml.unknown_token_id")?;
    if let Some(unknown) = unknown
        .map(|id| vocabulary.token(id))
        .filter(|token| !token.is_empty())
    {
        builder = builder.unk_token(unknown.to_owned());
    }
    let model = builder
        .build()
        .map_err(|error| TextError::Build(error.to_string()))?;
    let mut inner = Inner::new(model);
    inner
        .with_normalizer(Some(spaces_to_markers(space_prefix)?))
        .map_err(|error| TextError::Build(error.to_string()))?;
    Ok(Skeleton {
        inner,
        rules: DecodeRules::sentencepiece(space_prefix),
        add_bos: true,
        strips_after_control: family == Family::Phi3,
    })
}

/// SentencePiece models differ in properties that the file does not state; the architecture tells
/// them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Llama,
    Gemma,
    Phi3,
}

impl Family {
    fn of(metadata: &Metadata) -> Self {
        match metadata.str("general.architecture") {
            Some("gemma" | "gemma2" | "gemma3") => Self::Gemma,
            Some("phi3") => Self::Phi3,
            _ => Self::Llama,
        }
    }
}

/// Turns spaces into `▁`. With `space_prefix`, one is put before the text, and again after every
/// special token, as in the published `tokenizer.json` of these models.
fn spaces_to_markers(space_prefix: bool) -> Result<NormalizerWrapper, TextError> {
    let spaces = Replace::new(" ", SPACE).map_err(|error| TextError::Build(error.to_string()))?;
    Ok(if space_prefix {
        Sequence::new(vec![Prepend::new(SPACE.to_owned()).into(), spaces.into()]).into()
    } else {
        spaces.into()
    })
}

/// A token for BPE.
struct Token<'a> {
    id: u32,
    spelling: Cow<'a, str>,
    /// Tokens with higher scores are merged earlier.
    rank: f32,
}

/// A Gemma token in the form that merges use: the file stores runs of spaces as spaces, not as `▁`.
fn respelled(token: &str) -> Cow<'_, str> {
    if token.chars().all(|c| c == ' ') {
        token.replace(' ', SPACE).into()
    } else {
        token.into()
    }
}

/// The merges that a scored vocabulary implies: every split of a token into two tokens is a merge,
/// in order of the token's score, the highest first.
///
/// Ties are broken as the converters of `transformers` do: longer left half first, then longer
/// right half, then by the ids of the token and of its halves.
fn implied_merges(tokens: &[Token<'_>], ids: &Vocab) -> Vec<(String, String)> {
    struct Merge<'a> {
        halves: (&'a str, &'a str),
        ids: (u32, u32),
        rank: f32,
        lengths: (usize, usize),
    }
    let mut merges = Vec::new();
    for Token { spelling, rank, .. } in tokens {
        let first = merges.len();
        let length = spelling.chars().count();
        for (left_length, (cut, _)) in spelling.char_indices().enumerate().skip(1) {
            let halves = spelling.split_at(cut);
            if let Some(&left) = ids.get(halves.0)
                && let Some(&right) = ids.get(halves.1)
            {
                let lengths = (left_length, length - left_length);
                merges.push(Merge {
                    halves,
                    ids: (left, right),
                    rank: *rank,
                    lengths,
                });
            }
        }
        merges[first..].sort_unstable_by_key(|merge| merge.ids);
    }
    merges.sort_by(|a, b| {
        let by_rank = b.rank.partial_cmp(&a.rank).unwrap_or(Ordering::Equal);
        by_rank.then_with(|| b.lengths.cmp(&a.lengths))
    });
    merges
        .into_iter()
        .map(|merge| (merge.halves.0.to_owned(), merge.halves.1.to_owned()))
        .collect()
}

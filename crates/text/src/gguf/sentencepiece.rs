//! SentencePiece BPE (`tokenizer.ggml.model` = `llama`): tokens are text with `▁` for the space, bytes that no
//! token covers have tokens of their own, and merges are implied by the tokens' scores.

use std::cmp::Ordering;

use multigraft_weights::gguf::Metadata;
use tokenizers::{
    NormalizerWrapper, Tokenizer as Inner,
    models::bpe::{BPE, Vocab},
    normalizers::{prepend::Prepend, replace::Replace, utils::Sequence},
};

use super::{Skeleton, flag, vocabulary::Vocabulary};
use crate::{TextError, tokenizer::DecodeRules};

/// How a space is written in the vocabulary.
const SPACE: &str = "▁";

pub(super) fn skeleton(metadata: &Metadata, vocabulary: &Vocabulary<'_>) -> Result<Skeleton, TextError> {
    let family = Family::of(metadata);
    let space_prefix = flag(metadata, "tokenizer.ggml.add_space_prefix")?.unwrap_or(family != Family::Gemma);
    let spellings: Vec<String> = vocabulary
        .iter()
        .map(|(_, token, _)| {
            if family == Family::Gemma {
                respelled(token)
            } else {
                token.to_owned()
            }
        })
        .collect();
    let ranks: Vec<f32> = match family {
        // Gemma's scores are not in the order in which its tokens were merged; its ids are.
        Family::Gemma => (0..vocabulary.len()).map(|id| -(id as f32)).collect(),
        Family::Llama | Family::Phi3 => vocabulary.scores(metadata)?.into_owned(),
    };
    let vocab: Vocab = spellings.iter().cloned().zip(0..).collect();
    let merges = implied_merges(&spellings, &vocab, &ranks);
    let mut builder = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .fuse_unk(true)
        .byte_fallback(true);
    if let Some(unknown) = vocabulary.named_id(metadata, "tokenizer.ggml.unknown_token_id")? {
        builder = builder.unk_token(vocabulary.token(unknown).to_owned());
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

/// SentencePiece models differ in what the file does not say; the architecture tells them apart.
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

/// How spaces become `▁`. With `space_prefix`, one is put before the text, and again after every special token: that
/// is what the published `tokenizer.json` of these models do.
fn spaces_to_markers(space_prefix: bool) -> Result<NormalizerWrapper, TextError> {
    let spaces = Replace::new(" ", SPACE).map_err(|error| TextError::Build(error.to_string()))?;
    Ok(if space_prefix {
        Sequence::new(vec![Prepend::new(SPACE.to_owned()).into(), spaces.into()]).into()
    } else {
        spaces.into()
    })
}

/// A Gemma token as its merges know it: runs of spaces are stored as spaces, not as `▁`.
fn respelled(token: &str) -> String {
    if !token.is_empty() && token.chars().all(|c| c == ' ') {
        token.replace(' ', SPACE)
    } else {
        token.to_owned()
    }
}

/// The merges that a scored vocabulary implies: every way to cut a token into two tokens is a merge, the better
/// the token's score the earlier.
///
/// Ties are broken as the converters of `transformers` do: longer left half first, then longer right half, then
/// by the ids of the token and of its halves.
fn implied_merges(spellings: &[String], ids: &Vocab, ranks: &[f32]) -> Vec<(String, String)> {
    struct Merge<'a> {
        halves: (&'a str, &'a str),
        rank: f32,
        lengths: (usize, usize),
    }
    let mut merges = Vec::new();
    for (token, &rank) in spellings.iter().zip(ranks) {
        let first = merges.len();
        let length = token.chars().count();
        for (left_length, (cut, _)) in token.char_indices().enumerate().skip(1) {
            let halves = token.split_at(cut);
            if ids.contains_key(halves.0) && ids.contains_key(halves.1) {
                merges.push(Merge {
                    halves,
                    rank,
                    lengths: (left_length, length - left_length),
                });
            }
        }
        merges[first..].sort_by_key(|merge| (ids[merge.halves.0], ids[merge.halves.1]));
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

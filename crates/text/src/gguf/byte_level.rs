//! Byte-level BPE (`tokenizer.ggml.model` = `gpt2`): the tokens are written in GPT-2's byte
//! alphabet, and merges are listed by priority.

use multigraft_weights::gguf::Metadata;
use tokenizers::{
    Tokenizer as Inner,
    models::bpe::{BPE, Vocab},
};

use super::{
    Skeleton, pre_tokenizer, required_str,
    vocabulary::{Vocabulary, invalid},
};
use crate::{TextError, tokenizer::DecodeRules};

const MERGES: &str = "tokenizer.ggml.merges";
const PRE: &str = "tokenizer.ggml.pre";

pub(super) fn skeleton(metadata: &Metadata, vocabulary: &Vocabulary<'_>) -> Result<Skeleton, TextError> {
    let name = required_str(
        metadata,
        PRE,
        "text cannot be cut into words the way the model learned",
    )?;
    let pre = pre_tokenizer::named(name)?;
    let vocab: Vocab = vocabulary
        .iter()
        .map(|(id, token, _)| (token.to_owned(), id))
        .collect();
    let model = BPE::builder()
        .vocab_and_merges(vocab, merges(metadata, vocabulary)?)
        .ignore_merges(pre.whole_words)
        .build()
        .map_err(|error| TextError::Build(error.to_string()))?;
    let mut inner = Inner::new(model);
    inner
        .with_normalizer(pre.normalizer())
        .map_err(|error| TextError::Build(error.to_string()))?;
    inner.with_pre_tokenizer(Some(pre.pre_tokenizer()?));
    Ok(Skeleton {
        inner,
        rules: DecodeRules::byte_level(),
        add_bos: pre.add_bos,
        strips_after_control: false,
    })
}

/// The merges, each a pair of tokens whose concatenation is a token too.
fn merges(metadata: &Metadata, vocabulary: &Vocabulary<'_>) -> Result<Vec<(String, String)>, TextError> {
    let Some(lines) = metadata.strings(MERGES) else {
        return Err(TextError::MissingMetadata {
            key: MERGES,
            consequence: "BPE needs the list of merges",
        });
    };
    let mut whole = String::new();
    let mut merges = Vec::with_capacity(lines.len());
    for (index, line) in lines.iter().enumerate() {
        let Some((left, right)) = line
            .split_once(' ')
            .filter(|(left, right)| !left.is_empty() && !right.is_empty() && !right.contains(' '))
        else {
            return Err(invalid(
                MERGES,
                format!("has `{line}` as merge {index}, not two tokens with a space between"),
            ));
        };
        whole.clear();
        whole.push_str(left);
        whole.push_str(right);
        for token in [left, right, &whole] {
            if vocabulary.id(token).is_none() {
                return Err(invalid(
                    MERGES,
                    format!("names `{token}` in merge {index}, which is not a token"),
                ));
            }
        }
        merges.push((left.to_owned(), right.to_owned()));
    }
    Ok(merges)
}

//! The tokenizer that a GGUF file describes.
//!
//! The file lists the tokens, their scores or merges, and their types. Normalisation and
//! pre-tokenisation are only named (`tokenizer.ggml.model`, `tokenizer.ggml.pre`). The pipeline
//! behind each name is rebuilt here as in the `tokenizer.json` of the models that use it.

mod byte_level;
mod pre_tokenizer;
mod sentencepiece;
mod vocabulary;

use multigraft_weights::gguf::Metadata;
use tokenizers::{AddedToken, Tokenizer as Inner};

use crate::{
    TextError,
    tokenizer::{Affixes, DecodeRules, Parts},
};
use vocabulary::{TokenType, Vocabulary};

/// Kinds of tokenizer (`tokenizer.ggml.model`) that can be built.
const SUPPORTED_MODELS: &str = "gpt2, llama";

/// A tokenizer without its added tokens, and the defaults of its kind.
struct Skeleton {
    inner: Inner,
    rules: DecodeRules,
    /// Whether a beginning-of-text token is put before every text, unless the file says otherwise.
    add_bos: bool,
    /// Whether a control token absorbs the white space after it.
    strips_after_control: bool,
}

pub(crate) fn parts(metadata: &Metadata) -> Result<Parts, TextError> {
    let model = required_str(metadata, "tokenizer.ggml.model", "it names the kind of tokenizer")?;
    let build_skeleton = match model {
        "gpt2" => byte_level::skeleton,
        "llama" => sentencepiece::skeleton,
        other => {
            return Err(TextError::UnsupportedModel {
                model: other.to_owned(),
                supported: SUPPORTED_MODELS,
            });
        }
    };
    let vocabulary = Vocabulary::read(metadata)?;
    let Skeleton {
        mut inner,
        rules,
        add_bos,
        strips_after_control,
    } = build_skeleton(metadata, &vocabulary)?;
    add_tokens(&mut inner, &vocabulary, strips_after_control)?;

    let bos = vocabulary.named_id(metadata, "tokenizer.ggml.bos_token_id")?;
    let eos = vocabulary.named_id(metadata, "tokenizer.ggml.eos_token_id")?;
    let mut ends: Vec<u32> = eos.into_iter().collect();
    for key in ["tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"] {
        ends.extend(vocabulary.named_id(metadata, key)?);
    }
    let add_bos = flag(metadata, "tokenizer.ggml.add_bos_token")?.unwrap_or(add_bos);
    let add_eos = flag(metadata, "tokenizer.ggml.add_eos_token")?.unwrap_or(false);
    let affixes = Affixes::Fixed {
        before: bos.filter(|_| add_bos),
        after: eos.filter(|_| add_eos),
    };
    Ok(Parts {
        inner,
        rules,
        affixes,
        bos,
        eos: ends,
    })
}

/// Adds the tokens that are matched in a text before it is normalised.
fn add_tokens(inner: &mut Inner, vocabulary: &Vocabulary<'_>, strips_after: bool) -> Result<(), TextError> {
    let added = vocabulary
        .iter()
        .filter_map(|(_, token, token_type)| match token_type {
            TokenType::Control | TokenType::Unknown => {
                let rstrip = strips_after && !KEEP_SPACE_AFTER.contains(&token);
                Some(AddedToken::from(token, true).rstrip(rstrip))
            }
            TokenType::UserDefined => {
                let rstrip = strips_after && token == "</s>";
                Some(AddedToken::from(token, false).normalized(false).rstrip(rstrip))
            }
            TokenType::Normal | TokenType::Unused | TokenType::Byte => None,
        });
    // A spelling that the kind of tokenizer rewrote (Gemma's runs of spaces) is not in the model
    // under this name any more: adding it would create a new token.
    let added: Vec<_> = added
        .filter(|token| inner.token_to_id(&token.content).is_some())
        .collect();
    inner
        .add_tokens(added)
        .map_err(|error| TextError::Build(error.to_string()))?;
    Ok(())
}

/// Control tokens that do not absorb the white space after them, in models whose other control
/// tokens do.
const KEEP_SPACE_AFTER: [&str; 3] = ["<unk>", "<s>", "<|endoftext|>"];

/// A required string.
fn required_str<'a>(
    metadata: &'a Metadata,
    key: &'static str,
    consequence: &'static str,
) -> Result<&'a str, TextError> {
    match metadata.str(key) {
        Some(value) => Ok(value),
        None if metadata.get(key).is_some() => Err(TextError::InvalidMetadata {
            key,
            reason: "is not a string".into(),
        }),
        None => Err(TextError::MissingMetadata { key, consequence }),
    }
}

/// An optional boolean; a value of another type is an error.
fn flag(metadata: &Metadata, key: &'static str) -> Result<Option<bool>, TextError> {
    match (metadata.bool(key), metadata.get(key)) {
        (None, Some(_)) => Err(TextError::InvalidMetadata {
            key,
            reason: "is not true or false".into(),
        }),
        (value, _) => Ok(value),
    }
}

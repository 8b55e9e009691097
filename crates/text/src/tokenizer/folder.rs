//! The tokenizer of a Hugging Face model folder.

use std::path::Path;

use serde_json::Value;
use tokenizers::AddedToken;

use super::{Affixes, DecodeRules, Parts, Tokenizer};
use crate::{
    TextError,
    files::{invalid, read_json},
};

/// The named special tokens of `tokenizer_config.json` and `special_tokens_map.json`.
const SPECIAL_NAMES: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

pub(super) fn load(folder: &Path) -> Result<Tokenizer, TextError> {
    let path = folder.join("tokenizer.json");
    let Some(json) = read_json(&path)? else {
        return Err(invalid(
            &path,
            "there is no such file; the folder needs the tokenizer in this format",
        ));
    };
    let rules = DecodeRules::parse(&json["decoder"]).map_err(|reason| invalid(&path, reason))?;
    check_merges(&json["model"]).map_err(|reason| invalid(&path, reason))?;
    let mut inner: tokenizers::Tokenizer = serde_json::from_value(json)
        .map_err(|error| invalid(&path, format!("is not a tokenizer: {error}")))?;

    let settings = Settings::read(folder)?;
    let named = SPECIAL_NAMES
        .iter()
        .filter_map(|name| settings.token(name))
        .filter(|token| {
            inner.token_to_id(token).is_some()
                && !inner.get_added_vocabulary().get_vocab().contains_key(*token)
        });
    let named: Vec<_> = named.map(|token| AddedToken::from(token, true)).collect();
    inner
        .add_special_tokens(named)
        .map_err(|error| TextError::Build(error.to_string()))?;

    let id = |name: &str| settings.token(name).and_then(|token| inner.token_to_id(token));
    let (bos, eos) = (id("bos_token"), id("eos_token"));
    let affixes = match (settings.flag("add_bos_token"), settings.flag("add_eos_token")) {
        (None, None) => Affixes::PostProcessor,
        (add_bos, add_eos) => Affixes::Fixed {
            before: bos.filter(|_| add_bos == Some(true)),
            after: eos.filter(|_| add_eos == Some(true)),
        },
    };
    let bos = bos.or_else(|| settings.generation_ids("bos_token_id").first().copied());
    let eos = eos
        .into_iter()
        .chain(settings.generation_ids("eos_token_id"))
        .collect();
    Tokenizer::assemble(Parts {
        inner,
        rules,
        affixes,
        bos,
        eos,
    })
}

/// The folder's files beside `tokenizer.json`; each is `null` where it is missing.
struct Settings {
    tokenizer: Value,
    special_tokens: Value,
    generation: Value,
    model: Value,
}

impl Settings {
    fn read(folder: &Path) -> Result<Self, TextError> {
        let read = |name: &str| Ok::<_, TextError>(read_json(&folder.join(name))?.unwrap_or_default());
        Ok(Self {
            tokenizer: read("tokenizer_config.json")?,
            special_tokens: read("special_tokens_map.json")?,
            generation: read("generation_config.json")?,
            model: read("config.json")?,
        })
    }

    /// The spelling of a named special token: given as a string, or as an object with its
    /// `content`.
    fn token(&self, name: &str) -> Option<&str> {
        [&self.tokenizer[name], &self.special_tokens[name]]
            .into_iter()
            .find_map(|token| token.as_str().or_else(|| token["content"].as_str()))
    }

    fn flag(&self, name: &str) -> Option<bool> {
        self.tokenizer[name].as_bool()
    }

    /// One id or a list of them, from `generation_config.json`, else from `config.json`.
    fn generation_ids(&self, name: &str) -> Vec<u32> {
        let ids = |value: &Value| -> Vec<u32> {
            let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
            match value {
                Value::Array(values) => values.iter().filter_map(id).collect(),
                value => id(value).into_iter().collect(),
            }
        };
        let from_generation = ids(&self.generation[name]);
        if from_generation.is_empty() {
            ids(&self.model[name])
        } else {
            from_generation
        }
    }
}

/// Checks what the `tokenizers` crate takes on trust when it builds a BPE model: that both halves
/// of every merge and the whole are tokens.
fn check_merges(model: &Value) -> Result<(), String> {
    let (Some(vocabulary), Some(merges)) = (model["vocab"].as_object(), model["merges"].as_array()) else {
        return Ok(());
    };
    if model["continuing_subword_prefix"]
        .as_str()
        .is_some_and(|prefix| !prefix.is_empty())
    {
        return Err("`continuing_subword_prefix` is not supported".into());
    }
    for (index, merge) in merges.iter().enumerate() {
        let halves = match merge {
            Value::String(merge) => merge.split_once(' '),
            Value::Array(halves) => match halves.as_slice() {
                [left, right] => left.as_str().zip(right.as_str()),
                _ => None,
            },
            _ => None,
        };
        let Some((left, right)) = halves else {
            return Err(format!("merge {index} is not a pair of tokens"));
        };
        let whole = format!("{left}{right}");
        for token in [left, right, &whole] {
            if !vocabulary.contains_key(token) {
                return Err(format!(
                    "merge {index} names `{token}`, which is not in the vocabulary"
                ));
            }
        }
    }
    Ok(())
}

//! The types of settings that are neither numbers nor texts.

use std::{collections::BTreeMap, path::PathBuf, str::FromStr};

use clap::ValueEnum;
use multigraft_sources::{AllowedSource, Reference};
use serde::{Deserialize, Deserializer, de::Error as _};

/// The type of adapter weights in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AdapterDtype {
    /// 16-bit brain floats.
    Bf16,
    /// 32-bit floats.
    F32,
    /// 8-bit integers with a scale for every sixteen. Modules that replace those of the base stay
    /// in bf16.
    Int8,
}

/// What happens to adapters that fail their self test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SelfTestMode {
    /// They are not tested.
    Off,
    /// They are served, with a warning.
    Warn,
    /// They are not served.
    Refuse,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

/// The type of keys and values in the KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum KvDtype {
    /// 16-bit brain floats.
    Bf16,
    /// 32-bit floats.
    F32,
    /// 8-bit integers with a scale for each head of each position.
    Int8,
}

impl From<KvDtype> for multigraft_model::KvDtype {
    fn from(dtype: KvDtype) -> Self {
        match dtype {
            KvDtype::Bf16 => Self::Bf16,
            KvDtype::F32 => Self::F32,
            KvDtype::Int8 => Self::Int8,
        }
    }
}

/// An adapter: `NAME=SOURCE`, or a source that has a name itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedSource {
    /// Its name in requests.
    pub name: String,
    /// Its source.
    pub at: Reference,
}

impl FromStr for NamedSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let problem = || {
            format!(
                "`{text}` is not NAME=SOURCE or a source, such as support=./adapters/support or hf://org/support"
            )
        };
        let (name, source) = match text.split_once('=') {
            Some((name, source)) => (Some(name.to_owned()), source),
            None => (None, text),
        };
        if source.is_empty() {
            return Err(problem());
        }
        let at = Reference::parse(source).map_err(|error| error.to_string())?;
        let name = name.or_else(|| at.default_name()).filter(|name| !name.is_empty());
        Ok(Self {
            name: name.ok_or_else(problem)?,
            at,
        })
    }
}

/// The local path of a base model: `NAME=PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BaseAlias {
    /// The name that adapters have for it.
    pub name: String,
    /// Its file or folder.
    pub path: PathBuf,
}

impl FromStr for BaseAlias {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, path)) if !name.is_empty() && !path.is_empty() => Ok(Self {
                name: name.to_owned(),
                path: path.into(),
            }),
            _ => Err(format!(
                "`{text}` is not NAME=PATH, such as mistralai/Mistral-7B-v0.1=./mistral.gguf"
            )),
        }
    }
}

pub(super) fn named_sources<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<NamedSource>, D::Error> {
    let table = BTreeMap::<String, String>::deserialize(deserializer)?;
    let sources = table.into_iter().map(|(name, source)| {
        let at = Reference::parse(&source).map_err(D::Error::custom)?;
        Ok(NamedSource { name, at })
    });
    sources.collect()
}

pub(super) fn base_aliases<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<BaseAlias>, D::Error> {
    let table = BTreeMap::<String, PathBuf>::deserialize(deserializer)?;
    let aliases = table.into_iter().map(|(name, path)| BaseAlias { name, path });
    Ok(aliases.collect())
}

pub(super) fn allowed_sources<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<AllowedSource>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    let sources = texts.iter().map(|text| text.parse().map_err(D::Error::custom));
    sources.collect()
}

/// One thread for each core that this process may use.
pub(crate) fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adapter_is_a_name_and_a_source_or_a_source() {
        for (text, name, source) in [
            ("a=./x=y", "a", "./x=y"),
            ("./adapters/support", "support", "./adapters/support"),
            ("support/", "support", "support/"),
            // As in TGI's LORA_ADAPTERS.
            ("org/repo", "org/repo", "hf://org/repo"),
            ("org/repo@v1", "org/repo", "hf://org/repo@v1"),
            ("a=org/repo@v1", "a", "hf://org/repo@v1"),
            ("a=s3://bucket/x", "a", "s3://bucket/x"),
            ("./support.gguf", "support", "./support.gguf"),
        ] {
            let named: NamedSource = text.parse().expect(text);
            assert_eq!(
                (named.name.as_str(), named.at.to_string().as_str()),
                (name, source)
            );
        }
        for bad in ["=x", "a=", "", "..", "/", "a=ftp://x"] {
            assert!(bad.parse::<NamedSource>().is_err(), "{bad}");
        }
    }
}

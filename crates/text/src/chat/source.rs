//! Where template texts come from, and what is done to them before they are compiled.

use std::path::Path;

use multigraft_weights::gguf::Metadata;
use serde_json::Value;

use super::{ChatTemplate, DEFAULT, TOOL_USE};
use crate::{
    TextError,
    files::{invalid, read_json, read_optional},
};

const KEY: &str = "tokenizer.chat_template";

/// The texts of a model's templates.
pub(super) struct Source {
    default: String,
    tool_use: Option<String>,
}

impl Source {
    pub(super) fn compile(self) -> Result<ChatTemplate, TextError> {
        ChatTemplate::with_tool_use(&self.default, self.tool_use.as_deref())
    }
}

pub(super) fn from_gguf(metadata: &Metadata) -> Result<Option<Source>, TextError> {
    let tool_use = metadata
        .str("tokenizer.chat_template.tool_use")
        .map(str::to_owned);
    match (metadata.str(KEY), metadata.get(KEY)) {
        (Some(default), _) => Ok(Some(Source {
            default: default.to_owned(),
            tool_use,
        })),
        (None, Some(_)) => Err(TextError::InvalidMetadata {
            key: KEY,
            reason: "is not a string".into(),
        }),
        (None, None) => Ok(None),
    }
}

pub(super) fn from_folder(folder: &Path) -> Result<Option<Source>, TextError> {
    let path = folder.join("chat_template.jinja");
    if let Some(bytes) = read_optional(&path)? {
        let default = String::from_utf8(bytes).map_err(|_| invalid(&path, "is not UTF-8"))?;
        let path = folder.join("additional_chat_templates").join("tool_use.jinja");
        let tool_use = read_optional(&path)?
            .map(|bytes| String::from_utf8(bytes).map_err(|_| invalid(&path, "is not UTF-8")))
            .transpose()?;
        return Ok(Some(Source { default, tool_use }));
    }
    let path = folder.join("tokenizer_config.json");
    let config = read_json(&path)?.unwrap_or_default();
    match &config["chat_template"] {
        Value::Null => Ok(None),
        Value::String(default) => Ok(Some(Source {
            default: default.clone(),
            tool_use: None,
        })),
        Value::Array(named) => {
            let template = |name: &str| {
                let entry = named.iter().find(|entry| entry["name"] == name)?;
                entry["template"].as_str().map(str::to_owned)
            };
            let Some(default) = template(DEFAULT) else {
                return Err(invalid(
                    &path,
                    "the list `chat_template` has no template named `default`",
                ));
            };
            Ok(Some(Source {
                default,
                tool_use: template(TOOL_USE),
            }))
        }
        _ => Err(invalid(
            &path,
            "`chat_template` is neither a string nor a list of templates",
        )),
    }
}

/// Replaces `{% generation %}` … `{% endgeneration %}`, which mark the assistant's words for training and print
/// nothing, by a block that prints nothing either.
pub(super) fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start + 2);
        out.push_str(before);
        rest = tag;
        let inner = tag.trim_start_matches(['-', '+']).trim_start();
        for (name, replacement) in [("generation", "with"), ("endgeneration", "endwith")] {
            let Some(after) = inner.strip_prefix(name) else {
                continue;
            };
            if after
                .trim_start()
                .trim_start_matches(['-', '+'])
                .starts_with("%}")
            {
                out.push_str(&tag[..tag.len() - inner.len()]);
                out.push_str(replacement);
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generation_tags_become_blocks_that_print_nothing() {
        let same = |source: &str| assert_eq!(without_generation_tags(source), source);
        assert_eq!(
            without_generation_tags("a{%- generation -%}b{% endgeneration %}c{%+endgeneration+%}"),
            "a{%- with -%}b{% endwith %}c{%+endwith+%}"
        );
        same("{% if generation %}{{ generation }}{% endif %}");
        same("{% generation_config %}{% set generation = 1 %}");
        same("no tags, {% unfinished");
        same("{%");
    }
}

//! Where template texts come from, and how they are prepared for compiling.

use std::path::Path;

use multigraft_weights::gguf::Metadata;
use serde::Deserialize;
use serde_json::Value;

use super::{ChatTemplate, DEFAULT, TOOL_USE, tags::tags};
use crate::{
    TextError,
    files::{invalid, read_optional},
};

const KEY: &str = "tokenizer.chat_template";

/// The file that holds only a template.
pub(super) const JINJA: &str = "chat_template.jinja";

/// The file beside it with the template for conversations with tools.
pub(super) const TOOL_USE_JINJA: &str = "additional_chat_templates/tool_use.jinja";

/// The files that may hold a folder's template, as `transformers` writes them. The first that holds
/// one is used.
pub const TEMPLATE_FILES: [&str; 3] = [JINJA, "tokenizer_config.json", "chat_template.json"];

const NOT_UTF8: &str = "is not UTF-8";

/// The fields that are read of a JSON file, which may also hold a whole vocabulary.
#[derive(Deserialize)]
struct Holder {
    #[serde(default)]
    chat_template: Value,
}

/// The largest template that is compiled, in bytes; the largest in use have about 30,000.
const MAX_SOURCE: usize = 128 << 10;

/// The most code in one tag, in bytes without strings and white space. Compiling a chain of
/// operators takes time that grows with the square of its length: below a second for a whole
/// template of chains as long as this.
const MAX_TAG_CODE: usize = 4 << 10;

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
    for name in TEMPLATE_FILES {
        let path = folder.join(name);
        let Some(bytes) = read_optional(&path)? else {
            continue;
        };
        let Some(mut source) = from_file(name, &bytes).map_err(|reason| invalid(&path, reason))? else {
            continue;
        };
        if name == JINJA {
            let path = folder.join(TOOL_USE_JINJA);
            source.tool_use = read_optional(&path)?
                .map(|bytes| String::from_utf8(bytes).map_err(|_| invalid(&path, NOT_UTF8)))
                .transpose()?;
        }
        return Ok(Some(source));
    }
    Ok(None)
}

/// The templates in a file called `name`, one of [`TEMPLATE_FILES`]; `None` if it is JSON that
/// holds none.
///
/// # Errors
///
/// What is wrong with the file, as a predicate for a sentence that begins with its name.
pub(super) fn from_file(name: &str, bytes: &[u8]) -> Result<Option<Source>, String> {
    if name == JINJA {
        let default = str::from_utf8(bytes).map_err(|_| NOT_UTF8)?.to_owned();
        let tool_use = None;
        return Ok(Some(Source { default, tool_use }));
    }
    let Holder { chat_template } =
        serde_json::from_slice(bytes).map_err(|error| format!("is not valid JSON: {error}"))?;
    match chat_template {
        Value::Null => Ok(None),
        Value::String(default) => Ok(Some(Source {
            default,
            tool_use: None,
        })),
        Value::Array(named) => {
            let template = |name: &str| {
                let entry = named.iter().find(|entry| entry["name"] == name)?;
                entry["template"].as_str().map(str::to_owned)
            };
            let Some(default) = template(DEFAULT) else {
                return Err("the list `chat_template` has no template named `default`".to_owned());
            };
            Ok(Some(Source {
                default,
                tool_use: template(TOOL_USE),
            }))
        }
        _ => Err("`chat_template` is neither a string nor a list of templates".to_owned()),
    }
}

/// The text that is compiled for `source`.
///
/// `{% generation %}` … `{% endgeneration %}` mark the assistant's text for training and print
/// nothing themselves. They are replaced by a block that does not either.
///
/// # Errors
///
/// If the template, or one of its tags, exceeds the limit.
pub(super) fn prepare(source: &str) -> Result<String, TextError> {
    if source.len() > MAX_SOURCE {
        let reason = format!(
            "it has {} bytes, more than {MAX_SOURCE} are not compiled",
            source.len()
        );
        return Err(TextError::TemplateSyntax(reason));
    }
    let mut out = String::with_capacity(source.len());
    let mut copied = 0;
    for tag in tags(source) {
        if tag.code > MAX_TAG_CODE {
            let line = 1 + source[..tag.inside.start].matches('\n').count();
            let reason = format!(
                "the tag on line {line} has {} bytes without strings, more than {MAX_TAG_CODE} are not compiled",
                tag.code
            );
            return Err(TextError::TemplateSyntax(reason));
        }
        let replacement = match source[tag.inside.clone()].trim() {
            "generation" if tag.is_block => " with ",
            "endgeneration" if tag.is_block => " endwith ",
            _ => continue,
        };
        out.push_str(&source[copied..tag.inside.start]);
        out.push_str(replacement);
        copied = tag.inside.end;
    }
    out.push_str(&source[copied..]);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generation_tags_become_blocks_that_print_nothing() {
        let same = |source: &str| assert_eq!(prepare(source).unwrap(), source);
        assert_eq!(
            prepare("a{%- generation -%}b{% endgeneration %}c{%+endgeneration+%}").unwrap(),
            "a{%- with -%}b{% endwith %}c{%+ endwith +%}"
        );
        same("{% if generation %}{{ generation }}{% endif %}");
        same("{% generation_config %}{% set generation = 1 %}");
        same("{{ '{% generation %}' }}{% raw %}{% generation %}{% endraw %}");
        same("no tags, {% unfinished");
        same("{%");
    }
}

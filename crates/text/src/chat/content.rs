//! Message content: one string, or a list of parts.
//!
//! OpenAI's API allows both. Some templates print `content` as a string, some go through its parts, some do
//! both. Which is found out once, by rendering a message of each form and looking for its text.

use std::borrow::Cow;

use serde_json::{Value, json};

use crate::TextError;

/// A text that no template writes by itself.
const NEEDLE: &str = "needle-7f3a";

/// The form of content that a template takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ContentForm {
    /// Strings only; lists of parts are put together into one string.
    Text,
    /// Lists of parts only; a string is handed over as a list of one.
    Parts,
    /// Either.
    Both,
}

impl ContentForm {
    /// Finds out which form is taken by the template behind `render`.
    pub(super) fn probe(render: impl Fn(&[Value]) -> Result<String, TextError>) -> Self {
        let shows = |content: Value| {
            let text = render(&[json!({ "role": "user", "content": content })]).unwrap_or_default();
            // A list that is printed as a whole also shows the names of its fields.
            text.contains(NEEDLE) && !text.contains("'type'") && !text.contains("\"type\"")
        };
        match (
            shows(json!(NEEDLE)),
            shows(json!([{ "type": "text", "text": NEEDLE }])),
        ) {
            (true, true) => Self::Both,
            (false, true) => Self::Parts,
            (_, false) => Self::Text,
        }
    }

    /// Brings content into this form. What is neither text nor a list of parts is left to the template.
    ///
    /// # Errors
    ///
    /// If a message is not an object, or the parts of a list have to be put together and are not text.
    pub(super) fn apply(self, messages: &[Value]) -> Result<Cow<'_, [Value]>, TextError> {
        let mut changed = Cow::Borrowed(messages);
        for (index, message) in messages.iter().enumerate() {
            let invalid = |reason: String| TextError::InvalidMessage { index, reason };
            let Some(message) = message.as_object() else {
                return Err(invalid("a message is an object with `role` and `content`".into()));
            };
            let content = match message.get("content") {
                Some(Value::String(text)) if self == Self::Parts => json!([{ "type": "text", "text": text }]),
                Some(Value::Array(parts)) if self == Self::Text => {
                    Value::String(text_of(parts).map_err(invalid)?)
                }
                _ => continue,
            };
            changed.to_mut()[index]["content"] = content;
        }
        Ok(changed)
    }
}

/// The texts of all parts, put together.
fn text_of(parts: &[Value]) -> Result<String, String> {
    let mut text = String::new();
    for part in parts {
        match (part["type"].as_str(), part["text"].as_str()) {
            (Some("text"), Some(part)) => text.push_str(part),
            (Some("text"), None) => return Err("a part of type `text` has no `text`".into()),
            (Some(other), _) => {
                return Err(format!("parts of type `{other}` are not supported, only `text`"));
            }
            (None, _) => return Err("a part of `content` has no `type`".into()),
        }
    }
    Ok(text)
}

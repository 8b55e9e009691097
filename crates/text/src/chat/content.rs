//! Message content: one string, or a list of parts.
//!
//! OpenAI's API allows both. Some templates print `content` as a string, some iterate over its
//! parts, some do both. The form is detected once, by rendering a message of each form and looking
//! for its text.

use std::borrow::Cow;

use serde_json::{Value, json};

use crate::TextError;

/// A text that no template contains by itself.
const NEEDLE: &str = "needle-7f3a";

/// The form of content that a template handles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ContentForm {
    /// Strings only; the parts of a list are concatenated to one string.
    Text,
    /// Lists of parts only; a string is passed as a list of one.
    Parts,
    /// Both.
    Both,
}

impl ContentForm {
    /// Detects the form that the template behind `render` handles.
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

    /// Converts content to this form. Content that is neither a string nor a list of parts is left
    /// unchanged.
    ///
    /// # Errors
    ///
    /// If a message is not an object, or parts that have to be concatenated are not text.
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

/// The concatenated texts of all parts.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> Value {
        json!([{ "role": "user", "content": [{ "type": "text", "text": "a " }, { "type": "text", "text": "b" }] }])
    }

    fn content(form: ContentForm, messages: &Value) -> Value {
        form.apply(messages.as_array().unwrap()).unwrap()[0]["content"].clone()
    }

    #[test]
    fn parts_are_put_together_for_a_template_that_takes_text() {
        assert_eq!(content(ContentForm::Text, &parts()), "a b");
        assert_eq!(content(ContentForm::Both, &parts()), parts()[0]["content"]);
        assert_eq!(content(ContentForm::Parts, &parts()), parts()[0]["content"]);
    }

    #[test]
    fn text_becomes_a_part_for_a_template_that_takes_parts() {
        let message = json!([{ "role": "user", "content": "a" }]);
        assert_eq!(content(ContentForm::Text, &message), "a");
        assert_eq!(content(ContentForm::Both, &message), "a");
        assert_eq!(
            content(ContentForm::Parts, &message),
            json!([{ "type": "text", "text": "a" }])
        );
    }

    #[test]
    fn what_is_neither_is_left_to_the_template() {
        for other in [json!(null), json!(3), json!({ "temperature": 21 })] {
            assert_eq!(
                content(ContentForm::Text, &json!([{ "role": "tool", "content": other }])),
                other
            );
        }
    }

    #[test]
    fn parts_that_are_not_text_are_named_with_their_message() {
        let refused = [
            (
                json!([{ "type": "image_url" }]),
                "message 1: parts of type `image_url` are not supported, only `text`",
            ),
            (
                json!([{ "type": "text" }]),
                "message 1: a part of type `text` has no `text`",
            ),
            (json!(["a"]), "message 1: a part of `content` has no `type`"),
        ];
        for (content, reason) in refused {
            let messages = [
                json!({ "role": "system" }),
                json!({ "role": "user", "content": content }),
            ];
            assert_eq!(
                ContentForm::Text.apply(&messages).unwrap_err().to_string(),
                reason
            );
        }
        let error = ContentForm::Both
            .apply(&[json!("hello")])
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "message 0: a message is an object with `role` and `content`"
        );
    }
}

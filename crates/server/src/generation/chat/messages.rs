//! Chat messages in the form that templates expect: a role and plain text.

use serde_json::{Map, Value};

use crate::http::error::ApiError;

/// Checks the messages and brings them into the form that chat templates expect: `content` is a
/// string (text parts are joined, absent content is the empty string), and OpenAI's role
/// `developer` has its older name `system`. Other fields of a message are passed to the template.
pub(crate) fn normalise(messages: Vec<Value>) -> Result<Vec<Value>, ApiError> {
    if messages.is_empty() {
        return Err(ApiError::invalid(
            "messages",
            "`messages` is empty: there is nothing to answer",
        ));
    }
    messages
        .into_iter()
        .enumerate()
        .map(|(index, message)| normalise_one(&format!("messages[{index}]"), message))
        .collect()
}

fn normalise_one(path: &str, message: Value) -> Result<Value, ApiError> {
    let complain = |field: &str, problem: &str| {
        let field = format!("{path}{field}");
        let message = format!("`{field}` {problem}");
        ApiError::invalid(field, message)
    };
    let Value::Object(mut message) = message else {
        return Err(complain("", "must be an object with `role` and `content`"));
    };
    let role = match message.get("role") {
        Some(Value::String(role)) if role == "developer" => "system".to_owned(),
        Some(Value::String(role)) if !role.is_empty() => role.clone(),
        Some(_) => return Err(complain(".role", "must be a string that is not empty")),
        None => {
            return Err(complain(
                ".role",
                "is missing: it is `system`, `user` or `assistant`",
            ));
        }
    };
    let content = match message.remove("content") {
        Some(Value::String(text)) => text,
        Some(Value::Array(parts)) => text_of(parts).map_err(|problem| complain(".content", &problem))?,
        None | Some(Value::Null) if role == "assistant" => String::new(),
        None | Some(Value::Null) => return Err(complain(".content", "is missing")),
        Some(_) => return Err(complain(".content", "must be a string or a list of text parts")),
    };
    message.retain(|_, value| !value.is_null());
    // Role and content come first, because some templates print whole messages.
    let mut ordered = Map::new();
    ordered.insert("role".to_owned(), Value::String(role));
    ordered.insert("content".to_owned(), Value::String(content));
    message.remove("role");
    ordered.extend(message);
    Ok(Value::Object(ordered))
}

fn text_of(parts: Vec<Value>) -> Result<String, String> {
    let mut text = String::new();
    for part in parts {
        match (part.get("type").and_then(Value::as_str), part.get("text")) {
            (Some("text"), Some(Value::String(part))) => text.push_str(part),
            (Some("text"), _) => return Err("has a text part without `text`".to_owned()),
            (Some(kind), _) => return Err(format!("has a part of type `{kind}`; only `text` is supported")),
            (None, _) => return Err("has a part without `type`".to_owned()),
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn text_parts_are_joined_and_developer_is_system() {
        let messages = vec![
            json!({"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}),
            json!({"content": null, "role": "assistant", "refusal": null, "name": "n"}),
        ];
        assert_eq!(
            normalise(messages),
            Ok(vec![
                json!({"role": "system", "content": "ab"}),
                json!({"role": "assistant", "content": "", "name": "n"}),
            ])
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (message, field) in [
            (json!("hi"), "messages[0]"),
            (json!({"content": "x"}), "messages[0].role"),
            (json!({"role": 1, "content": "x"}), "messages[0].role"),
            (json!({"role": "user"}), "messages[0].content"),
            (json!({"role": "user", "content": 1}), "messages[0].content"),
            (
                json!({"role": "user", "content": [{"type": "image_url"}]}),
                "messages[0].content",
            ),
            (
                json!({"role": "user", "content": [{"text": "x"}]}),
                "messages[0].content",
            ),
        ] {
            let error = normalise(vec![message]).expect_err("should be refused");
            assert_eq!(error.field(), Some(field), "{error}");
        }
        assert!(normalise(Vec::new()).is_err());
    }
}

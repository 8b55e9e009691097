//! vLLM's `continue_final_message`: the prompt is cut where the last message ends, so that the
//! answer continues the message.
//!
//! Only the template knows what it writes after a message. So a marker is appended to the message,
//! as in transformers, and looked for in the rendered text.

use serde_json::{Value, json};

use crate::http::error::ApiError;

/// A text that no message contains. Its final space shows whether the template strips messages.
const MARK: &str = "\u{2038}continue-9d41\u{2038} ";

/// Appends a marker to the last message, and returns the marker.
pub(super) fn marked(messages: &mut [Value]) -> Result<String, ApiError> {
    let texts = messages.iter().filter_map(|message| message["content"].as_str());
    let mut mark = MARK.to_owned();
    while texts.clone().any(|text| text.contains(mark.trim_end())) {
        mark.insert(0, '\u{2038}');
    }
    let last = messages.last_mut();
    let content = last.and_then(|message| message.get_mut("content"));
    match content.and_then(|content| Some((content.as_str()?.to_owned(), content))) {
        Some((text, content)) if !text.trim().is_empty() => {
            *content = json!(text + &mark);
            Ok(mark)
        }
        _ => Err(refused("the last message has no text to go on from")),
    }
}

/// The text up to the marker.
pub(super) fn cut(mut text: String, mark: &str) -> Result<String, ApiError> {
    let Some(place) = text.rfind(mark.trim_end()) else {
        return Err(refused(
            "the chat template does not print the last message as it is",
        ));
    };
    let keeps_spaces = text[place..].starts_with(mark);
    text.truncate(place);
    if !keeps_spaces {
        text.truncate(text.trim_end().len());
    }
    Ok(text)
}

fn refused(reason: &str) -> ApiError {
    let field = "continue_final_message";
    ApiError::invalid(field, format!("`{field}`: {reason}"))
}

#[cfg(test)]
mod tests {
    use multigraft_text::{ChatInput, ChatTemplate};
    use serde_json::Map;

    use super::*;

    fn rendered(template: &str, last: &str) -> Result<String, ApiError> {
        let mut messages = vec![
            json!({"role": "user", "content": "a"}),
            json!({"role": "assistant", "content": last}),
        ];
        let mark = marked(&mut messages)?;
        let template = ChatTemplate::new(template).expect("a template");
        let input = ChatInput {
            messages: &messages,
            tools: None,
            add_generation_prompt: false,
            bos: "",
            eos: "",
            extra: &Map::new(),
        };
        cut(template.render(&input).expect("it renders"), &mark)
    }

    const KEEPS: &str = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s> end{% endfor %}";
    const STRIPS: &str = "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}</s>{% endfor %}";

    #[test]
    fn nothing_follows_the_last_message() {
        // The text of the last message occurs in what the template writes after it, too.
        assert_eq!(
            rendered(KEEPS, "end"),
            Ok("<user>a</s> end<assistant>end".to_owned())
        );
    }

    #[test]
    fn spaces_at_its_end_stay_if_the_template_keeps_them() {
        assert_eq!(
            rendered(KEEPS, "so: "),
            Ok("<user>a</s> end<assistant>so: ".to_owned())
        );
        assert_eq!(
            rendered(STRIPS, " so: "),
            Ok("<user>a</s><assistant>so:".to_owned())
        );
    }

    #[test]
    fn who_writes_the_mark_gets_another() {
        assert_eq!(
            rendered(KEEPS, MARK),
            Ok(format!("<user>a</s> end<assistant>{MARK}"))
        );
    }

    #[test]
    fn what_cannot_be_gone_on_from_is_refused() {
        assert!(rendered(KEEPS, " ").is_err());
        assert!(rendered("{{ messages[0].content }}", "x").is_err());
    }
}

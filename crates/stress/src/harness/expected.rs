//! Requests whose answers are known: they are the same whenever and beside whatever they are asked.

use serde_json::{Value, json};

/// What is asked.
pub(crate) const PROMPTS: [&str; 3] = [
    "The battery died after two days.",
    "Once upon a time",
    "Name three colours of the rainbow:",
];

/// Requests whose answers are known, since the likeliest token is taken at every step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Family {
    Chat,
    Completion,
    Tgi,
    Schema,
    Tool,
}

impl Family {
    pub(crate) const ALL: [Self; 5] =
        [Self::Chat, Self::Completion, Self::Tgi, Self::Schema, Self::Tool];

    pub(crate) fn name(self, stream: bool) -> &'static str {
        match (self, stream) {
            (Self::Chat, false) => "chat",
            (Self::Chat, true) => "chat, streamed",
            (Self::Completion, false) => "completion",
            (Self::Completion, true) => "completion, streamed",
            (Self::Tgi, false) => "TGI",
            (Self::Tgi, true) => "TGI, streamed",
            (Self::Schema, false) => "JSON by a schema",
            (Self::Schema, true) => "JSON by a schema, streamed",
            (Self::Tool, false) => "call of a tool",
            (Self::Tool, true) => "call of a tool, streamed",
        }
    }

    pub(crate) fn path(self, stream: bool) -> &'static str {
        match self {
            Self::Chat | Self::Schema | Self::Tool => "/v1/chat/completions",
            Self::Completion => "/v1/completions",
            Self::Tgi if stream => "/generate_stream",
            Self::Tgi => "/generate",
        }
    }

    pub(crate) fn body(self, model: &str, prompt: usize, stream: bool) -> Value {
        let prompt = PROMPTS[prompt];
        let mut chat = json!({"model": model, "messages": [{"role": "user", "content": prompt}], "temperature": 0,
            "max_tokens": 24, "stream": stream});
        match self {
            Self::Chat => {}
            Self::Completion => {
                return json!({"model": model, "prompt": prompt, "temperature": 0, "max_tokens": 24, "stream": stream});
            }
            Self::Tgi => {
                return json!({"inputs": prompt, "parameters": {"adapter_id": model, "max_new_tokens": 24}});
            }
            Self::Schema => {
                chat["response_format"] = json!({"type": "json_schema", "json_schema": {"name": "review", "schema": {
                    "type": "object", "required": ["mood", "stars"], "additionalProperties": false,
                    "properties": {"mood": {"enum": ["good", "bad"]}, "stars": {"type": "integer", "minimum": 1, "maximum": 5}}}}});
            }
            Self::Tool => {
                chat["tools"] = json!([{"type": "function", "function": {"name": "look_up", "parameters": {
                    "type": "object", "required": ["topic"], "additionalProperties": false,
                    "properties": {"topic": {"enum": ["colours", "batteries", "tales"]}}}}}]);
                chat["tool_choice"] = json!("required");
                chat["parallel_tool_calls"] = json!(false);
                chat["max_tokens"] = json!(64);
            }
        }
        chat
    }
}

//! Greedy requests. Their answers do not depend on when they are sent and on what else is running.

use serde_json::{Value, json};

/// The prompts of greedy requests.
pub(crate) const PROMPTS: [&str; 3] = [
    "The battery died after two days.",
    "Once upon a time",
    "Name three colours of the rainbow:",
];

/// The kinds of greedy requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum GreedyRequest {
    Chat,
    Completion,
    Tgi,
    Schema,
    Tool,
}

impl GreedyRequest {
    pub(crate) const ALL: [Self; 5] = [Self::Chat, Self::Completion, Self::Tgi, Self::Schema, Self::Tool];

    /// The name in tables.
    pub(crate) fn name(self, is_stream: bool) -> &'static str {
        match (self, is_stream) {
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

    /// The path that it is sent to.
    pub(crate) fn path(self, is_stream: bool) -> &'static str {
        match self {
            Self::Chat | Self::Schema | Self::Tool => "/v1/chat/completions",
            Self::Completion => "/v1/completions",
            Self::Tgi if is_stream => "/generate_stream",
            Self::Tgi => "/generate",
        }
    }

    /// The body of a request for the answer of `model` to the prompt with this index.
    pub(crate) fn body(self, model: &str, prompt: usize, is_stream: bool) -> Value {
        let prompt = PROMPTS[prompt];
        let mut chat = json!({"model": model, "messages": [{"role": "user", "content": prompt}], "temperature": 0,
            "max_tokens": 24, "stream": is_stream});
        match self {
            Self::Chat => {}
            Self::Completion => {
                return json!({"model": model, "prompt": prompt, "temperature": 0, "max_tokens": 24, "stream": is_stream});
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

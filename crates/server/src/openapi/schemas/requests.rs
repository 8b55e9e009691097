//! What requests that compute something hold.

use serde_json::{Value, json};

use super::{maybe, request, some};
use crate::contract::{
    fields::{Body, schema},
    limits::Limits,
    routes,
};

pub(super) fn requests(limits: &Limits) -> Vec<(&'static str, Value)> {
    let mut response = schema(Body::Response, limits);
    if let Some(response) = response.as_object_mut() {
        response.remove("additionalProperties");
        response.insert(
            "description".to_owned(),
            "And what chats have beyond OpenAI's fields".into(),
        );
    }
    vec![
        (
            "Message",
            json!({"type": "object", "required": ["role"], "properties": {
                "role": {"type": "string"},
                "content": {"type": ["string", "array", "null"]},
            }}),
        ),
        ("Weighted", schema(Body::Weighted, limits)),
        ("Numbered", schema(Body::Numbered, limits)),
        ("ChatRequest", schema(Body::Chat, limits)),
        ("CompletionRequest", schema(Body::Completion, limits)),
        ("ResponseRequest", response),
        (
            "BatchRequest",
            request(
                &["input_file_id", "endpoint", "completion_window"],
                json!({
                    "input_file_id": some(),
                    "endpoint": {"enum": routes::batch_paths().collect::<Vec<_>>()},
                    "completion_window": {"enum": ["24h"]},
                    "metadata": maybe("object"),
                    "output_expires_after": maybe("object"),
                }),
            ),
        ),
        (
            "AddFile",
            json!({"type": "object", "required": ["file", "purpose"], "properties": {
                "file": {"type": "string", "format": "binary"},
                "purpose": {"enum": ["batch"]},
                "expires_after[anchor]": {"enum": ["created_at"]},
                "expires_after[seconds]": {"type": "integer", "minimum": 3600, "maximum": 2_592_000},
            }}),
        ),
        ("EmbeddingsRequest", schema(Body::Embeddings, limits)),
        ("GenerateRequest", schema(Body::Generate, limits)),
        ("EmbedRequest", schema(Body::Embed, limits)),
        ("TokenizeRequest", schema(Body::Tokenize, limits)),
        ("ChatTokenizeRequest", schema(Body::ChatTokenize, limits)),
    ]
}

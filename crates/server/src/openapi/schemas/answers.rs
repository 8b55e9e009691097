//! What is answered to them.

use serde_json::{Value, json};

use super::{answer, at_least, count, join, list_of, maybe, page_of, schema};

pub(super) fn answers() -> Vec<(&'static str, Value)> {
    let text = || json!({"type": "string"});
    let head = json!({
        "id": text(), "object": text(), "created": count(), "model": text(), "system_fingerprint": text(), "usage": schema("Usage"),
    });
    let reason = json!({"enum": ["stop", "length", "tool_calls"]});
    let tokens = json!({"type": "array", "items": schema("Token")});
    vec![
        (
            "Error",
            answer(
                json!({"error": answer(json!({
            "message": text(), "type": text(), "param": maybe("string"), "code": {"type": "integer"},
        }), &[])}),
                &[],
            ),
        ),
        (
            "TgiError",
            answer(json!({"error": text(), "error_type": text()}), &[]),
        ),
        ("Anything", json!({})),
        (
            "Event",
            json!({"type": "object", "required": ["data"], "properties": {"data": {"type": "string",
            "description": "JSON: a chunk of the answer or an error; at the end of OpenAI's streams [DONE]"}}}),
        ),
        (
            "Usage",
            answer(
                json!({
                    "prompt_tokens": count(), "completion_tokens": count(), "total_tokens": count(),
                    "prompt_tokens_details": answer(json!({"cached_tokens": count()}), &[]),
                }),
                &[],
            ),
        ),
        (
            "Chat",
            answer(
                join([
                    head.clone(),
                    json!({"choices": {"type": "array", "items": answer(json!({
            "index": count(),
            "message": answer(json!({
                "role": {"const": "assistant"}, "content": maybe("string"),
                "tool_calls": {"type": "array", "items": {"type": "object"}},
            }), &["tool_calls"]),
            "logprobs": maybe("object"),
            "finish_reason": reason,
        }), &[])}}),
                ]),
                &[],
            ),
        ),
        (
            "Completion",
            answer(
                join([
                    head,
                    json!({"choices": {"type": "array", "items": answer(json!({
            "index": count(), "text": text(), "logprobs": maybe("object"), "finish_reason": reason,
        }), &[])}}),
                ]),
                &[],
            ),
        ),
        (
            "Embeddings",
            answer(
                json!({
                    "object": {"const": "list"}, "model": text(),
                    "data": {"type": "array", "items": answer(json!({
                        "object": {"const": "embedding"}, "index": count(),
                        "embedding": {"type": ["array", "string"], "items": {"type": "number"}},
                    }), &[])},
                    "usage": answer(json!({"prompt_tokens": count(), "total_tokens": count()}), &[]),
                }),
                &[],
            ),
        ),
        (
            "Response",
            json!({"type": "object",
                "required": ["id", "object", "created_at", "model", "status", "error", "incomplete_details", "output", "usage"],
                "properties": {
                    "id": text(), "object": {"const": "response"}, "created_at": count(), "model": text(),
                    "status": {"enum": ["completed", "incomplete", "failed", "in_progress"]},
                    "error": maybe("object"), "incomplete_details": maybe("object"),
                    "output": {"type": "array", "items": {"type": "object"}}, "usage": maybe("object"),
                },
            }),
        ),
        (
            "File",
            answer(
                json!({
                    "id": text(), "object": {"const": "file"}, "bytes": count(), "created_at": count(),
                    "expires_at": maybe("integer"), "filename": text(), "purpose": {"enum": ["batch", "batch_output"]},
                    "status": text(), "status_details": {"type": "null"},
                }),
                &[],
            ),
        ),
        ("Files", page_of("File")),
        (
            "Deleted",
            answer(
                json!({"id": text(), "object": text(), "deleted": {"const": true}}),
                &[],
            ),
        ),
        (
            "Batch",
            json!({"type": "object",
                "required": ["id", "object", "endpoint", "input_file_id", "completion_window", "status", "created_at", "request_counts"],
                "properties": {
                    "id": text(), "object": {"const": "batch"}, "endpoint": text(), "input_file_id": text(),
                    "completion_window": {"const": "24h"},
                    "status": {"enum": ["validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling",
                        "cancelled"]},
                    "output_file_id": maybe("string"), "error_file_id": maybe("string"), "errors": maybe("object"),
                    "created_at": count(), "request_counts": {"type": "object"}, "metadata": maybe("object"),
                },
            }),
        ),
        ("Batches", page_of("Batch")),
        (
            "Model",
            answer(
                json!({
                    "id": text(), "object": {"const": "model"}, "created": count(), "owned_by": text(), "root": text(),
                    "parent": maybe("string"), "max_model_len": count(), "hash": maybe("string"),
                }),
                &[],
            ),
        ),
        (
            "Models",
            answer(
                json!({"object": {"const": "list"}, "data": list_of("Model")}),
                &[],
            ),
        ),
        (
            "Token",
            answer(
                json!({"id": count(), "text": text(), "logprob": {"type": "number"}, "special": {"type": "boolean"}}),
                &[],
            ),
        ),
        (
            "Generated",
            answer(
                json!({
                    "generated_text": text(),
                    "details": {"anyOf": [{"type": "null"}, schema("Details")]},
                }),
                &[],
            ),
        ),
        (
            "Details",
            answer(
                json!({
                    "finish_reason": {"enum": ["length", "eos_token", "stop_sequence"]},
                    "prompt_tokens": count(), "generated_tokens": count(), "seed": at_least(0),
                    "prefill": {"type": "array", "items": answer(json!({"id": count(), "text": text(), "logprob": maybe("number")}), &[])},
                    "tokens": tokens, "top_tokens": {"type": "array", "items": tokens},
                    "adapter_id": text(), "adapter_hash": text(), "adapter_scale": {"type": "number"},
                }),
                &["top_tokens", "adapter_scale"],
            ),
        ),
        (
            "Embedded",
            answer(
                json!({"embeddings": {"type": "array", "items": {"type": "number"}}}),
                &[],
            ),
        ),
        (
            "Piece",
            answer(
                json!({"id": count(), "text": text(), "start": count(), "stop": count()}),
                &[],
            ),
        ),
        (
            "ChatTokenized",
            answer(
                json!({"tokenize_response": list_of("Piece"), "templated_text": text()}),
                &[],
            ),
        ),
        (
            "Info",
            answer(
                json!({
                    "model_id": text(), "max_concurrent_requests": count(), "max_stop_sequences": count(), "max_input_tokens": count(),
                    "max_total_tokens": count(), "router": text(), "version": text(), "model_architecture": text(),
                    "model_parameters": count(), "adapters": {"type": "array", "items": {"type": "object"}},
                }),
                &[],
            ),
        ),
        ("Version", answer(json!({"version": text()}), &[])),
        (
            "Ready",
            answer(
                json!({"status": {"enum": ["ready", "not ready"]}, "reason": {"type": "string"}}),
                &["reason"],
            ),
        ),
        (
            "Usages",
            answer(
                json!({
                    "object": {"const": "list"}, "from": count(), "to": count(),
                    "data": {"type": "array", "items": {"type": "object"}},
                }),
                &[],
            ),
        ),
        (
            "Stats",
            json!({"type": "object", "required": ["running", "waiting", "kv_blocks_used"],
            "additionalProperties": {"type": "number"}}),
        ),
    ]
}

//! What bodies look like. Of requests every field that has an effect is here; an absent field may as well be null.

#![expect(
    clippy::needless_pass_by_value,
    reason = "schemas are written where they are used"
)]

use serde_json::{Map, Value, json};

/// All schemas by name.
pub(super) fn all() -> Map<String, Value> {
    let mut all = Map::new();
    for (name, schema) in requests().into_iter().chain(answers()).chain(management()) {
        all.insert(name.to_owned(), schema);
    }
    all
}

/// An object of a request: nothing but these fields.
fn request(required: &[&str], properties: Value) -> Value {
    json!({"type": "object", "required": required, "properties": properties, "additionalProperties": false})
}

/// An object of an answer: these fields, of which `optional` may be left out.
fn answer(properties: Value, optional: &[&str]) -> Value {
    let fields = properties.as_object().into_iter().flat_map(Map::keys);
    let required: Vec<&String> = fields.filter(|name| !optional.contains(&name.as_str())).collect();
    json!({"type": "object", "required": required, "properties": properties})
}

fn schema(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn list_of(name: &str) -> Value {
    json!({"type": "array", "items": schema(name)})
}

/// A list that may go on on another page.
fn page_of(name: &str) -> Value {
    answer(
        json!({
            "object": {"const": "list"}, "first_id": maybe("string"), "last_id": maybe("string"), "has_more": {"type": "boolean"},
            "data": list_of(name),
        }),
        &[],
    )
}

fn maybe(kind: &str) -> Value {
    json!({"type": [kind, "null"]})
}

fn at_least(least: i64) -> Value {
    json!({"type": ["integer", "null"], "minimum": least})
}

fn within(least: f64, most: f64) -> Value {
    json!({"type": ["number", "null"], "minimum": least, "maximum": most})
}

fn some() -> Value {
    json!({"type": "string", "minLength": 1})
}

fn count() -> Value {
    json!({"type": "integer", "minimum": 0})
}

fn join(parts: impl IntoIterator<Item = Value>) -> Value {
    let fields = parts.into_iter().filter_map(|part| match part {
        Value::Object(fields) => Some(fields),
        _ => None,
    });
    Value::Object(fields.flatten().collect())
}

/// What chat and text completions share.
fn sampling() -> Value {
    let chosen = json!({
        "model": {"type": ["string", "null"], "description": "The base or an adapter, by its name"},
        "max_tokens": at_least(0),
        "max_completion_tokens": {"type": ["integer", "null"], "minimum": 0, "description": "The same, and wins"},
        "temperature": within(0.0, 2.0),
        "top_p": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 1},
        "top_k": {"type": ["integer", "null"], "minimum": -1, "description": "0 and -1 are all"},
        "min_p": within(0.0, 1.0),
        "typical_p": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 1},
        "frequency_penalty": maybe("number"),
        "presence_penalty": maybe("number"),
        "repetition_penalty": {"type": ["number", "null"], "exclusiveMinimum": 0},
        "logit_bias": {"type": ["object", "null"], "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
            "description": "Token ids and what is added to their logits"},
        "seed": maybe("integer"),
        "n": at_least(1),
        "stream": maybe("boolean"),
        "stream_options": {"type": ["object", "null"], "properties": {"include_usage": maybe("boolean"), "include_obfuscation": {},
            "continuous_usage_stats": maybe("boolean")}, "additionalProperties": false},
        "stop": {"type": ["string", "array", "null"], "items": some(), "minLength": 1},
        "stop_token_ids": {"type": ["array", "null"], "items": count()},
        "ignore_eos": maybe("boolean"),
        "include_stop_str_in_output": maybe("boolean"),
        "cache_salt": {"type": ["string", "null"], "minLength": 1, "description": "Requests of the same salt share computed prefixes"},
    });
    let rest = json!({
        "response_format": maybe("object"),
        "guided_json": {}, "guided_regex": maybe("string"), "guided_choice": {}, "guided_grammar": maybe("string"),
        "structured_outputs": maybe("object"),
        "json_schema": {}, "regex": maybe("string"), "grammar": maybe("string"), "ebnf": maybe("string"),
        "adapter_scale": maybe("number"),
        "adapters": {"type": ["array", "null"], "items": schema("Weighted")},
        "lora": {"type": ["array", "null"], "items": schema("Numbered")},
        "min_tokens": at_least(0),
        "prompt_logprobs": at_least(0),
        "skip_special_tokens": maybe("boolean"),
        "priority": maybe("integer"),
        "truncate_prompt_tokens": {"type": ["integer", "null"], "minimum": -1},
        "truncation_side": {"enum": ["left", "right", null]},
        "add_special_tokens": maybe("boolean"),
        "return_token_ids": maybe("boolean"),
        "return_tokens_as_token_ids": maybe("boolean"),
        "user": {}, "metadata": {}, "store": {}, "service_tier": {},
    });
    join([chosen, rest])
}

fn requests() -> Vec<(&'static str, Value)> {
    let chat = json!({
        "messages": {"type": "array", "minItems": 1, "items": schema("Message")},
        "logprobs": maybe("boolean"),
        "top_logprobs": at_least(0),
        "tools": {"type": ["array", "null"], "items": {"type": "object"}, "maxItems": 128},
        "tool_choice": {"type": ["string", "object", "null"]},
        "parallel_tool_calls": maybe("boolean"),
        "add_generation_prompt": maybe("boolean"),
        "continue_final_message": maybe("boolean"),
        "chat_template_kwargs": maybe("object"),
    });
    let completion = json!({
        "prompt": {"type": ["string", "array"], "minItems": 1, "items": {"type": ["string", "integer", "array"]},
            "description": "A text, token ids, or a list of either"},
        "echo": maybe("boolean"),
        "logprobs": at_least(0),
        "best_of": at_least(1),
    });
    let generate = json!({
        "adapter_id": maybe("string"),
        "adapter_source": {"enum": ["hub", "local", "s3", null]},
        "adapter_scale": maybe("number"),
        "adapters": {"type": ["array", "null"], "items": schema("Weighted")},
        "merged_adapters": maybe("object"),
        "max_new_tokens": at_least(1),
        "do_sample": maybe("boolean"),
        "temperature": {"type": ["number", "null"], "exclusiveMinimum": 0},
        "top_k": at_least(1),
        "top_p": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 1},
        "typical_p": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 1},
        "repetition_penalty": {"type": ["number", "null"], "exclusiveMinimum": 0},
        "frequency_penalty": maybe("number"),
        "seed": at_least(0),
        "stop": {"type": ["string", "array", "null"], "items": some(), "minLength": 1},
        "truncate": at_least(1),
        "details": maybe("boolean"),
        "decoder_input_details": maybe("boolean"),
        "return_full_text": maybe("boolean"),
        "top_n_tokens": at_least(0),
        "ignore_eos_token": maybe("boolean"),
        "grammar": maybe("object"),
        "best_of": at_least(1),
        "presence_penalty": maybe("number"),
        "return_k_alternatives": at_least(0),
        "apply_chat_template": maybe("boolean"),
        "response_format": maybe("object"),
    });
    let mut parameters = request(&[], generate);
    parameters["type"] = json!(["object", "null"]);
    let pooling = json!({"enum": ["mean", "last", null]});
    vec![
        (
            "Message",
            json!({"type": "object", "required": ["role"], "properties": {
                "role": {"type": "string"},
                "content": {"type": ["string", "array", "null"]},
            }}),
        ),
        (
            "Weighted",
            request(&["id"], json!({"id": some(), "weight": maybe("number")})),
        ),
        (
            "Numbered",
            request(
                &["id", "scale"],
                json!({"id": count(), "scale": {"type": "number"}}),
            ),
        ),
        ("ChatRequest", request(&["messages"], join([sampling(), chat]))),
        (
            "CompletionRequest",
            request(&["prompt"], join([sampling(), completion])),
        ),
        (
            "ResponseRequest",
            json!({"type": "object", "required": ["input"], "properties": {
                "model": maybe("string"),
                "input": {"type": ["string", "array"], "minLength": 1, "minItems": 1},
                "instructions": maybe("string"),
                "max_output_tokens": at_least(1),
                "temperature": within(0.0, 2.0),
                "top_p": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 1},
                "text": maybe("object"),
                "tools": {"type": ["array", "null"], "items": {"type": "object"}},
                "tool_choice": {"type": ["string", "object", "null"]},
                "parallel_tool_calls": maybe("boolean"),
                "stream": maybe("boolean"),
                "metadata": maybe("object"),
                "user": maybe("string"),
            }, "description": "And what chats have beyond OpenAI's fields"}),
        ),
        (
            "BatchRequest",
            request(
                &["input_file_id", "endpoint", "completion_window"],
                json!({
                    "input_file_id": some(),
                    "endpoint": {"enum": ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"]},
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
        (
            "EmbeddingsRequest",
            request(
                &["input"],
                json!({
                    "model": maybe("string"),
                    "input": {"type": ["string", "array"], "minItems": 1, "items": {"type": ["string", "integer", "array"]}},
                    "encoding_format": {"enum": ["float", "base64", null]},
                    "dimensions": at_least(1),
                    "pooling": pooling,
                    "cache_salt": {"type": ["string", "null"], "minLength": 1},
                    "add_special_tokens": maybe("boolean"),
                    "adapter_scale": maybe("number"),
                    "user": {},
                }),
            ),
        ),
        (
            "GenerateRequest",
            request(
                &["inputs"],
                json!({
                    "inputs": some(),
                    "parameters": parameters,
                    "stream": maybe("boolean"),
                    "add_special_tokens": maybe("boolean"),
                    "options": {},
                }),
            ),
        ),
        (
            "EmbedRequest",
            request(
                &["inputs"],
                json!({
                    "inputs": some(),
                    "parameters": {"type": ["object", "null"], "properties": {"adapter_id": maybe("string"), "pooling": pooling},
                        "description": "As of `/generate`, as far as it chooses an adapter"},
                    "stream": {},
                }),
            ),
        ),
        (
            "TokenizeRequest",
            request(
                &["inputs"],
                json!({
                    "inputs": {"type": "string"}, "add_special_tokens": maybe("boolean"), "parameters": {}, "stream": {},
                }),
            ),
        ),
        (
            "ChatTokenizeRequest",
            request(
                &["messages"],
                json!({
                    "model": maybe("string"),
                    "messages": {"type": "array", "minItems": 1, "items": schema("Message")},
                    "tools": {"type": ["array", "null"], "items": {"type": "object"}},
                }),
            ),
        ),
    ]
}

fn answers() -> Vec<(&'static str, Value)> {
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

fn management() -> Vec<(&'static str, Value)> {
    let text = || json!({"type": "string"});
    let yes_no = || json!({"type": "boolean"});
    let limit = || at_least(1);
    let adapter_limits = json!({"type": ["object", "null"], "additionalProperties": false, "properties": {
        "weight": {"type": "number"}, "requests_per_minute": limit(), "tokens_per_minute": limit(), "concurrent_requests": limit(),
        "shared_prefixes": yes_no(),
    }});
    let key_limits = json!({"type": ["object", "null"], "additionalProperties": false, "properties": {
        "requests_per_minute": limit(), "tokens_per_minute": limit(), "concurrent_requests": limit(), "tokens_per_month": limit(),
    }});
    let key = json!({
        "role": {"enum": ["use", "manage", "admin", null]},
        "tenant": maybe("string"),
        "grants": {"type": ["array", "null"], "items": text()},
        "limits": key_limits,
        "expires": {"type": ["integer", "null"], "description": "Seconds since 1970"},
    });
    vec![
        (
            "AddAdapter",
            request(
                &["name", "source"],
                json!({
                    "name": some(), "source": some(), "replace": maybe("boolean"), "pinned": maybe("boolean"),
                    "defaults": maybe("object"), "limits": adapter_limits,
                }),
            ),
        ),
        (
            "ChangeAdapter",
            request(
                &[],
                json!({
                    "pinned": maybe("boolean"), "defaults": maybe("object"), "limits": adapter_limits,
                    "active": {"type": ["string", "null"], "pattern": "^(previous|[0-9a-f]{64})$"},
                }),
            ),
        ),
        (
            "Adapter",
            answer(
                json!({
                    "object": {"const": "adapter"}, "name": text(), "state": {"enum": ["resident", "cold", "loading", "failed"]},
                    "hash": maybe("string"), "source": maybe("string"), "pinned": yes_no(), "replacing": yes_no(),
                    "requests": at_least(0), "bytes": at_least(0), "error": maybe("string"),
                    "versions": {"type": "array", "items": {"type": "object"}},
                }),
                &[],
            ),
        ),
        (
            "Adapters",
            answer(
                json!({
                    "object": {"const": "list"}, "data": list_of("Adapter"), "memory": answer(json!({"bytes": count()}), &[]),
                }),
                &[],
            ),
        ),
        (
            "VllmLoad",
            request(
                &["lora_name", "lora_path"],
                json!({
                    "lora_name": some(), "lora_path": some(), "load_inplace": maybe("boolean"), "base_model_name": {},
                }),
            ),
        ),
        (
            "VllmUnload",
            request(&["lora_name"], json!({"lora_name": some(), "lora_int_id": {}})),
        ),
        (
            "SglangLoad",
            request(
                &["lora_name", "lora_path"],
                json!({
                    "lora_name": some(), "lora_path": some(), "pinned": maybe("boolean"),
                }),
            ),
        ),
        (
            "SglangUnload",
            request(&["lora_name"], json!({"lora_name": some()})),
        ),
        (
            "SglangDone",
            answer(
                json!({"success": yes_no(), "error_message": maybe("string"), "loaded_adapters": {"type": "object"}}),
                &[],
            ),
        ),
        (
            "LlamaCppAdapter",
            answer(
                json!({"id": count(), "path": text(), "scale": {"type": "number"}, "name": text()}),
                &[],
            ),
        ),
        (
            "AddKey",
            request(&["name"], join([key.clone(), json!({"name": some()})])),
        ),
        ("ChangeKey", request(&[], key)),
        ("RotateKey", request(&[], json!({"hours": at_least(0)}))),
        (
            "Key",
            answer(
                json!({
                    "object": {"const": "key"}, "id": text(), "name": text(), "role": text(), "tenant": text(),
                    "grants": {"type": "array", "items": text()}, "limits": {"type": "object"}, "created": count(),
                    "expires": at_least(0), "revoked": at_least(0), "secret": text(),
                }),
                &["secret"],
            ),
        ),
        (
            "Keys",
            answer(json!({"object": {"const": "list"}, "data": list_of("Key")}), &[]),
        ),
    ]
}

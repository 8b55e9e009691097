//! What requests that compute something hold.

use serde_json::{Value, json};

use super::{at_least, count, join, maybe, request, schema, some, within};
use crate::contract::routes;

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

pub(super) fn requests() -> Vec<(&'static str, Value)> {
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

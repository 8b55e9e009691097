//! Requests that change adapters and keys.

use serde_json::{Value, json};

use super::{at_least, join, maybe, request, some};

pub(super) fn management() -> Vec<(&'static str, Value)> {
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
            "AddKey",
            request(&["name"], join([key.clone(), json!({"name": some()})])),
        ),
        ("ChangeKey", request(&[], key)),
        ("RotateKey", request(&[], json!({"hours": at_least(0)}))),
    ]
}

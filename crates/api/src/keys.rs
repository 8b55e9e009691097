//! `/v1/keys`.

use std::num::{NonZeroU32, NonZeroU64};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::tag::object;

/// An API key. Times are in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "object", rename = "key")]
#[schemars(transform = object("key"))]
pub struct Key {
    /// Public, part of its secrets.
    pub id: String,
    /// What people call it; no two keys have the same name.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Its requests share prefixes and a fair share with those of other keys of this tenant.
    pub tenant: String,
    /// The adapters that it may use, as patterns.
    pub grants: Vec<String>,
    /// What its requests may take.
    pub limits: KeyLimits,
    /// When it was made.
    pub created: u64,
    /// When it ends; null is never.
    pub expires: Option<u64>,
    /// When it was revoked; null if it was not.
    pub revoked: Option<u64>,
    /// The text that clients send: in the one answer to whoever made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Use the adapters that its grants cover.
    Use,
    /// That, and add adapters under names that its grants cover, and change those that it added.
    Manage,
    /// Everything.
    Admin,
}

/// The bounds of a key's requests; what is left out is not bounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct KeyLimits {
    /// Requests that are accepted in a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<NonZeroU32>,
    /// Tokens in a minute, of prompts and answers together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<NonZeroU32>,
    /// Requests that wait or run at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrent_requests: Option<NonZeroU32>,
    /// Tokens in a calendar month in UTC, of prompts and answers together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_month: Option<NonZeroU64>,
}

/// `GET /v1/keys`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "object", rename = "list")]
#[schemars(transform = object("list"))]
pub struct Keys {
    /// All of them, the oldest first.
    pub data: Vec<Key>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_written_in_this_order_and_read_back() {
        let key = Key {
            id: "k".to_owned(),
            name: "n".to_owned(),
            role: Role::Manage,
            tenant: "t".to_owned(),
            grants: vec!["a/*".to_owned()],
            limits: KeyLimits {
                tokens_per_month: NonZeroU64::new(7),
                ..KeyLimits::default()
            },
            created: 1,
            expires: None,
            revoked: Some(2),
            secret: None,
        };
        let text = r#"{"object":"list","data":[{"object":"key","id":"k","name":"n","role":"manage","tenant":"t","grants":["a/*"],
            "limits":{"tokens_per_month":7},"created":1,"expires":null,"revoked":2}]}"#;
        let text: String = text.lines().map(str::trim_start).collect();
        let keys = Keys { data: vec![key] };
        assert_eq!(serde_json::to_string(&keys).expect("JSON"), text);
        assert_eq!(serde_json::from_str::<Keys>(&text).expect("read"), keys);
    }
}

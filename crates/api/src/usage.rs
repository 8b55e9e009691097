//! `/v1/usage`.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::tag::object;

/// `GET /v1/usage`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "object", rename = "list")]
#[schemars(transform = object("list"))]
pub struct UsageReport {
    /// The first hour is that of this time, in seconds since 1970.
    pub from: u64,
    /// The last hour begins before this time, in seconds since 1970.
    pub to: u64,
    /// The oldest first.
    pub data: Vec<UsageRow>,
}

/// Usage of a key, tenant, adapter and stretch of time. What the report does not group by is left
/// out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UsageRow {
    /// When its hour, day or month begins, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<u64>,
    /// The key's id; null for requests to a server without keys.
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub key: Option<Option<String>>,
    /// What people call the key.
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub key_name: Option<Option<String>>,
    /// The tenant; null for requests to a server without keys.
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub tenant: Option<Option<String>>,
    /// The adapter's name, or the base's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<String>,
    /// The sums.
    #[serde(flatten)]
    pub counts: UsageCounts,
}

/// What is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UsageCounts {
    /// Requests that were accepted.
    pub requests: u64,
    /// Tokens of their prompts, once for each choice.
    pub prompt_tokens: u64,
    /// Prompt tokens that were found in the prefix cache.
    pub cached_prompt_tokens: u64,
    /// Tokens that were generated, also for clients that went away.
    pub generated_tokens: u64,
    /// Accepted requests that ended in an error.
    pub errors: u64,
    /// Requests that were refused because of a limit or a full queue.
    pub refused: u64,
}

impl UsageCounts {
    /// Adds `more` to each sum.
    pub fn add(&mut self, more: &Self) {
        for (sum, more) in [
            (&mut self.requests, more.requests),
            (&mut self.prompt_tokens, more.prompt_tokens),
            (&mut self.cached_prompt_tokens, more.cached_prompt_tokens),
            (&mut self.generated_tokens, more.generated_tokens),
            (&mut self.errors, more.errors),
            (&mut self.refused, more.refused),
        ] {
            *sum = sum.saturating_add(more);
        }
    }
}

/// A field that is there, be it null.
fn present<'de, D: Deserializer<'de>>(field: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(field).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_and_left_out_differ() {
        let text = r#"{"object":"list","from":1,"to":2,"data":[{"key":null,"key_name":"n","requests":1,"prompt_tokens":2,
            "cached_prompt_tokens":3,"generated_tokens":4,"errors":5,"refused":6}]}"#;
        let text: String = text.lines().map(str::trim_start).collect();
        let report: UsageReport = serde_json::from_str(&text).expect("read");
        let row = &report.data[0];
        assert_eq!((&row.key, &row.tenant), (&Some(None), &None));
        assert_eq!(row.key_name, Some(Some("n".to_owned())));
        assert_eq!(serde_json::to_string(&report).expect("JSON"), text);
    }
}

//! `metadata`: texts that a client stores with an object.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::http::{error::ApiError, fields::Fields};

/// The most entries, as in OpenAI's API.
const ENTRIES: usize = 16;
/// The most characters of a name.
const NAME: usize = 64;
/// The most characters of a text.
const TEXT: usize = 512;

/// Reads the field: texts by name.
pub(super) fn take(fields: &mut Fields) -> Result<BTreeMap<String, String>, ApiError> {
    let Some(given) = fields.object("metadata")?.map(Fields::into_rest) else {
        return Ok(BTreeMap::new());
    };
    let short = |text: &str, most: usize| text.chars().count() <= most;
    let entries = given.into_iter().map(|(name, value)| match value {
        Value::String(text) if short(&name, NAME) && short(&text, TEXT) => Some((name, text)),
        _ => None,
    });
    let entries: Option<BTreeMap<String, String>> = entries.collect();
    entries.filter(|entries| entries.len() <= ENTRIES).ok_or_else(|| {
        let problem = format!(
            "must have at most {ENTRIES} entries, with names of up to {NAME} characters and texts of up to {TEXT}"
        );
        fields.complain("metadata", &problem)
    })
}

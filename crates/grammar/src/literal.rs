//! Texts in Lark's syntax.

use serde_json::Value;

/// A text as a literal in Lark's syntax.
#[must_use]
pub fn literal(text: &str) -> String {
    // Lark's string literals have JSON's syntax.
    Value::from(text).to_string()
}

//! Schemas of bodies. Requests list every field that has an effect. An optional field may also be
//! null.

#![expect(
    clippy::needless_pass_by_value,
    reason = "schemas are written where they are used"
)]

mod answers;
mod management;
mod requests;

use serde_json::{Map, Value, json};

use crate::contract::limits::Limits;

/// All schemas, by name.
pub(super) fn all(limits: &Limits) -> Map<String, Value> {
    let mut all = Map::new();
    for (name, schema) in requests::requests(limits)
        .into_iter()
        .chain(answers::answers())
        .chain(management::management())
    {
        all.insert(name.to_owned(), schema);
    }
    all
}

/// The schema of a request object without further fields.
fn request(required: &[&str], properties: Value) -> Value {
    json!({"type": "object", "required": required, "properties": properties, "additionalProperties": false})
}

fn maybe(kind: &str) -> Value {
    json!({"type": [kind, "null"]})
}

fn at_least(least: i64) -> Value {
    json!({"type": ["integer", "null"], "minimum": least})
}

fn some() -> Value {
    json!({"type": "string", "minLength": 1})
}

fn join(parts: impl IntoIterator<Item = Value>) -> Value {
    let fields = parts.into_iter().filter_map(|part| match part {
        Value::Object(fields) => Some(fields),
        _ => None,
    });
    Value::Object(fields.flatten().collect())
}

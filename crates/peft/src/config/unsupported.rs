//! Refuses fields that are set but not supported.

use serde_json::{Map, Value};

use super::fields::{Fate, Field};
use super::variants::Kind;
use crate::refusal::Refusal;

/// Refuses fields that are set and neither applied nor inert. The values of applied fields are not
/// checked here.
pub(super) fn check(config: &Map<String, Value>, kind: Kind) -> Result<(), Refusal> {
    for (name, value) in config.iter().filter(|(_, value)| is_set(value)) {
        match kind.field(name) {
            Some(Field {
                fate: Fate::Applied | Fate::Inert,
                ..
            }) => {}
            Some(Field { note, .. }) => {
                return Err(Refusal::UnsupportedField {
                    field: name.clone(),
                    found: value.to_string(),
                    reason: note,
                });
            }
            None => {
                return Err(Refusal::UnknownField {
                    field: name.clone(),
                    found: value.to_string(),
                });
            }
        }
    }
    Ok(())
}

/// Whether a field is set: its value is not null, false or empty.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::Bool(true) | Value::Number(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unset_values_of_unknown_fields_pass() {
        let config = serde_json::json!({"a": null, "b": false, "c": "", "d": [], "e": {}});
        assert_eq!(check(config.as_object().unwrap(), Kind::Lora), Ok(()));
    }
}

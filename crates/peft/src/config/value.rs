//! Typed access to the fields of a JSON object. As in PEFT, null counts as absent.

use serde_json::{Map, Value};

use crate::refusal::Refusal;

/// The fields of `adapter_config.json`.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(pub(super) &'a Map<String, Value>);

impl<'a> Fields<'a> {
    pub(super) fn get(&self, field: &str) -> Option<&'a Value> {
        self.0.get(field).filter(|value| !value.is_null())
    }

    /// A bool, false if absent.
    pub(super) fn flag(&self, field: &str) -> Result<bool, Refusal> {
        match self.get(field) {
            None => Ok(false),
            Some(Value::Bool(value)) => Ok(*value),
            Some(other) => Err(wrong_type(field, other, "true or false")),
        }
    }

    /// A string, if there is one.
    pub(super) fn text(&self, field: &str) -> Result<Option<&'a str>, Refusal> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::String(value)) => Ok(Some(value)),
            Some(other) => Err(wrong_type(field, other, "a string")),
        }
    }

    /// A list of strings, empty if absent.
    pub(super) fn texts(&self, field: &str) -> Result<Vec<String>, Refusal> {
        match self.get(field) {
            None => Ok(Vec::new()),
            Some(value) => strings(field, value),
        }
    }

    /// A mapping, in the file's order.
    pub(super) fn entries(&self, field: &str) -> Result<Vec<(&'a str, &'a Value)>, Refusal> {
        match self.get(field) {
            None => Ok(Vec::new()),
            Some(Value::Object(map)) => Ok(map.iter().map(|(key, value)| (key.as_str(), value)).collect()),
            Some(other) => Err(wrong_type(field, other, "a mapping")),
        }
    }
}

/// A list of strings.
pub(super) fn strings(field: &str, value: &Value) -> Result<Vec<String>, Refusal> {
    let expected = "a list of strings";
    let items = value
        .as_array()
        .ok_or_else(|| wrong_type(field, value, expected))?;
    items
        .iter()
        .map(|item| {
            item.as_str()
                .map(str::to_owned)
                .ok_or_else(|| wrong_type(field, item, expected))
        })
        .collect()
}

/// A list of non-negative integers that fit 32 bits.
pub(super) fn indices(field: &str, value: &Value) -> Result<Vec<u32>, Refusal> {
    let expected = "a list of non-negative integers";
    let items = value
        .as_array()
        .ok_or_else(|| wrong_type(field, value, expected))?;
    let index = |item: &Value| u32::try_from(item.as_u64()?).ok();
    items
        .iter()
        .map(|item| index(item).ok_or_else(|| wrong_type(field, item, expected)))
        .collect()
}

/// A finite number.
pub(super) fn number(field: &str, value: &Value) -> Result<f64, Refusal> {
    value
        .as_f64()
        .filter(|value| value.is_finite())
        .ok_or_else(|| wrong_type(field, value, "a number"))
}

/// The refusal of a value of the wrong type.
pub(super) fn wrong_type(field: &str, found: &Value, expected: &'static str) -> Refusal {
    Refusal::FieldType {
        field: field.to_owned(),
        found: found.to_string(),
        expected,
    }
}

//! The metadata of a GGUF file, by key.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::value::{Array, Value};
use crate::error::Fault;

/// A file's key-value pairs.
///
/// The typed getters return `None` when the key is absent *and* when its value has another type or
/// does not fit; [`Metadata::get`] tells the two apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    entries: Vec<(String, Value)>,
    by_key: HashMap<String, usize>,
}

impl Metadata {
    /// Adds a pair that must be new.
    pub(super) fn insert(&mut self, key: &str, value: Value) -> Result<(), Fault> {
        match self.by_key.entry(key.to_owned()) {
            Entry::Occupied(entry) => Err(Fault::DuplicateKey(entry.key().clone())),
            Entry::Vacant(entry) => {
                entry.insert(self.entries.len());
                self.entries.push((key.to_owned(), value));
                Ok(())
            }
        }
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.by_key.get(key).map(|&i| &self.entries[i].1)
    }

    /// All pairs in the file's order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// A string.
    pub fn str(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            Value::String(v) => Some(v),
            _ => None,
        }
    }

    /// A non-negative integer of any type that fits.
    pub fn u32(&self, key: &str) -> Option<u32> {
        self.get(key)?.integer()?.try_into().ok()
    }

    /// A non-negative integer of any type that fits.
    pub fn u64(&self, key: &str) -> Option<u64> {
        self.get(key)?.integer()?.try_into().ok()
    }

    /// A float of either width (a double is rounded).
    pub fn f32(&self, key: &str) -> Option<f32> {
        match *self.get(key)? {
            Value::F32(v) => Some(v),
            Value::F64(v) => Some(v as f32),
            _ => None,
        }
    }

    /// A truth value.
    pub fn bool(&self, key: &str) -> Option<bool> {
        match *self.get(key)? {
            Value::Bool(v) => Some(v),
            _ => None,
        }
    }

    /// An array of any type.
    pub fn array(&self, key: &str) -> Option<&Array> {
        match self.get(key)? {
            Value::Array(v) => Some(v),
            _ => None,
        }
    }

    /// An array of strings.
    pub fn strings(&self, key: &str) -> Option<&[String]> {
        match self.array(key)? {
            Array::String(v) => Some(v),
            _ => None,
        }
    }

    /// An array of floats of either width (doubles are rounded).
    pub fn f32s(&self, key: &str) -> Option<Cow<'_, [f32]>> {
        match self.array(key)? {
            Array::F32(v) => Some(Cow::Borrowed(v)),
            Array::F64(v) => Some(v.iter().map(|&v| v as f32).collect()),
            _ => None,
        }
    }

    /// An array of non-negative integers of any type that fit.
    pub fn u32s(&self, key: &str) -> Option<Vec<u32>> {
        self.array(key)?.integers()
    }

    /// An array of integers of any type that fit.
    pub fn i32s(&self, key: &str) -> Option<Vec<i32>> {
        self.array(key)?.integers()
    }

    /// An array of truth values.
    pub fn bools(&self, key: &str) -> Option<&[bool]> {
        match self.array(key)? {
            Array::Bool(v) => Some(v),
            _ => None,
        }
    }
}

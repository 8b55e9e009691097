//! Settings of a name.

use serde_json::{Map, Value};

use super::limits::AdapterLimits;

/// Settings of a name. `None` keeps the current value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Default values of request fields. An empty map removes them.
    pub defaults: Option<Map<String, Value>>,
    /// Limits of the name's requests.
    pub limits: Option<AdapterLimits>,
}

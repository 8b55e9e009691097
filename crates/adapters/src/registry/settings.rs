//! What holds for a name beside its versions.

use serde_json::{Map, Value};

use super::limits::AdapterLimits;

/// What holds for a name beside its versions; `None` leaves it as it was.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// What its requests get where they say nothing; empty ones are none.
    pub defaults: Option<Map<String, Value>>,
    /// What its requests may take.
    pub limits: Option<AdapterLimits>,
}

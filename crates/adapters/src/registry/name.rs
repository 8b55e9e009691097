//! Which names can be served.

use indexmap::IndexMap;

use super::state::ServedName;
use crate::error::AdapterError;
use crate::source::Source;

/// The longest name, in bytes.
const LIMIT: usize = 128;
/// Names that always mean the base, because TGI's clients use them for every base.
const RESERVED: [&str; 1] = ["tgi"];

/// Checks that `name` can be an adapter's name beside a base called `base`.
pub(super) fn check(base: &str, name: &str) -> Result<(), AdapterError> {
    let bad = |reason| {
        Err(AdapterError::BadName {
            name: name.to_owned(),
            reason,
        })
    };
    if name.is_empty() {
        return bad("it is empty");
    }
    if name.len() > LIMIT {
        return bad("it is longer than 128 bytes");
    }
    if name.chars().any(char::is_control) {
        return bad("it holds control characters");
    }
    if name.trim() != name {
        return bad("it begins or ends with a space");
    }
    if name == base {
        return bad("the base is called so");
    }
    if RESERVED.contains(&name) {
        return bad("TGI's clients call the base so");
    }
    Ok(())
}

/// Checks that the name is not in use.
pub(super) fn check_free(names: &IndexMap<String, ServedName>, source: &Source) -> Result<(), AdapterError> {
    match names.get(&source.name) {
        None => Ok(()),
        Some(named) => Err(AdapterError::DuplicateName {
            name: source.name.clone(),
            first: named.at().unwrap_or(&source.at).to_string(),
            second: source.at.to_string(),
        }),
    }
}

//! Routes as several parts of the server know them.

/// What the path of an adapter's upload ends with, after the adapter's name, which may hold slashes
/// itself.
pub(crate) const UPLOAD_SUFFIX: &str = "/upload";

//! The small files of a model folder.

use std::{fs, io, path::Path};

use serde_json::Value;

use crate::TextError;

/// The largest file read into memory; the largest `tokenizer.json` in use have about 35 MB.
const MAX_BYTES: u64 = 256 << 20;

/// The contents of `path`, or `None` if there is no such file.
pub(crate) fn read_optional(path: &Path) -> Result<Option<Vec<u8>>, TextError> {
    let failed = |source| TextError::Read {
        path: path.to_owned(),
        source,
    };
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
        Ok(metadata) if metadata.len() > MAX_BYTES => {
            return Err(invalid(
                path,
                format!("has {} bytes, more than {MAX_BYTES} are not read", metadata.len()),
            ));
        }
        Ok(_) => {}
    }
    fs::read(path).map(Some).map_err(failed)
}

/// The JSON document in `path`, or `None` if there is no such file.
pub(crate) fn read_json(path: &Path) -> Result<Option<Value>, TextError> {
    let Some(bytes) = read_optional(path)? else {
        return Ok(None);
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| invalid(path, format!("is not valid JSON: {error}")))
}

/// The error that the contents of `path` are invalid.
pub(crate) fn invalid(path: &Path, reason: impl Into<String>) -> TextError {
    TextError::InvalidFile {
        path: path.to_owned(),
        reason: reason.into(),
    }
}

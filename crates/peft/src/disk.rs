//! Reads whole files with a limit on their size.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use multigraft_model::Throttle;

use crate::error::ReadError;

/// Bytes that are read or hashed between two pauses of the throttle.
pub(crate) const PIECE: usize = 256 << 10;

/// Whether `path` exists. A broken link does not.
pub(crate) fn exists(path: &Path) -> Result<bool, ReadError> {
    path.try_exists().map_err(|source| ReadError::Io {
        path: path.to_owned(),
        source,
    })
}

/// Reads a file of at most `limit` bytes.
///
/// # Errors
/// If the file cannot be read, is not a regular file, or is larger than `limit`.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, ReadError> {
    read_throttled(path, limit, &Throttle::NONE)
}

/// As [`read`], with pauses by `throttle`.
pub(crate) fn read_throttled(path: &Path, limit: u64, throttle: &Throttle) -> Result<Vec<u8>, ReadError> {
    let fail = |source| ReadError::Io {
        path: path.to_owned(),
        source,
    };
    // Checked before the file is opened: opening a named pipe would wait for its writer.
    let metadata = fs::metadata(path).map_err(fail)?;
    if !metadata.is_file() {
        return Err(ReadError::NotAFile {
            path: path.to_owned(),
        });
    }
    let size = metadata.len();
    if size > limit {
        return Err(ReadError::TooLarge {
            path: path.to_owned(),
            size,
            limit,
        });
    }
    let mut bytes = Vec::new();
    let capacity = usize::try_from(size).unwrap_or(usize::MAX);
    bytes
        .try_reserve_exact(capacity)
        .map_err(|_| fail(std::io::ErrorKind::OutOfMemory.into()))?;
    let mut file = File::open(path).map_err(fail)?;
    loop {
        // A file that grows meanwhile is not read beyond the limit.
        let piece = (limit - bytes.len() as u64).min(PIECE as u64);
        let read = file.by_ref().take(piece).read_to_end(&mut bytes).map_err(fail)?;
        if read == 0 {
            return Ok(bytes);
        }
        throttle.pause();
    }
}

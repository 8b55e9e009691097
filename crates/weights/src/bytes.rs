//! The bytes of a file, mapped or in memory.

use std::fs::File;
use std::io::Read;
use std::ops::Deref;
use std::path::Path;

use memmap2::Mmap;

use crate::error::{Fault, WeightsError};
use crate::mmap;

/// With [`Access::ReadSmall`], files up to this size are read into memory instead of mapped.
/// Adapters are smaller and are replaced while the server runs; reading a mapped file that was
/// truncated would end the process.
const READ_LIMIT: u64 = 256 << 20;

/// How a file's bytes are accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Map it whatever its size.
    Map,
    /// Read it if it has at most [`READ_LIMIT`] bytes, map it otherwise.
    ReadSmall,
}

/// The whole contents of one file.
pub(crate) enum FileBytes {
    /// Mapped from disk.
    Mapped(Mmap),
    /// Held in memory.
    Owned(Vec<u8>),
}

impl FileBytes {
    /// Opens a regular file that is not empty.
    pub(crate) fn open(path: &Path, access: Access) -> Result<Self, WeightsError> {
        let fail = |source| WeightsError::Read {
            path: path.to_owned(),
            source,
        };
        // Checked before opening, because opening a named pipe waits for its writer.
        if !std::fs::metadata(path).map_err(fail)?.is_file() {
            return Err(WeightsError::NotAFile {
                path: path.to_owned(),
            });
        }
        let mut file = File::open(path).map_err(fail)?;
        let size = file.metadata().map_err(fail)?.len();
        if size == 0 {
            return Err(Fault::Empty.in_file(path));
        }
        if access == Access::ReadSmall && size <= READ_LIMIT {
            let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
            file.by_ref()
                .take(READ_LIMIT)
                .read_to_end(&mut bytes)
                .map_err(fail)?;
            return Ok(Self::Owned(bytes));
        }
        Ok(Self::Mapped(mmap::map(&file).map_err(fail)?))
    }
}

impl Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Owned(bytes) => bytes,
        }
    }
}

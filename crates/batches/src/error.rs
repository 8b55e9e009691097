//! Why files and batches could not be read or written.

use std::{io, path::PathBuf};

use multigraft_database::DatabaseError;

/// A failure to read or write files and batches.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file could not be read or written.
    #[error("`{}`: {source}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The database could not be opened, read or written.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

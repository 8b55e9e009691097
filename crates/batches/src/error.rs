//! Why files and batches could not be read or written.

use std::{io, path::PathBuf};

use multigraft_database::DatabaseError;

/// A fault of the disk or of what is on it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file.
    #[error("`{}`: {source}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The database could not be opened, read or written.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

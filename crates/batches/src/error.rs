//! Why files and batches could not be read or written.

use std::{io, path::PathBuf};

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
    /// The database.
    #[error("`{}`: {source}", path.display())]
    Database {
        /// Its file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// It is of a later version of this program.
    #[error("`{}` was written by a later version of multigraft (its tables are of version {version})", path.display())]
    TooNew {
        /// The database's file.
        path: PathBuf,
        /// That version.
        version: i64,
    },
}

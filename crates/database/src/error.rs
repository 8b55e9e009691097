//! Why a database could not be opened, read or written.

use std::{io, path::PathBuf};

/// A failure to open, read or write a database. Every message names the file.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The folder of the database could not be created.
    #[error("`{}`: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// SQLite reported an error.
    #[error("`{}`: {source}", path.display())]
    Sqlite {
        /// The database file.
        path: PathBuf,
        /// SQLite's error.
        source: rusqlite::Error,
    },
    /// Another process holds a database that only one process may have open.
    #[error("`{}` is in use by another server: every server needs a data folder of its own", path.display())]
    InUse {
        /// The database file.
        path: PathBuf,
    },
    /// The tables were written by a later version of multigraft.
    #[error(
        "`{}` was written by a later version of multigraft (its tables are of version {version}, this program knows \
         versions up to {known}): use the later version, or another data folder",
        path.display()
    )]
    TooNew {
        /// The database file.
        path: PathBuf,
        /// The version of the tables in the file.
        version: i64,
        /// The newest version that this program knows.
        known: usize,
    },
}

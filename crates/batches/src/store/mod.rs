//! Files and batches in SQLite, in `batches.sqlite` of the data folder, and the files' bytes in
//! `files/` beside it.
//!
//! A file's bytes are written under another name, brought to disk and renamed before its row says
//! that it is there; what no row names is swept away at the start.

mod batches;
mod files;

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::error::StoreError;
pub use files::{Kept, Removed};

/// The database's name in the data folder.
const DATABASE: &str = "batches.sqlite";
/// The folder of the files there.
const FILES: &str = "files";

/// The version of the tables.
const SCHEMA: i64 = 1;

const TABLES: &str = "
    CREATE TABLE file (
        id TEXT PRIMARY KEY,
        tenant TEXT,
        name TEXT NOT NULL,
        purpose TEXT NOT NULL,
        bytes INTEGER NOT NULL,
        -- These in seconds since 1970.
        created INTEGER NOT NULL,
        expires INTEGER
    ) STRICT;
    CREATE TABLE batch (
        id TEXT PRIMARY KEY,
        tenant TEXT,
        key TEXT,
        endpoint TEXT NOT NULL,
        input TEXT NOT NULL,
        created INTEGER NOT NULL,
        expires INTEGER NOT NULL,
        -- An object of texts, as JSON.
        metadata TEXT NOT NULL,
        keep_output INTEGER,
        status TEXT NOT NULL,
        -- When it came to each status, as JSON.
        times TEXT NOT NULL DEFAULT '{}',
        total INTEGER NOT NULL DEFAULT 0,
        completed INTEGER NOT NULL DEFAULT 0,
        failed INTEGER NOT NULL DEFAULT 0,
        -- A list, as JSON.
        problems TEXT NOT NULL DEFAULT '[]',
        output TEXT,
        errors TEXT
    ) STRICT;
    -- Of batches that have not ended.
    CREATE TABLE result (
        batch TEXT NOT NULL REFERENCES batch (id),
        line INTEGER NOT NULL,
        -- Whether it was answered.
        answered INTEGER NOT NULL,
        -- The line of the output or error file.
        text TEXT NOT NULL,
        PRIMARY KEY (batch, line)
    ) STRICT, WITHOUT ROWID;
";

/// The database and the files.
#[derive(Debug)]
pub struct Store {
    database: Mutex<Connection>,
    path: PathBuf,
    folder: PathBuf,
}

impl Store {
    /// Opens the files and batches of a data folder, which nobody else may have open, or begins
    /// them there.
    ///
    /// # Errors
    /// If the folder cannot be made or the database cannot be used.
    pub fn open(data: &Path) -> Result<Self, StoreError> {
        let folder = data.join(FILES);
        fs::create_dir_all(&folder).map_err(|source| StoreError::File {
            path: folder.clone(),
            source,
        })?;
        let path = data.join(DATABASE);
        let open = || -> rusqlite::Result<(Connection, i64)> {
            let database = Connection::open(&path)?;
            database.pragma_update(None, "journal_mode", "WAL")?;
            // What a loss of power may undo is run again; a process that is killed loses nothing.
            database.pragma_update(None, "synchronous", "NORMAL")?;
            database.pragma_update(None, "foreign_keys", "ON")?;
            let version = database.pragma_query_value(None, "user_version", |row| row.get(0))?;
            Ok((database, version))
        };
        let fail = |source| StoreError::Database {
            path: path.clone(),
            source,
        };
        let (mut database, version) = open().map_err(fail)?;
        match version {
            SCHEMA => {}
            0 => {
                let begin = |database: &mut Connection| {
                    let transaction = database.transaction()?;
                    transaction.execute_batch(TABLES)?;
                    transaction.pragma_update(None, "user_version", SCHEMA)?;
                    transaction.commit()
                };
                begin(&mut database).map_err(fail)?;
            }
            version => return Err(StoreError::TooNew { path, version }),
        }
        let store = Self {
            database: Mutex::new(database),
            path,
            folder,
        };
        store.sweep()?;
        Ok(store)
    }

    /// Deletes what no row names.
    fn sweep(&self) -> Result<(), StoreError> {
        let named: HashSet<String> = self.read(|database| {
            let mut statement = database.prepare("SELECT id FROM file")?;
            statement.query_map([], |row| row.get(0))?.collect()
        })?;
        let fail = |source| self.file_error(&self.folder, source);
        for entry in fs::read_dir(&self.folder).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            if !entry
                .file_name()
                .to_str()
                .is_some_and(|name| named.contains(name))
            {
                self.delete(&entry.path());
            }
        }
        Ok(())
    }

    /// A file that cannot be deleted now is swept away at the next start.
    fn delete(&self, path: &Path) {
        if let Err(error) = fs::remove_file(path) {
            tracing::warn!(%error, path = %path.display(), "a file stays until the next start");
        }
    }

    pub(crate) fn file_error(&self, path: &Path, source: std::io::Error) -> StoreError {
        StoreError::File {
            path: path.to_owned(),
            source,
        }
    }

    fn database(&self) -> MutexGuard<'_, Connection> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        read(&self.database()).map_err(|source| StoreError::Database {
            path: self.path.clone(),
            source,
        })
    }

    /// Does all of `change` or nothing.
    fn write<T>(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let write = |database: &mut Connection| {
            let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = change(&transaction)?;
            transaction.commit()?;
            Ok(done)
        };
        write(&mut self.database()).map_err(|source| StoreError::Database {
            path: self.path.clone(),
            source,
        })
    }
}

/// A column holds what this program never writes there.
fn strange(column: usize, text: &str) -> rusqlite::Error {
    let message = format!("`{text}` is nothing that is written there");
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, message.into())
}

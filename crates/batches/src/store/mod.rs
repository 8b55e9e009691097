//! Files and batches in SQLite, in `batches.sqlite` of the data folder, and the files' bytes in
//! `files/` beside it.
//!
//! A file's bytes are written under a temporary name, synchronised to disk and renamed before its
//! row is inserted. Files without a row are deleted at the next start.

mod batches;
mod files;

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

use multigraft_database::{Database, Durability, Options, Sharing};
use rusqlite::{Connection, Transaction};

use crate::error::StoreError;
pub use files::{Kept, Removed};

/// The name of the database in the data folder.
const DATABASE: &str = "batches.sqlite";
/// The name of the folder for files in the data folder.
const FILES: &str = "files";

const TABLES: &str = "
    CREATE TABLE file (
        id TEXT PRIMARY KEY,
        tenant TEXT,
        name TEXT NOT NULL,
        purpose TEXT NOT NULL,
        bytes INTEGER NOT NULL,
        -- These two in seconds since 1970.
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
        -- An object of strings, as JSON.
        metadata TEXT NOT NULL,
        keep_output INTEGER,
        status TEXT NOT NULL,
        -- When it entered each state, as JSON.
        times TEXT NOT NULL DEFAULT '{}',
        total INTEGER NOT NULL DEFAULT 0,
        completed INTEGER NOT NULL DEFAULT 0,
        failed INTEGER NOT NULL DEFAULT 0,
        -- A list, as JSON.
        problems TEXT NOT NULL DEFAULT '[]',
        output TEXT,
        errors TEXT
    ) STRICT;
    -- The results of batches that have not ended.
    CREATE TABLE result (
        batch TEXT NOT NULL REFERENCES batch (id),
        line INTEGER NOT NULL,
        -- Whether the line was answered.
        answered INTEGER NOT NULL,
        -- The line of the output or error file.
        text TEXT NOT NULL,
        PRIMARY KEY (batch, line)
    ) STRICT, WITHOUT ROWID;
";

/// The database and the files.
#[derive(Debug)]
pub struct Store {
    database: Database,
    folder: PathBuf,
}

impl Store {
    /// Opens the files and batches of a data folder, which no other server may use. Creates folder
    /// and database where they do not exist.
    ///
    /// # Errors
    /// If the folder cannot be created or the database cannot be opened.
    pub fn open(data: &Path) -> Result<Self, StoreError> {
        let folder = data.join(FILES);
        fs::create_dir_all(&folder).map_err(|source| StoreError::File {
            path: folder.clone(),
            source,
        })?;
        let options = Options {
            sharing: Sharing::Shared,
            // A line whose result is lost with the power runs again.
            durability: Durability::Normal,
            migrations: &[TABLES],
        };
        let database = Database::open(&data.join(DATABASE), &options)?;
        let store = Self { database, folder };
        store.delete_orphans()?;
        Ok(store)
    }

    /// Deletes files that have no row.
    fn delete_orphans(&self) -> Result<(), StoreError> {
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

    /// Deletes a file. If that fails, the next start deletes it.
    fn delete(&self, path: &Path) {
        if let Err(error) = fs::remove_file(path) {
            tracing::warn!(%error, path = %path.display(), "a file that is no longer needed cannot be deleted; the next start tries again");
        }
    }

    pub(crate) fn file_error(&self, path: &Path, source: std::io::Error) -> StoreError {
        StoreError::File {
            path: path.to_owned(),
            source,
        }
    }

    fn read<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        Ok(self.database.read(read)?)
    }

    /// Makes all of `change` or nothing.
    fn write<T>(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        Ok(self.database.write(change)?)
    }
}

/// The error of a column that holds a value which multigraft never writes.
fn unexpected(column: usize, text: &str) -> rusqlite::Error {
    let message = format!("`{text}` is not a value of this column");
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, message.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tables as version 1 made them: databases that hold them exist.
    const VERSION_1: &str = "
        CREATE TABLE file (id TEXT PRIMARY KEY, tenant TEXT, name TEXT NOT NULL, purpose TEXT NOT NULL, bytes INTEGER NOT NULL,
            created INTEGER NOT NULL, expires INTEGER) STRICT;
        CREATE TABLE batch (id TEXT PRIMARY KEY, tenant TEXT, key TEXT, endpoint TEXT NOT NULL, input TEXT NOT NULL,
            created INTEGER NOT NULL, expires INTEGER NOT NULL, metadata TEXT NOT NULL, keep_output INTEGER, status TEXT NOT NULL,
            times TEXT NOT NULL DEFAULT '{}', total INTEGER NOT NULL DEFAULT 0, completed INTEGER NOT NULL DEFAULT 0,
            failed INTEGER NOT NULL DEFAULT 0, problems TEXT NOT NULL DEFAULT '[]', output TEXT, errors TEXT) STRICT;
        CREATE TABLE result (batch TEXT NOT NULL REFERENCES batch (id), line INTEGER NOT NULL, answered INTEGER NOT NULL,
            text TEXT NOT NULL, PRIMARY KEY (batch, line)) STRICT, WITHOUT ROWID;
        INSERT INTO file VALUES ('file-1', 'acme', 'in.jsonl', 'batch', 3, 10, NULL);
        INSERT INTO batch (id, tenant, endpoint, input, created, expires, metadata, status, total, completed)
            VALUES ('batch_1', 'acme', '/v1/completions', 'file-1', 11, 99, '{\"a\":\"b\"}', 'in_progress', 2, 1);
        INSERT INTO result VALUES ('batch_1', 0, 1, '{}');
        PRAGMA user_version = 1;";

    #[test]
    fn a_database_of_version_1_goes_on() {
        let data = tempfile::tempdir().expect("a folder");
        let database = Connection::open(data.path().join(DATABASE)).expect("created");
        database.execute_batch(VERSION_1).expect("written");
        drop(database);
        let store = Store::open(data.path()).expect("opened");
        let file = store
            .file("file-1", Some("acme"), 12)
            .expect("read")
            .expect("there");
        assert_eq!((file.name.as_str(), file.bytes), ("in.jsonl", 3));
        let batch = store.unfinished().expect("read").remove(0);
        assert_eq!((batch.begun.id.as_str(), batch.counts.completed), ("batch_1", 1));
        assert_eq!(store.done("batch_1").expect("read"), HashSet::from([0]));
        store.put("batch_1", 1, true, "{}").expect("written");
        drop(store);
        let store = Store::open(data.path()).expect("opened again");
        assert_eq!(store.unfinished().expect("read")[0].counts.completed, 2);
    }
}

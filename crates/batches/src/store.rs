//! Files and batches in SQLite, in `batches.sqlite` of the data folder, and the files' bytes in `files/` beside it.
//!
//! A file's bytes are written under another name, brought to disk and renamed before its row says that it is there; what no
//! row names is swept away at the start.

use std::{
    collections::HashSet,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, TransactionBehavior, params};
use tempfile::NamedTempFile;

use crate::{
    batch::{Batch, Counts, NewBatch, Problem, Status},
    error::StoreError,
    file::{FileLimits, Purpose, StoredFile},
};

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

/// The columns of a file, in the order that [`file_of`] reads them in.
const FILE: &str = "id, tenant, name, purpose, bytes, created, expires";
/// The columns of a batch, in the order that [`batch_of`] reads them in.
const BATCH: &str = "id, tenant, key, endpoint, input, created, expires, metadata, keep_output, status, times, total, completed, \
    failed, problems, output, errors";

/// The database and the files.
#[derive(Debug)]
pub struct Store {
    database: Mutex<Connection>,
    path: PathBuf,
    folder: PathBuf,
}

/// What became of a file that was to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is.
    Kept,
    /// Its tenant has this many bytes of files already, too many with it.
    TooManyBytes(u64),
    /// Its tenant has this many files already, too many with it.
    TooManyFiles(u64),
}

/// What became of a file that was to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// It is gone.
    Removed,
    /// This batch still needs it.
    InUse(String),
}

impl Store {
    /// Opens the files and batches of a data folder, which nobody else may have open, or begins them there.
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

    // Files

    /// A file to write to. It goes when it is dropped, unless it is [kept](Self::keep).
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn begin_file(&self) -> Result<NamedTempFile, StoreError> {
        NamedTempFile::new_in(&self.folder).map_err(|source| self.file_error(&self.folder, source))
    }

    /// Brings a file to disk under the name that it is asked for by; no row says so yet.
    pub(crate) fn place(&self, written: NamedTempFile, id: &str) -> Result<(), StoreError> {
        let path = self.content(id);
        let fail = |source| self.file_error(&path, source);
        written.as_file().sync_all().map_err(fail)?;
        written.persist(&path).map_err(|error| fail(error.error))?;
        File::open(&self.folder)
            .and_then(|folder| folder.sync_all())
            .map_err(fail)
    }

    /// Keeps what was written, if its tenant may have as much.
    ///
    /// # Errors
    /// If the disk or the database cannot be written.
    pub fn keep(
        &self,
        written: NamedTempFile,
        file: &StoredFile,
        limits: FileLimits,
    ) -> Result<Kept, StoreError> {
        self.place(written, &file.id)?;
        let kept = self.write(|database| {
            let (files, bytes): (u64, u64) = database.query_row(
                "SELECT count(*), coalesce(sum(bytes), 0) FROM file WHERE tenant IS ?",
                params![file.tenant],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )?;
            if bytes.saturating_add(file.bytes) > limits.bytes {
                return Ok(Kept::TooManyBytes(bytes));
            }
            if files >= limits.files {
                return Ok(Kept::TooManyFiles(files));
            }
            insert(database, file)?;
            Ok(Kept::Kept)
        });
        if !matches!(kept, Ok(Kept::Kept)) {
            self.delete(&self.content(&file.id));
        }
        kept
    }

    /// A tenant's file.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn file(&self, id: &str, tenant: Option<&str>, now: u64) -> Result<Option<StoredFile>, StoreError> {
        self.read(|database| {
            let query = format!(
                "SELECT {FILE} FROM file WHERE id = ? AND tenant IS ? AND (expires IS NULL OR expires > ?)"
            );
            database
                .query_row(&query, params![id, tenant, now], file_of)
                .optional()
        })
    }

    /// A tenant's files, the newest first.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn files(&self, tenant: Option<&str>, now: u64) -> Result<Vec<StoredFile>, StoreError> {
        self.read(|database| {
            let query = format!(
                "SELECT {FILE} FROM file WHERE tenant IS ? AND (expires IS NULL OR expires > ?) ORDER BY rowid DESC"
            );
            let mut statement = database.prepare(&query)?;
            statement.query_map(params![tenant, now], file_of)?.collect()
        })
    }

    /// Where the bytes of a file are.
    pub fn content(&self, id: &str) -> PathBuf {
        self.folder.join(id)
    }

    /// Removes a file, unless a batch still reads it.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn remove_file(&self, id: &str) -> Result<Removed, StoreError> {
        let removed = self.write(|database| {
            let user = database
                .query_row(
                    "SELECT id FROM batch WHERE input = ? AND status NOT IN ('failed', 'completed', 'expired', 'cancelled')",
                    params![id],
                    |row| row.get(0),
                )
                .optional()?;
            if let Some(user) = user {
                return Ok(Removed::InUse(user));
            }
            database.execute("DELETE FROM file WHERE id = ?", params![id])?;
            Ok(Removed::Removed)
        })?;
        if removed == Removed::Removed {
            self.delete(&self.content(id));
        }
        Ok(removed)
    }

    /// Removes files whose time is over, but not from under a batch.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn purge(&self, now: u64) -> Result<(), StoreError> {
        let over: Vec<String> = self.read(|database| {
            let mut statement = database.prepare("SELECT id FROM file WHERE expires <= ?")?;
            statement.query_map(params![now], |row| row.get(0))?.collect()
        })?;
        for id in over {
            self.remove_file(&id)?;
        }
        Ok(())
    }

    // Batches

    /// Begins a batch, unless its tenant has `most` that have not ended.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn begin(&self, batch: &NewBatch, most: u64) -> Result<bool, StoreError> {
        self.write(|database| {
            let live: u64 = database.query_row(
                "SELECT count(*) FROM batch WHERE tenant IS ? AND status NOT IN ('failed', 'completed', 'expired', 'cancelled')",
                params![batch.tenant],
                |row| row.get(0),
            )?;
            if live >= most {
                return Ok(false);
            }
            let metadata = serde_json::to_string(&batch.metadata).unwrap_or_default();
            database.execute(
                "INSERT INTO batch (id, tenant, key, endpoint, input, created, expires, metadata, keep_output, status)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'validating')",
                params![
                    batch.id, batch.tenant, batch.key, batch.endpoint, batch.input, batch.created, batch.expires, metadata,
                    batch.keep_output
                ],
            )?;
            Ok(true)
        })
    }

    /// The batch of that id, whosever it is.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn batch(&self, id: &str) -> Result<Option<Batch>, StoreError> {
        self.read(|database| {
            let query = format!("SELECT {BATCH} FROM batch WHERE id = ?");
            database.query_row(&query, params![id], batch_of).optional()
        })
    }

    /// A tenant's batches, the newest first: at most `limit` of those that are older than the batch `after`. `None` if there is
    /// no such batch.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn batches(
        &self,
        tenant: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Option<Vec<Batch>>, StoreError> {
        self.read(|database| {
            let before = match after {
                None => i64::MAX,
                Some(id) => {
                    let row = database.query_row(
                        "SELECT rowid FROM batch WHERE id = ? AND tenant IS ?",
                        params![id, tenant],
                        |row| row.get(0),
                    );
                    match row.optional()? {
                        Some(row) => row,
                        None => return Ok(None),
                    }
                }
            };
            let query = format!(
                "SELECT {BATCH} FROM batch WHERE tenant IS ? AND rowid < ? ORDER BY rowid DESC LIMIT ?"
            );
            let mut statement = database.prepare(&query)?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let batches = statement.query_map(params![tenant, before, limit], batch_of)?;
            batches.collect::<rusqlite::Result<_>>().map(Some)
        })
    }

    /// Everybody's batches that have not ended, the oldest first.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn unfinished(&self) -> Result<Vec<Batch>, StoreError> {
        self.read(|database| {
            let query = format!(
                "SELECT {BATCH} FROM batch WHERE status NOT IN ('failed', 'completed', 'expired', 'cancelled') ORDER BY rowid"
            );
            let mut statement = database.prepare(&query)?;
            statement.query_map([], batch_of)?.collect()
        })
    }

    /// Moves a batch to `to`, if it stands at one of `from`.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn advance(&self, id: &str, from: &[Status], to: Status, now: u64) -> Result<bool, StoreError> {
        self.write(|database| advance(database, id, from, to, now))
    }

    /// The file of a batch is right, and has `total` lines.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn validated(&self, id: &str, total: u64, now: u64) -> Result<(), StoreError> {
        self.write(|database| {
            database.execute("UPDATE batch SET total = ? WHERE id = ?", params![total, id])?;
            advance(database, id, &[Status::Validating], Status::InProgress, now).map(drop)
        })
    }

    /// The file of a batch is wrong.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn refused(&self, id: &str, problems: &[Problem], now: u64) -> Result<(), StoreError> {
        self.write(|database| {
            if advance(database, id, &[Status::Validating], Status::Failed, now)? {
                let problems = serde_json::to_string(problems).unwrap_or_default();
                let change = "UPDATE batch SET problems = ? WHERE id = ?";
                database.execute(change, params![problems, id])?;
            }
            Ok(())
        })
    }

    /// The result of a line, which is the line of the output or error file, unless there is one already.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn put(&self, id: &str, line: u64, answered: bool, text: &str) -> Result<(), StoreError> {
        self.write(|database| {
            let put = database.execute(
                "INSERT OR IGNORE INTO result (batch, line, answered, text) VALUES (?, ?, ?, ?)",
                params![id, line, answered, text],
            )?;
            let count = match answered {
                true => "UPDATE batch SET completed = completed + ? WHERE id = ?",
                false => "UPDATE batch SET failed = failed + ? WHERE id = ?",
            };
            database.execute(count, params![put, id])?;
            Ok(())
        })
    }

    /// The lines that have results.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn done(&self, id: &str) -> Result<HashSet<u64>, StoreError> {
        self.read(|database| {
            let mut statement = database.prepare("SELECT line FROM result WHERE batch = ?")?;
            statement.query_map(params![id], |row| row.get(0))?.collect()
        })
    }

    /// A line's result: whether it was answered, and the line of a file.
    pub(crate) fn result(&self, id: &str, line: u64) -> Result<Option<(bool, String)>, StoreError> {
        self.read(|database| {
            let mut statement =
                database.prepare_cached("SELECT answered, text FROM result WHERE batch = ? AND line = ?")?;
            statement
                .query_row(params![id, line], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()
        })
    }

    /// The batch has ended, with these files and so many failed lines. What was kept of its lines goes.
    pub(crate) fn ended(
        &self,
        id: &str,
        to: Status,
        files: [Option<&StoredFile>; 2],
        failed: u64,
        now: u64,
    ) -> Result<(), StoreError> {
        self.write(|database| {
            for file in files.into_iter().flatten() {
                insert(database, file)?;
            }
            let [output, errors] = files.map(|file| file.map(|file| &file.id));
            database.execute(
                "UPDATE batch SET output = ?, errors = ?, failed = ? WHERE id = ?",
                params![output, errors, failed, id],
            )?;
            let from = [
                Status::InProgress,
                Status::Finalizing,
                Status::Cancelling,
                Status::Validating,
            ];
            advance(database, id, &from, to, now)?;
            database.execute("DELETE FROM result WHERE batch = ?", params![id])?;
            Ok(())
        })
    }
}

fn insert(database: &Transaction<'_>, file: &StoredFile) -> rusqlite::Result<()> {
    let query = format!("INSERT OR REPLACE INTO file ({FILE}) VALUES (?, ?, ?, ?, ?, ?, ?)");
    let values = params![
        file.id,
        file.tenant,
        file.name,
        file.purpose.as_str(),
        file.bytes,
        file.created,
        file.expires
    ];
    database.execute(&query, values).map(drop)
}

fn advance(
    database: &Transaction<'_>,
    id: &str,
    from: &[Status],
    to: Status,
    now: u64,
) -> rusqlite::Result<bool> {
    let query = format!("SELECT {BATCH} FROM batch WHERE id = ?");
    let found = database.query_row(&query, params![id], batch_of).optional()?;
    let Some(mut batch) = found.filter(|batch| from.contains(&batch.status)) else {
        return Ok(false);
    };
    batch.times.insert(to.as_str().to_owned(), now);
    let times = serde_json::to_string(&batch.times).unwrap_or_default();
    let change = "UPDATE batch SET status = ?, times = ? WHERE id = ?";
    database.execute(change, params![to.as_str(), times, id])?;
    Ok(true)
}

fn file_of(row: &Row<'_>) -> rusqlite::Result<StoredFile> {
    let purpose: String = row.get(3)?;
    Ok(StoredFile {
        id: row.get(0)?,
        tenant: row.get(1)?,
        name: row.get(2)?,
        purpose: Purpose::parse(&purpose).ok_or_else(|| strange(3, &purpose))?,
        bytes: row.get(4)?,
        created: row.get(5)?,
        expires: row.get(6)?,
    })
}

fn batch_of(row: &Row<'_>) -> rusqlite::Result<Batch> {
    fn json<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
        let text: String = row.get(column)?;
        serde_json::from_str(&text).map_err(|_| strange(column, &text))
    }
    let status: String = row.get(9)?;
    Ok(Batch {
        begun: NewBatch {
            id: row.get(0)?,
            tenant: row.get(1)?,
            key: row.get(2)?,
            endpoint: row.get(3)?,
            input: row.get(4)?,
            created: row.get(5)?,
            expires: row.get(6)?,
            metadata: json(row, 7)?,
            keep_output: row.get(8)?,
        },
        status: Status::parse(&status).ok_or_else(|| strange(9, &status))?,
        times: json(row, 10)?,
        counts: Counts {
            total: row.get(11)?,
            completed: row.get(12)?,
            failed: row.get(13)?,
        },
        problems: json(row, 14)?,
        output: row.get(15)?,
        errors: row.get(16)?,
    })
}

/// A column holds what this program never writes there.
fn strange(column: usize, text: &str) -> rusqlite::Error {
    let message = format!("`{text}` is nothing that is written there");
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, message.into())
}

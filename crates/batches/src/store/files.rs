//! Files and their rows.

use std::{fs::File, path::PathBuf};

use rusqlite::{OptionalExtension as _, Row, Transaction, params};
use tempfile::NamedTempFile;

use super::{Store, unexpected};
use crate::{
    error::StoreError,
    file::{FileLimits, Purpose, StoredFile},
};

/// The columns of a file, in the order in which [`file_of`] reads them.
const FILE: &str = "id, tenant, name, purpose, bytes, created, expires";

/// The outcome of [`Store::keep`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// The file is stored.
    Kept,
    /// The file was refused: its tenant stores this many bytes already.
    TooManyBytes(u64),
    /// The file was refused: its tenant stores this many files already.
    TooManyFiles(u64),
}

/// The outcome of [`Store::remove_file`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// The file is deleted.
    Removed,
    /// The file was kept: the batch with this id still reads it.
    InUse(String),
}

impl Store {
    /// Creates a temporary file to write to. It is deleted when it is dropped, unless it is
    /// [kept](Self::keep).
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn begin_file(&self) -> Result<NamedTempFile, StoreError> {
        NamedTempFile::new_in(&self.folder).map_err(|source| self.file_error(&self.folder, source))
    }

    /// Synchronises a file to disk and renames it to its id. It has no row yet.
    pub(crate) fn persist(&self, written: NamedTempFile, id: &str) -> Result<(), StoreError> {
        let path = self.content(id);
        let fail = |source| self.file_error(&path, source);
        written.as_file().sync_all().map_err(fail)?;
        written.persist(&path).map_err(|error| fail(error.error))?;
        File::open(&self.folder)
            .and_then(|folder| folder.sync_all())
            .map_err(fail)
    }

    /// Stores a file, if its tenant's limits allow it.
    ///
    /// # Errors
    /// If the disk or the database cannot be written.
    pub fn keep(
        &self,
        written: NamedTempFile,
        file: &StoredFile,
        limits: FileLimits,
    ) -> Result<Kept, StoreError> {
        self.persist(written, &file.id)?;
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

    /// The file of a tenant with this id, unless it has expired.
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

    /// The files of a tenant that have not expired, the newest first.
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

    /// The path of a file's bytes.
    pub fn content(&self, id: &str) -> PathBuf {
        self.folder.join(id)
    }

    /// Deletes a file, unless a batch still reads it.
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

    /// Deletes expired files that no batch reads.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn purge(&self, now: u64) -> Result<(), StoreError> {
        let expired: Vec<String> = self.read(|database| {
            let mut statement = database.prepare("SELECT id FROM file WHERE expires <= ?")?;
            statement.query_map(params![now], |row| row.get(0))?.collect()
        })?;
        for id in expired {
            self.remove_file(&id)?;
        }
        Ok(())
    }
}

pub(super) fn insert(database: &Transaction<'_>, file: &StoredFile) -> rusqlite::Result<()> {
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

fn file_of(row: &Row<'_>) -> rusqlite::Result<StoredFile> {
    let purpose: String = row.get(3)?;
    Ok(StoredFile {
        id: row.get(0)?,
        tenant: row.get(1)?,
        name: row.get(2)?,
        purpose: Purpose::parse(&purpose).ok_or_else(|| unexpected(3, &purpose))?,
        bytes: row.get(4)?,
        created: row.get(5)?,
        expires: row.get(6)?,
    })
}

//! Rows of batches and of lines' results.

use std::collections::HashSet;

use rusqlite::{OptionalExtension as _, Row, Transaction, params};

use super::{Store, files::insert, unexpected};
use crate::{
    batch::{Batch, Counts, NewBatch, Problem, Status},
    error::StoreError,
    file::StoredFile,
};

/// The columns of a batch, in the order in which [`batch_of`] reads them.
const BATCH: &str = "id, tenant, key, endpoint, input, created, expires, metadata, keep_output, status, times, total, completed, \
    failed, problems, output, errors";

impl Store {
    /// Creates a batch, unless its tenant has `most` unfinished ones. Returns whether it did.
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

    /// The batch with this id, of any tenant.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn batch(&self, id: &str) -> Result<Option<Batch>, StoreError> {
        self.read(|database| {
            let query = format!("SELECT {BATCH} FROM batch WHERE id = ?");
            database.query_row(&query, params![id], batch_of).optional()
        })
    }

    /// A tenant's batches, the newest first: at most `limit` of those that are older than the batch
    /// `after`. `None` if `after` does not exist.
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

    /// The unfinished batches of all tenants, the oldest first.
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

    /// Moves a batch to the state `to` if it is in one of `from`. Returns whether it was.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn advance(&self, id: &str, from: &[Status], to: Status, now: u64) -> Result<bool, StoreError> {
        self.write(|database| advance(database, id, from, to, now))
    }

    /// Records that the input file of a batch is valid and has `total` lines.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn validated(&self, id: &str, total: u64, now: u64) -> Result<(), StoreError> {
        self.write(|database| {
            database.execute("UPDATE batch SET total = ? WHERE id = ?", params![total, id])?;
            advance(database, id, &[Status::Validating], Status::InProgress, now).map(drop)
        })
    }

    /// Records that the input file of a batch is invalid.
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

    /// Stores the result of a line, unless the line has one already. `text` is the line of the
    /// output or error file.
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

    /// The numbers of the lines that have results.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn done(&self, id: &str) -> Result<HashSet<u64>, StoreError> {
        self.read(|database| {
            let mut statement = database.prepare("SELECT line FROM result WHERE batch = ?")?;
            statement.query_map(params![id], |row| row.get(0))?.collect()
        })
    }

    /// The result of a line: whether it was answered, and the line of the output or error file.
    pub(crate) fn result(&self, id: &str, line: u64) -> Result<Option<(bool, String)>, StoreError> {
        self.read(|database| {
            let mut statement =
                database.prepare_cached("SELECT answered, text FROM result WHERE batch = ? AND line = ?")?;
            statement
                .query_row(params![id, line], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()
        })
    }

    /// Records that a batch has ended, with its output and error file and the number of failed
    /// lines. Deletes the rows of its results.
    pub(crate) fn end(
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

fn batch_of(row: &Row<'_>) -> rusqlite::Result<Batch> {
    fn json<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
        let text: String = row.get(column)?;
        serde_json::from_str(&text).map_err(|_| unexpected(column, &text))
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
        status: Status::parse(&status).ok_or_else(|| unexpected(9, &status))?,
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

//! The catalogue of a single server, in an SQLite file.
//!
//! Each change is one transaction, so if the process ends at any time, the next one finds the state
//! before or after the change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use multigraft_database::{Database, DatabaseError, Durability, Options, Sharing};
use multigraft_model::AdapterHash;
use multigraft_peft::AdapterInfo;
use multigraft_sources::{Reference, UPLOAD};
use rusqlite::{Connection, Row, Transaction, params};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::added_by::AddedBy;
use super::catalogue::{Catalogue, CataloguedName, CataloguedVersion, StoreError};
use super::limits::AdapterLimits;
use super::settings::Settings;

const TABLES: &str = "
    CREATE TABLE adapter (
        name TEXT PRIMARY KEY,
        pinned INTEGER NOT NULL,
        -- Of the version that requests get.
        active INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE version (
        name TEXT NOT NULL REFERENCES adapter (name) ON DELETE CASCADE,
        -- Counted from the name's first.
        number INTEGER NOT NULL,
        hash BLOB NOT NULL,
        source TEXT NOT NULL,
        -- In milliseconds since 1970.
        added INTEGER NOT NULL,
        PRIMARY KEY (name, number)
    ) STRICT;
";

/// Migrations: the tables of version 1, and the changes to each later version.
const MIGRATIONS: [&str; 5] = [
    TABLES,
    "-- Which state of the source it is: a commit of the Hub, or what an object store says of it.
     ALTER TABLE version ADD COLUMN revision TEXT;",
    "-- What requests get where they say nothing, as JSON.
     ALTER TABLE adapter ADD COLUMN defaults TEXT;",
    "-- What requests may take, as JSON.
     ALTER TABLE adapter ADD COLUMN limits TEXT;",
    "-- What was found when it was loaded, as JSON.
     ALTER TABLE version ADD COLUMN info TEXT;
     -- Who added it; NULL if that was before this was written down.
     ALTER TABLE version ADD COLUMN added_by TEXT;",
];

/// The database, which only this process may have open.
#[derive(Debug)]
pub(super) struct SqliteCatalogue {
    database: Database,
}

/// Stores the settings of a name as JSON. Empty and default values are stored as NULL.
fn store_settings(transaction: &Transaction<'_>, name: &str, settings: &Settings) -> rusqlite::Result<()> {
    if let Some(defaults) = &settings.defaults {
        let text = Some(defaults).filter(|defaults| !defaults.is_empty());
        let text = text.map(|defaults| Value::Object(defaults.clone()).to_string());
        transaction.execute(
            "UPDATE adapter SET defaults = ?2 WHERE name = ?1",
            params![name, text],
        )?;
    }
    if let Some(limits) = &settings.limits {
        let text = Some(limits).filter(|limits| **limits != AdapterLimits::default());
        let text = text.and_then(|limits| serde_json::to_string(limits).ok());
        transaction.execute(
            "UPDATE adapter SET limits = ?2 WHERE name = ?1",
            params![name, text],
        )?;
    }
    Ok(())
}

/// Parses a JSON column of a name. A value that cannot be parsed was not written by this program;
/// it is ignored with a log message.
fn stored_json<T: DeserializeOwned>(row: &Row<'_>, column: usize, what: &str) -> rusqlite::Result<Option<T>> {
    let Some(text) = row.get::<_, Option<String>>(column)? else {
        return Ok(None);
    };
    let read = serde_json::from_str(&text).inspect_err(|error| {
        let name: String = row.get(0).unwrap_or_default();
        tracing::error!("the stored {what} of adapter `{name}` cannot be parsed and are ignored: {error}");
    });
    Ok(read.ok())
}

/// Parses a stored source. Folders are stored with their absolute path.
fn parse_source(text: String) -> Reference {
    if text == UPLOAD {
        // The files of an upload are in the store.
        return Reference::Upload {
            folder: PathBuf::new(),
        };
    }
    Reference::parse(&text).unwrap_or_else(|_| Reference::Folder(text.into()))
}

fn json(info: &AdapterInfo) -> Option<String> {
    serde_json::to_string(info).ok()
}

impl SqliteCatalogue {
    /// Opens or creates the file at `path`.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let options = Options {
            sharing: Sharing::Exclusive,
            durability: Durability::Full,
            migrations: &MIGRATIONS,
        };
        let database = Database::open(path, &options)?;
        Ok(Self { database })
    }

    fn read<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        Ok(self.database.read(query)?)
    }

    fn change(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), StoreError> {
        Ok(self.database.write(change)?)
    }
}

impl From<DatabaseError> for StoreError {
    fn from(error: DatabaseError) -> Self {
        Self::Catalogue(Box::new(error))
    }
}

impl Catalogue for SqliteCatalogue {
    fn names(&self) -> Result<Vec<CataloguedName>, StoreError> {
        self.read(|database| {
            let mut names = database
                .prepare("SELECT name, pinned, active, defaults, limits FROM adapter ORDER BY rowid")?
                .query_map([], |row| {
                    Ok(CataloguedName {
                        name: row.get(0)?,
                        pinned: row.get(1)?,
                        active: row.get(2)?,
                        defaults: stored_json(row, 3, "defaults")?,
                        limits: stored_json(row, 4, "limits")?,
                        versions: Vec::new(),
                    })
                })?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            let mut versions = database.prepare(
                "SELECT number, hash, source, added, revision, info, added_by FROM version
                 WHERE name = ?1 ORDER BY number",
            )?;
            for name in &mut names {
                let rows = versions.query_map([&name.name], |row| {
                    Ok(CataloguedVersion {
                        number: row.get(0)?,
                        hash: AdapterHash(row.get(1)?),
                        source: parse_source(row.get(2)?),
                        added: UNIX_EPOCH + Duration::from_millis(row.get::<_, i64>(3)?.unsigned_abs()),
                        revision: row.get(4)?,
                        // Facts that cannot be parsed are found again by the next load.
                        info: row
                            .get::<_, Option<String>>(5)?
                            .and_then(|text| serde_json::from_str(&text).ok())
                            .map(Arc::new),
                        added_by: row
                            .get::<_, Option<String>>(6)?
                            .and_then(|text| AddedBy::parse(&text)),
                    })
                })?;
                name.versions = rows.collect::<rusqlite::Result<_>>()?;
            }
            Ok(names)
        })
    }

    fn add(
        &self,
        name: &str,
        pinned: bool,
        version: &CataloguedVersion,
        oldest: u32,
        settings: &Settings,
    ) -> Result<(), StoreError> {
        let added = version.added.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.change(|transaction| {
            transaction.execute(
                "INSERT INTO adapter (name, pinned, active) VALUES (?1, ?2, ?3)
                 ON CONFLICT (name) DO UPDATE SET pinned = excluded.pinned, active = excluded.active",
                params![name, pinned, version.number],
            )?;
            transaction.execute(
                "INSERT OR REPLACE INTO version (name, number, hash, source, added, revision, info, added_by)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                params![
                    name,
                    version.number,
                    version.hash.0,
                    version.source.to_string(),
                    i64::try_from(added.as_millis()).unwrap_or(i64::MAX),
                    version.revision,
                    version.info.as_deref().and_then(json),
                    version.added_by.map(AddedBy::as_str),
                ],
            )?;
            transaction.execute(
                "DELETE FROM version WHERE name = ?1 AND number < ?2",
                params![name, oldest],
            )?;
            store_settings(transaction, name, settings)
        })
    }

    fn set_info(&self, name: &str, number: u32, info: &AdapterInfo) -> Result<(), StoreError> {
        self.change(|transaction| {
            transaction.execute(
                "UPDATE version SET info = ?3 WHERE name = ?1 AND number = ?2",
                params![name, number, json(info)],
            )?;
            Ok(())
        })
    }

    fn activate(&self, name: &str, number: u32) -> Result<(), StoreError> {
        self.change(|transaction| {
            transaction.execute(
                "UPDATE adapter SET active = ?2 WHERE name = ?1",
                params![name, number],
            )?;
            Ok(())
        })
    }

    fn pin(&self, name: &str, pinned: bool) -> Result<(), StoreError> {
        self.change(|transaction| {
            transaction.execute(
                "UPDATE adapter SET pinned = ?2 WHERE name = ?1",
                params![name, pinned],
            )?;
            Ok(())
        })
    }

    fn set(&self, name: &str, settings: &Settings) -> Result<(), StoreError> {
        self.change(|transaction| store_settings(transaction, name, settings))
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.change(|transaction| {
            transaction.execute("DELETE FROM adapter WHERE name = ?1", [name])?;
            Ok(())
        })
    }
}

//! What survives a restart: names, versions and pins in SQLite, and beside it every version's files
//! by their hash.
//!
//! A change is one transaction, so whenever the process ends, the next one finds the state before
//! it or after it. Files are written under another name, brought to disk and then renamed, before
//! anything names them; those that nothing names are swept away at the start.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use multigraft_database::{Database, DatabaseError, Durability, Options, Sharing};
use multigraft_model::AdapterHash;
use rusqlite::{Connection, Row, Transaction, params};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tempfile::TempDir;

use super::AddedBy;
use super::Settings;
use super::limits::AdapterLimits;
use crate::files::AdapterFiles;
use crate::info::AdapterInfo;
use crate::self_test::{REFERENCE_FILE, REFERENCE_LIMIT};
use crate::source::{Reference, UPLOAD};

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

/// The tables of version 1, and from each version to the next.
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

/// Why the registry's data could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file of it.
    #[error("`{}`: {source}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The database, which may be in use by another process.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// A name as it was stored.
#[derive(Debug, PartialEq)]
pub(super) struct StoredName {
    pub(super) name: String,
    pub(super) pinned: bool,
    /// What requests get where they say nothing.
    pub(super) defaults: Option<Map<String, Value>>,
    /// What requests may take.
    pub(super) limits: Option<AdapterLimits>,
    /// Number of the active version.
    pub(super) active: u32,
    /// The newest last.
    pub(super) versions: Vec<StoredVersion>,
}

/// A version as it was stored.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct StoredVersion {
    pub(super) number: u32,
    pub(super) hash: AdapterHash,
    pub(super) source: Reference,
    pub(super) revision: Option<String>,
    pub(super) added: SystemTime,
    pub(super) added_by: Option<AddedBy>,
    /// What was found when it was loaded.
    pub(super) info: Option<Arc<AdapterInfo>>,
}

/// The data folder, which this process alone uses.
#[derive(Debug)]
pub(super) struct Store {
    database: Database,
    files: PathBuf,
}

/// Sets what holds for a name, as JSON; what is empty or usual is nothing.
fn set(transaction: &Transaction<'_>, name: &str, settings: &Settings) -> rusqlite::Result<()> {
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

/// What a column of a name holds. What cannot be read is left out, and said: it was not written by
/// this program.
fn stored_json<T: DeserializeOwned>(row: &Row<'_>, column: usize, what: &str) -> rusqlite::Result<Option<T>> {
    let Some(text) = row.get::<_, Option<String>>(column)? else {
        return Ok(None);
    };
    let read = serde_json::from_str(&text).inspect_err(|error| {
        let name: String = row.get(0).unwrap_or_default();
        tracing::error!("the stored {what} of adapter `{name}` cannot be read and do not hold: {error}");
    });
    Ok(read.ok())
}

/// Keeps what an adapter says that it should answer, for later loads: it is no part of the hash, so
/// it may be another by now.
fn keep_reference(adapter: &AdapterFiles, folder: &Path) -> io::Result<()> {
    let from = adapter.folder.join(REFERENCE_FILE);
    let is_small = from
        .metadata()
        .is_ok_and(|file| file.is_file() && file.len() <= REFERENCE_LIMIT);
    if !is_small || adapter.folder == folder {
        return Ok(());
    }
    let unfinished = folder.join(format!("{REFERENCE_FILE}.new"));
    fs::copy(from, &unfinished)?;
    fs::rename(unfinished, folder.join(REFERENCE_FILE))
}

/// A source as it was stored. Folders are stored with their whole path.
fn written(text: String) -> Reference {
    if text == UPLOAD {
        // Its files are the store's since.
        return Reference::Upload {
            folder: PathBuf::new(),
        };
    }
    Reference::parse(&text).unwrap_or_else(|_| Reference::Folder(text.into()))
}

fn json(info: &AdapterInfo) -> Option<String> {
    serde_json::to_string(info).ok()
}

impl Store {
    /// Opens the data in `folder`, or begins it there.
    pub(super) fn open(folder: &Path) -> Result<Self, StoreError> {
        let files = folder.join("adapters");
        fs::create_dir_all(&files).map_err(|source| StoreError::File {
            path: files.clone(),
            source,
        })?;
        let options = Options {
            sharing: Sharing::Exclusive,
            durability: Durability::Full,
            migrations: &MIGRATIONS,
        };
        let database = Database::open(&folder.join("registry.sqlite"), &options)?;
        Ok(Self { database, files })
    }

    /// All names, in the order that they were added.
    pub(super) fn names(&self) -> Result<Vec<StoredName>, StoreError> {
        self.read(|database| {
            let mut names = database
                .prepare("SELECT name, pinned, active, defaults, limits FROM adapter ORDER BY rowid")?
                .query_map([], |row| {
                    Ok(StoredName {
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
                    Ok(StoredVersion {
                        number: row.get(0)?,
                        hash: AdapterHash(row.get(1)?),
                        source: written(row.get(2)?),
                        added: UNIX_EPOCH + Duration::from_millis(row.get::<_, i64>(3)?.unsigned_abs()),
                        revision: row.get(4)?,
                        // What cannot be read is found out again when the adapter is loaded.
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

    /// Stores a name with its newest version, which is the active one, and forgets those before
    /// number `oldest`.
    pub(super) fn add(
        &self,
        name: &str,
        pinned: bool,
        version: &StoredVersion,
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
            set(transaction, name, settings)
        })
    }

    /// What was found when a version was loaded.
    pub(super) fn set_info(&self, name: &str, number: u32, info: &AdapterInfo) -> Result<(), StoreError> {
        self.change(|transaction| {
            transaction.execute(
                "UPDATE version SET info = ?3 WHERE name = ?1 AND number = ?2",
                params![name, number, json(info)],
            )?;
            Ok(())
        })
    }

    /// Makes a version the active one.
    pub(super) fn activate(&self, name: &str, number: u32) -> Result<(), StoreError> {
        self.change(|transaction| {
            transaction.execute(
                "UPDATE adapter SET active = ?2 WHERE name = ?1",
                params![name, number],
            )?;
            Ok(())
        })
    }

    /// Pins a name or not.
    pub(super) fn pin(&self, name: &str, pinned: bool) -> Result<(), StoreError> {
        self.change(|transaction| {
            transaction.execute(
                "UPDATE adapter SET pinned = ?2 WHERE name = ?1",
                params![name, pinned],
            )?;
            Ok(())
        })
    }

    /// Sets what holds for a name.
    pub(super) fn set(&self, name: &str, settings: &Settings) -> Result<(), StoreError> {
        self.change(|transaction| set(transaction, name, settings))
    }

    /// Forgets a name and its versions.
    pub(super) fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.change(|transaction| {
            transaction.execute("DELETE FROM adapter WHERE name = ?1", [name])?;
            Ok(())
        })
    }

    /// Where the files of a version are.
    pub(super) fn folder(&self, hash: AdapterHash) -> PathBuf {
        self.files.join(hash.to_string())
    }

    /// Keeps an adapter's files; returns whether they were not kept before.
    pub(super) fn keep(&self, adapter: &AdapterFiles) -> Result<bool, StoreError> {
        let folder = self.folder(adapter.hash);
        let is_whole =
            |(name, bytes): &(&str, &[u8])| fs::read(folder.join(name)).is_ok_and(|kept| kept == *bytes);
        let files = adapter.files();
        if files.iter().all(is_whole) {
            keep_reference(adapter, &folder).map_err(|source| StoreError::File {
                path: folder.join(REFERENCE_FILE),
                source,
            })?;
            return Ok(false);
        }
        let unfinished = self.files.join(format!("{}.new", adapter.hash));
        let write = || -> io::Result<()> {
            if unfinished.exists() {
                fs::remove_dir_all(&unfinished)?;
            }
            fs::create_dir(&unfinished)?;
            for (name, bytes) in &files {
                let mut file = File::create_new(unfinished.join(name))?;
                file.write_all(bytes)?;
                file.sync_all()?;
            }
            keep_reference(adapter, &unfinished)?;
            File::open(&unfinished)?.sync_all()?;
            if folder.exists() {
                // Damaged, or it would have been found whole.
                fs::remove_dir_all(&folder)?;
            }
            fs::rename(&unfinished, &folder)?;
            File::open(&self.files)?.sync_all()
        };
        match write() {
            Ok(()) => Ok(true),
            Err(source) => Err(StoreError::File {
                path: unfinished,
                source,
            }),
        }
    }

    /// A folder for files that arrive, which goes when it is dropped; after a crash, at the next
    /// start.
    pub(super) fn arriving(&self) -> Result<TempDir, StoreError> {
        let folder = tempfile::Builder::new().prefix("upload-").tempdir_in(&self.files);
        folder.map_err(|source| StoreError::File {
            path: self.files.clone(),
            source,
        })
    }

    /// Deletes files that turned out to be of no use.
    pub(super) fn discard(&self, hash: AdapterHash) {
        // What is left of them goes at the next start.
        let _ = fs::remove_dir_all(self.folder(hash));
    }

    /// Deletes the files that no version names.
    pub(super) fn sweep(&self) -> Result<(), StoreError> {
        let hashes = self.read(|database| {
            let mut hashes = database.prepare("SELECT DISTINCT hash FROM version")?;
            let hashes = hashes.query_map([], |row| Ok(AdapterHash(row.get(0)?)))?;
            hashes.collect::<rusqlite::Result<Vec<_>>>()
        })?;
        let kept: HashSet<PathBuf> = hashes.into_iter().map(|hash| self.folder(hash)).collect();
        let sweep = || -> io::Result<()> {
            for entry in fs::read_dir(&self.files)? {
                let path = entry?.path();
                if !kept.contains(&path) {
                    match path.is_dir() {
                        true => fs::remove_dir_all(&path)?,
                        false => fs::remove_file(&path)?,
                    }
                }
            }
            Ok(())
        };
        sweep().map_err(|source| StoreError::File {
            path: self.files.clone(),
            source,
        })
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

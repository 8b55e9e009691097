//! Keys in SQLite, in `keys.sqlite` of the data folder.
//!
//! The database is shared: commands change it while a server runs.

use std::{
    collections::HashMap,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use multigraft_database::{Database, Durability, Options, Sharing};
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Transaction, params};

use crate::{
    audit::Audit,
    error::AccessError,
    grant::Grants,
    key::{Admins, Changes, Key, NewKey, Role, check_name},
    limits::{KeyLimits, LimitChanges},
    month::{Month, Spent},
    secret::{Hash, Secret},
};

/// The database's name in the data folder.
pub const FILE: &str = "keys.sqlite";

const TABLES: &str = "
    CREATE TABLE key (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        role TEXT NOT NULL,
        tenant TEXT NOT NULL,
        -- A list of strings, as JSON.
        grants TEXT NOT NULL,
        -- These in seconds since 1970.
        created INTEGER NOT NULL,
        expires INTEGER,
        revoked INTEGER
    ) STRICT;
    CREATE TABLE secret (
        key TEXT NOT NULL REFERENCES key (id),
        -- SHA-256 of the secret.
        hash BLOB NOT NULL,
        expires INTEGER
    ) STRICT;
    -- The key that added an adapter.
    CREATE TABLE owner (
        adapter TEXT PRIMARY KEY,
        key TEXT NOT NULL REFERENCES key (id)
    ) STRICT;
";

/// The additions of version 2.
const LIMITS: &str = "
    -- As JSON, without the limits that are not set.
    ALTER TABLE key ADD COLUMN limits TEXT NOT NULL DEFAULT '{}';
    -- The tokens of the last month in which a key used any.
    CREATE TABLE spent (
        key TEXT PRIMARY KEY REFERENCES key (id),
        -- Counted from year 0.
        month INTEGER NOT NULL,
        tokens INTEGER NOT NULL
    ) STRICT;
";

/// The hash of a secret, and when the secret expires.
pub(crate) type StoredSecret = (Hash, Option<SystemTime>);

/// A key with its secrets.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) key: Key,
    pub(crate) secrets: Vec<StoredSecret>,
}

/// The database of the keys.
#[derive(Debug)]
pub struct Store {
    database: Database,
    audit: Audit,
}

fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn time(seconds: i64) -> SystemTime {
    let since = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    // A time that the clock cannot represent is treated as past.
    UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH)
}

impl Store {
    /// Opens the keys of a data folder; creates folder and database where they do not exist.
    ///
    /// # Errors
    /// If the database cannot be opened or created.
    pub fn open(folder: &Path) -> Result<Self, AccessError> {
        let options = Options {
            sharing: Sharing::Shared,
            durability: Durability::Full,
            migrations: &[TABLES, LIMITS],
        };
        Ok(Self {
            database: Database::open(&folder.join(FILE), &options)?,
            audit: Audit::new(folder),
        })
    }

    /// The data folder.
    pub(crate) fn folder(&self) -> &Path {
        self.database.path().parent().unwrap_or(Path::new(""))
    }

    /// The audit log beside the database, to which callers write the changes that they make.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// Makes all of `change` or nothing.
    fn write<T>(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> Result<Result<T, AccessError>, rusqlite::Error>,
    ) -> Result<T, AccessError> {
        self.database.write_if(change)?
    }

    /// A number that differs after another connection has changed the database.
    pub(crate) fn version(&self) -> Result<i64, AccessError> {
        let version =
            |connection: &Connection| connection.pragma_query_value(None, "data_version", |row| row.get(0));
        Ok(self.database.read(version)?)
    }

    /// All keys, the oldest first.
    ///
    /// # Errors
    /// If the database cannot be read, or a row is not a valid key.
    pub fn keys(&self) -> Result<Vec<Key>, AccessError> {
        Ok(self.stored()?.into_iter().map(|stored| stored.key).collect())
    }

    pub(crate) fn stored(&self) -> Result<Vec<Stored>, AccessError> {
        type Read = rusqlite::Result<(Vec<Row>, HashMap<String, Vec<StoredSecret>>)>;
        type Row = (
            String,
            String,
            String,
            String,
            String,
            String,
            i64,
            Option<i64>,
            Option<i64>,
        );
        let read = |connection: &Connection| -> Read {
            // One transaction, so that keys and secrets are read from the same state.
            let database = connection.unchecked_transaction()?;
            let rows = database
                .prepare("SELECT id, name, role, tenant, grants, limits, created, expires, revoked FROM key ORDER BY rowid")?
                .query_map([], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?, row.get(7)?, row.get(8)?))
                })?
                .collect::<rusqlite::Result<_>>()?;
            let mut secrets: HashMap<String, Vec<StoredSecret>> = HashMap::new();
            let mut statement = database.prepare("SELECT key, hash, expires FROM secret ORDER BY rowid")?;
            let mut found = statement.query([])?;
            while let Some(row) = found.next()? {
                let of: String = row.get(0)?;
                secrets
                    .entry(of)
                    .or_default()
                    .push((row.get(1)?, row.get::<_, Option<i64>>(2)?.map(time)));
            }
            Ok((rows, secrets))
        };
        let (rows, mut secrets) = self.database.read(read)?;
        let stored = rows.into_iter().map(
            |(id, name, role, tenant, grants, limits, created, expires, revoked)| {
                let damaged = |problem: String| AccessError::Damaged {
                    id: id.clone(),
                    problem,
                };
                let grants: Vec<String> =
                    serde_json::from_str(&grants).map_err(|error| damaged(error.to_string()))?;
                Ok(Stored {
                    secrets: secrets.remove(&id).unwrap_or_default(),
                    key: Key {
                        role: role.parse().map_err(damaged)?,
                        grants: Grants::parse(&grants).map_err(damaged)?,
                        limits: serde_json::from_str(&limits).map_err(|error| damaged(error.to_string()))?,
                        created: time(created),
                        expires: expires.map(time),
                        revoked: revoked.map(time),
                        name,
                        tenant,
                        id,
                    },
                })
            },
        );
        stored.collect()
    }

    /// Creates a key. The secret that is returned is stored nowhere.
    ///
    /// # Errors
    /// If the name is taken or invalid, or the database cannot be written.
    pub fn add(&self, new: &NewKey) -> Result<(Key, Secret), AccessError> {
        check_name("name", &new.name)?;
        let tenant = new.tenant.as_ref().unwrap_or(&new.name);
        check_name("tenant", tenant)?;
        let id = Secret::new_id()?;
        let secret = Secret::new(&id)?;
        let key = Key {
            name: new.name.clone(),
            role: new.role,
            tenant: tenant.clone(),
            grants: new.grants.clone(),
            limits: new.limits,
            created: time(seconds(SystemTime::now())),
            expires: new.expires.map(|at| time(seconds(at))),
            revoked: None,
            id,
        };
        self.write(|transaction| {
            let added = transaction.execute(
                "INSERT INTO key (id, name, role, tenant, grants, limits, created, expires) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                params![
                    key.id,
                    key.name,
                    key.role.to_string(),
                    key.tenant,
                    serde_json::json!(key.grants.texts()).to_string(),
                    serde_json::json!(key.limits).to_string(),
                    seconds(key.created),
                    key.expires.map(seconds)
                ],
            );
            match added {
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                    return Ok(Err(AccessError::NameTaken(key.name.clone())));
                }
                added => added?,
            };
            insert_secret(transaction, &secret)?;
            Ok(Ok(()))
        })?;
        Ok((key, secret))
    }

    /// Revokes the key with this id or name, permanently. Revoking it again changes nothing.
    ///
    /// # Errors
    /// If the key does not exist, `admins` forbids it, or the database cannot be written.
    pub fn revoke(&self, key: &str, admins: Admins) -> Result<Key, AccessError> {
        self.write(|transaction| {
            let Some(id) = find(transaction, key)? else {
                return Ok(Err(AccessError::Unknown(key.to_owned())));
            };
            let before = last_admin_expiry(transaction)?;
            transaction.execute(
                "UPDATE key SET revoked = coalesce(revoked, ?) WHERE id = ?",
                params![seconds(SystemTime::now()), id],
            )?;
            Ok(check_admins(transaction, admins, before, key)?.map(|()| id))
        })
        .and_then(|id| self.key(&id))
    }

    /// Creates another secret for the key with this id or name. Its present secrets expire at
    /// `until`, or earlier if they would anyway.
    ///
    /// # Errors
    /// If the key does not exist or is revoked, or the database cannot be written.
    pub fn rotate(&self, key: &str, until: SystemTime) -> Result<(Key, Secret), AccessError> {
        let (id, secret) = self.write(|transaction| {
            let (id, secret) =
                match find_unrevoked(transaction, key)?.and_then(|id| Ok((Secret::new(&id)?, id))) {
                    Ok((secret, id)) => (id, secret),
                    Err(error) => return Ok(Err(error)),
                };
            transaction.execute(
                "UPDATE secret SET expires = min(coalesce(expires, ?1), ?1) WHERE key = ?2",
                params![seconds(until), id],
            )?;
            transaction.execute(
                "DELETE FROM secret WHERE key = ? AND expires <= ?",
                params![id, seconds(SystemTime::now())],
            )?;
            insert_secret(transaction, &secret)?;
            Ok(Ok((id, secret)))
        })?;
        Ok((self.key(&id)?, secret))
    }

    /// Changes the key with this id or name.
    ///
    /// # Errors
    /// If the key does not exist or is revoked, a field is invalid, `admins` forbids the change, or
    /// the database cannot be written.
    pub fn set(&self, key: &str, changes: &Changes, admins: Admins) -> Result<Key, AccessError> {
        if let Some(tenant) = &changes.tenant {
            check_name("tenant", tenant)?;
        }
        self.write(|transaction| {
            let id = match find_unrevoked(transaction, key)? {
                Ok(id) => id,
                Err(error) => return Ok(Err(error)),
            };
            let before = last_admin_expiry(transaction)?;
            if let Some(role) = changes.role {
                transaction.execute(
                    "UPDATE key SET role = ? WHERE id = ?",
                    params![role.to_string(), id],
                )?;
            }
            if let Some(tenant) = &changes.tenant {
                transaction.execute("UPDATE key SET tenant = ? WHERE id = ?", params![tenant, id])?;
            }
            if let Some(grants) = &changes.grants {
                let grants = serde_json::json!(grants.texts()).to_string();
                transaction.execute("UPDATE key SET grants = ? WHERE id = ?", params![grants, id])?;
            }
            if changes.limits != LimitChanges::default() {
                let limits: String =
                    transaction.query_row("SELECT limits FROM key WHERE id = ?", [&id], |row| row.get(0))?;
                let limits: KeyLimits = match serde_json::from_str(&limits) {
                    Ok(limits) => changes.limits.apply_to(limits),
                    Err(error) => {
                        let problem = error.to_string();
                        return Ok(Err(AccessError::Damaged {
                            id: id.clone(),
                            problem,
                        }));
                    }
                };
                let limits = serde_json::json!(limits).to_string();
                transaction.execute("UPDATE key SET limits = ? WHERE id = ?", params![limits, id])?;
            }
            if let Some(expires) = changes.expires {
                transaction.execute(
                    "UPDATE key SET expires = ? WHERE id = ?",
                    params![expires.map(seconds), id],
                )?;
            }
            Ok(check_admins(transaction, admins, before, key)?.map(|()| id))
        })
        .and_then(|id| self.key(&id))
    }

    /// The key with this id or name.
    ///
    /// # Errors
    /// If the key does not exist, or the database cannot be read.
    pub fn key(&self, key: &str) -> Result<Key, AccessError> {
        let mut keys = self.keys()?;
        // An id takes precedence over a name that looks like an id.
        let by_id = keys.iter().position(|found| found.id == key);
        let found = by_id.or_else(|| keys.iter().position(|found| found.name == key));
        let found = found.ok_or_else(|| AccessError::Unknown(key.to_owned()))?;
        Ok(keys.swap_remove(found))
    }

    /// The tokens of the last month of every key.
    pub(crate) fn months(&self) -> Result<Vec<(String, Month, u64)>, AccessError> {
        let months = self.database.read(|database| {
            let mut statement = database.prepare("SELECT key, month, tokens FROM spent")?;
            let rows = statement.query_map([], |row| {
                let tokens: i64 = row.get(2)?;
                Ok((
                    row.get(0)?,
                    Month(row.get(1)?),
                    u64::try_from(tokens).unwrap_or(0),
                ))
            })?;
            rows.collect::<rusqlite::Result<_>>()
        })?;
        Ok(months)
    }

    /// Adds the tokens that were counted since the last call. They are added to the stored sum,
    /// because other processes may write to the database too.
    pub(crate) fn add_spent(&self, spent: &[(String, Spent)]) -> Result<(), AccessError> {
        self.write(|transaction| {
            let mut statement = transaction.prepare(
                "INSERT INTO spent (key, month, tokens) VALUES (?1, ?2, max(?3, 0)) ON CONFLICT DO UPDATE SET
                 tokens = max(CASE WHEN month = ?2 THEN tokens ELSE 0 END + ?3, 0), month = ?2",
            )?;
            for (key, spent) in spent {
                statement.execute(params![key, spent.month.0, spent.unsaved])?;
            }
            Ok(Ok(()))
        })
    }

    /// Makes key `id` the owner of `adapter`, unless another key is. Returns whether `id` is the
    /// owner now, and whether the ownership is new.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn claim(&self, adapter: &str, id: &str) -> Result<(bool, bool), AccessError> {
        self.write(|transaction| {
            let new = transaction.execute(
                "INSERT INTO owner (adapter, key) VALUES (?, ?) ON CONFLICT DO NOTHING",
                params![adapter, id],
            )?;
            let owner: String =
                transaction.query_row("SELECT key FROM owner WHERE adapter = ?", [adapter], |row| {
                    row.get(0)
                })?;
            Ok(Ok((owner == id, new == 1)))
        })
    }

    /// The key that owns `adapter` because it added it.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn owner(&self, adapter: &str) -> Result<Option<String>, AccessError> {
        let owner = self.database.read(|database| {
            let query = "SELECT key FROM owner WHERE adapter = ?";
            database.query_row(query, [adapter], |row| row.get(0)).optional()
        })?;
        Ok(owner)
    }

    /// Removes the ownership of `adapter`.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn disown(&self, adapter: &str) -> Result<(), AccessError> {
        self.write(|transaction| {
            transaction.execute("DELETE FROM owner WHERE adapter = ?", [adapter])?;
            Ok(Ok(()))
        })
    }
}

fn insert_secret(transaction: &Transaction<'_>, secret: &Secret) -> rusqlite::Result<usize> {
    transaction.execute(
        "INSERT INTO secret (key, hash) VALUES (?, ?)",
        params![secret.id(), secret.hash()],
    )
}

fn find(transaction: &Transaction<'_>, key: &str) -> rusqlite::Result<Option<String>> {
    // An id takes precedence over a name that looks like an id.
    transaction
        .query_row(
            "SELECT id FROM key WHERE id = ?1 OR name = ?1 ORDER BY id = ?1 DESC LIMIT 1",
            [key],
            |row| row.get(0),
        )
        .optional()
}

/// The id of the key with this id or name, if it is not revoked.
fn find_unrevoked(transaction: &Transaction<'_>, key: &str) -> rusqlite::Result<Result<String, AccessError>> {
    let Some(id) = find(transaction, key)? else {
        return Ok(Err(AccessError::Unknown(key.to_owned())));
    };
    let is_revoked =
        transaction.query_row("SELECT revoked IS NOT NULL FROM key WHERE id = ?", [&id], |row| {
            row.get(0)
        })?;
    Ok(match is_revoked {
        true => Err(AccessError::Revoked(key.to_owned())),
        false => Ok(id),
    })
}

/// The latest expiry of the admin keys that are not revoked, in seconds since 1970.
fn last_admin_expiry(transaction: &Transaction<'_>) -> rusqlite::Result<Option<i64>> {
    transaction.query_row(
        "SELECT max(coalesce(expires, ?)) FROM key WHERE role = ? AND revoked IS NULL",
        params![i64::MAX, Role::Admin.to_string()],
        |row| row.get(0),
    )
}

/// Checks a change of `key` that was made when the latest expiry of admin keys was `before`.
fn check_admins(
    transaction: &Transaction<'_>,
    admins: Admins,
    before: Option<i64>,
    key: &str,
) -> rusqlite::Result<Result<(), AccessError>> {
    Ok(match admins {
        Admins::OneStays if last_admin_expiry(transaction)? < before => {
            Err(AccessError::LastAdmin(key.to_owned()))
        }
        Admins::OneStays | Admins::MayEnd => Ok(()),
    })
}

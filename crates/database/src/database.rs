//! A database file that is open.

use std::{
    convert::Infallible,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};

use crate::{
    error::DatabaseError,
    migrations::{Migrated, migrate},
};

/// Which processes may have a database open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Any number of processes: commands change the database while a server runs. Each waits up to
    /// five seconds for the others' changes.
    Shared,
    /// One process, from opening to closing. Others get [`DatabaseError::InUse`].
    Exclusive,
}

/// What a loss of power may undo. A process that is killed loses no change either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Nothing: a change is on disk when [`Database::write`] returns.
    Full,
    /// The last changes. The database stays consistent.
    Normal,
}

/// How a database is opened.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Which processes may have it open.
    pub sharing: Sharing,
    /// What a loss of power may undo.
    pub durability: Durability,
    /// `migrations[v]` is the SQL that turns tables of version `v` into tables of version `v + 1`;
    /// an empty database has version 0. Migrations that were released are never edited, because
    /// files of every version exist.
    pub migrations: &'a [&'a str],
}

/// How long a process waits for another's change to a shared database.
const SHARED_WAIT: Duration = Duration::from_secs(5);
/// How long a process waits for an exclusive database: its owner may be just ending.
const EXCLUSIVE_WAIT: Duration = Duration::from_millis(500);

/// An SQLite database. Threads use its one connection in turn.
#[derive(Debug)]
pub struct Database {
    connection: Mutex<Connection>,
    path: PathBuf,
}

impl Database {
    /// Opens the database at `path` and migrates its tables to the newest version. Creates the file
    /// and its folder where they do not exist.
    ///
    /// # Errors
    /// If the folder or the file cannot be created, read or written, another process holds the
    /// database, or its tables are of a later version.
    pub fn open(path: &Path, options: &Options<'_>) -> Result<Self, DatabaseError> {
        let folder = path.parent().unwrap_or(Path::new(""));
        fs::create_dir_all(folder).map_err(|source| DatabaseError::Folder {
            path: folder.to_owned(),
            source,
        })?;
        let path = path.to_owned();
        match connect(&path, options) {
            Ok((connection, Migrated::UpToDate)) => Ok(Self {
                connection: Mutex::new(connection),
                path,
            }),
            Ok((_, Migrated::UnknownVersion(version))) => Err(DatabaseError::TooNew {
                path,
                version,
                known: options.migrations.len(),
            }),
            Err(source) if options.sharing == Sharing::Exclusive && is_locked(&source) => {
                Err(DatabaseError::InUse { path })
            }
            Err(source) => Err(DatabaseError::Sqlite { path, source }),
        }
    }

    /// The database file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs queries.
    ///
    /// # Errors
    /// If one of them fails.
    pub fn read<T>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, DatabaseError> {
        query(&self.connection()).map_err(|source| self.failed(source))
    }

    /// Makes all of `change`, or nothing if it fails.
    ///
    /// # Errors
    /// If a statement of `change` or the commit fails.
    pub fn write<T>(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, DatabaseError> {
        let changed = self.write_if(|transaction| change(transaction).map(Ok::<T, Infallible>))?;
        let Ok(value) = changed;
        Ok(value)
    }

    /// Makes all of `change`, or nothing if it fails or decides against it with an error of the
    /// caller's.
    ///
    /// # Errors
    /// The outer error if a statement of `change` or the commit fails; the inner error is
    /// `change`'s own.
    pub fn write_if<T, E>(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<Result<T, E>>,
    ) -> Result<Result<T, E>, DatabaseError> {
        let write = |connection: &mut Connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let changed = change(&transaction)?;
            if changed.is_ok() {
                transaction.commit()?;
            }
            Ok(changed)
        };
        write(&mut self.connection()).map_err(|source| self.failed(source))
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // A transaction that a panic left open was rolled back.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, source: rusqlite::Error) -> DatabaseError {
        DatabaseError::Sqlite {
            path: self.path.clone(),
            source,
        }
    }
}

fn connect(path: &Path, options: &Options<'_>) -> rusqlite::Result<(Connection, Migrated)> {
    let mut connection = Connection::open(path)?;
    let behavior = match options.sharing {
        Sharing::Shared => {
            connection.busy_timeout(SHARED_WAIT)?;
            TransactionBehavior::Immediate
        }
        Sharing::Exclusive => {
            connection.busy_timeout(EXCLUSIVE_WAIT)?;
            // The lock is taken by the first transaction and held until the connection closes. Set
            // before WAL mode, so that no shared memory is made.
            connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
            TransactionBehavior::Exclusive
        }
    };
    connection.pragma_update(None, "journal_mode", "WAL")?;
    let synchronous = match options.durability {
        Durability::Full => "FULL",
        Durability::Normal => "NORMAL",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    let migrated = migrate(&mut connection, behavior, options.migrations)?;
    Ok((connection, migrated))
}

fn is_locked(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}

#[cfg(test)]
mod tests {
    use std::thread;

    use rusqlite::params;

    use super::*;

    const MIGRATIONS: [&str; 3] = [
        "CREATE TABLE thing (name TEXT PRIMARY KEY) STRICT;",
        "ALTER TABLE thing ADD COLUMN size INTEGER;",
        "CREATE TABLE part (thing TEXT NOT NULL REFERENCES thing (name)) STRICT;",
    ];

    fn options<'a>(sharing: Sharing, migrations: &'a [&'a str]) -> Options<'a> {
        Options {
            sharing,
            durability: Durability::Normal,
            migrations,
        }
    }

    fn open(path: &Path, sharing: Sharing) -> Result<Database, DatabaseError> {
        Database::open(path, &options(sharing, &MIGRATIONS))
    }

    fn add(database: &Database, name: &str) -> Result<usize, DatabaseError> {
        database.write(|transaction| transaction.execute("INSERT INTO thing (name) VALUES (?)", [name]))
    }

    fn names(database: &Database) -> Vec<String> {
        let names = database.read(|connection| {
            let mut statement = connection.prepare("SELECT name FROM thing ORDER BY rowid")?;
            statement.query_map([], |row| row.get(0))?.collect()
        });
        names.expect("read")
    }

    fn version(database: &Database) -> i64 {
        let version =
            database.read(|connection| connection.pragma_query_value(None, "user_version", |row| row.get(0)));
        version.expect("read")
    }

    fn schema(database: &Database) -> Vec<String> {
        let tables = database.read(|connection| {
            let mut statement =
                connection.prepare("SELECT sql FROM sqlite_schema WHERE sql NOT NULL ORDER BY name")?;
            statement.query_map([], |row| row.get(0))?.collect()
        });
        tables.expect("read")
    }

    #[test]
    fn a_database_of_every_earlier_version_is_migrated_and_keeps_its_rows() {
        let folder = tempfile::tempdir().expect("a folder");
        let new = open(&folder.path().join("new.sqlite"), Sharing::Shared).expect("opened");
        for earlier in 1..=MIGRATIONS.len() {
            let path = folder.path().join(format!("{earlier}.sqlite"));
            let database = Database::open(&path, &options(Sharing::Shared, &MIGRATIONS[..earlier]));
            let database = database.expect("created");
            assert_eq!(version(&database), i64::try_from(earlier).expect("small"));
            add(&database, "a").expect("added");
            drop(database);
            for sharing in [Sharing::Shared, Sharing::Exclusive] {
                let database = open(&path, sharing).expect("migrated");
                assert_eq!((version(&database), names(&database)), (3, vec!["a".to_owned()]));
                assert_eq!(schema(&database), schema(&new), "{earlier}");
            }
        }
    }

    #[test]
    fn a_database_of_a_later_version_is_refused_and_left_as_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.sqlite");
        drop(open(&path, Sharing::Shared).expect("created"));
        for sharing in [Sharing::Shared, Sharing::Exclusive] {
            let error = Database::open(&path, &options(sharing, &MIGRATIONS[..2])).expect_err("refused");
            assert!(
                matches!(
                    error,
                    DatabaseError::TooNew {
                        version: 3,
                        known: 2,
                        ..
                    }
                ),
                "{error}"
            );
            let message = error.to_string();
            for part in ["x.sqlite", "version 3", "up to 2", "another data folder"] {
                assert!(message.contains(part), "{message}");
            }
        }
        assert_eq!(version(&open(&path, Sharing::Shared).expect("opened")), 3);
    }

    #[test]
    fn a_migration_that_fails_leaves_the_database_at_its_version() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.sqlite");
        let first = &MIGRATIONS[..1];
        drop(Database::open(&path, &options(Sharing::Shared, first)).expect("created"));
        let wrong = [MIGRATIONS[0], MIGRATIONS[1], "ALTER TABLE nothing ADD COLUMN x;"];
        let error = Database::open(&path, &options(Sharing::Shared, &wrong)).expect_err("failed");
        assert!(error.to_string().contains("x.sqlite"), "{error}");
        let database = Database::open(&path, &options(Sharing::Shared, first)).expect("opened");
        assert_eq!(version(&database), 1);
    }

    #[test]
    fn processes_that_open_a_new_database_at_once_all_get_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("deep").join("x.sqlite");
        thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|number| {
                    let path = &path;
                    scope.spawn(move || {
                        let database = open(path, Sharing::Shared).expect("opened");
                        add(&database, &number.to_string()).expect("added");
                    })
                })
                .collect();
            for thread in threads {
                thread.join().expect("ended");
            }
        });
        assert_eq!(names(&open(&path, Sharing::Shared).expect("opened")).len(), 8);
    }

    #[test]
    fn an_exclusive_database_is_one_owners_until_it_is_closed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.sqlite");
        let owner = open(&path, Sharing::Exclusive).expect("opened");
        let error = open(&path, Sharing::Exclusive).expect_err("held");
        assert!(matches!(error, DatabaseError::InUse { .. }), "{error}");
        drop(owner);
        open(&path, Sharing::Exclusive).expect("opened");
    }

    #[test]
    fn a_change_that_fails_or_is_refused_changes_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let database = open(&folder.path().join("x.sqlite"), Sharing::Shared).expect("opened");
        add(&database, "a").expect("added");
        let twice = database.write(|transaction| {
            transaction.execute("INSERT INTO thing (name) VALUES ('b')", [])?;
            transaction.execute("INSERT INTO thing (name) VALUES ('a')", [])
        });
        assert!(matches!(twice, Err(DatabaseError::Sqlite { .. })), "{twice:?}");
        let refused = database.write_if(|transaction| {
            transaction.execute("INSERT INTO thing (name) VALUES ('c')", [])?;
            Ok(Err::<(), _>("no"))
        });
        assert_eq!(refused.expect("asked"), Err("no"));
        let orphan = database
            .write(|transaction| transaction.execute("INSERT INTO part (thing) VALUES (?)", params!["z"]));
        assert!(orphan.is_err(), "foreign keys are enforced");
        assert_eq!(names(&database), ["a"]);
    }

    #[test]
    fn a_file_that_is_no_database_is_refused_by_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.sqlite");
        fs::write(&path, [7; 4096]).expect("written");
        for sharing in [Sharing::Shared, Sharing::Exclusive] {
            let message = open(&path, sharing).expect_err("refused").to_string();
            assert!(
                message.contains("x.sqlite") && message.contains("not a database"),
                "{message}"
            );
        }
        // A file where the folder should be.
        let message = open(&path.join("y.sqlite"), Sharing::Shared)
            .expect_err("refused")
            .to_string();
        assert!(message.contains("x.sqlite"), "{message}");
    }
}

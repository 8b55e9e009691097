//! Opening the SQLite databases of a data folder.

use std::{fs, path::Path, time::Duration};

use rusqlite::{Connection, TransactionBehavior};

use crate::error::AccessError;

/// How long another process may hold a database.
const PATIENCE: Duration = Duration::from_secs(5);

/// Opens the database at `path`, or begins it and its folder. `steps[v]` makes version `v + 1` of
/// the tables of version `v`; all that are missing are taken, or none.
///
/// # Errors
/// If it cannot be made or used, or is of a later version.
pub(crate) fn open(path: &Path, pragmas: &[(&str, &str)], steps: &[&str]) -> Result<Connection, AccessError> {
    let folder = path.parent().unwrap_or(Path::new(""));
    fs::create_dir_all(folder).map_err(|source| AccessError::Folder {
        path: folder.to_owned(),
        source,
    })?;
    let fail = |source| AccessError::Database {
        path: path.to_owned(),
        source,
    };
    let mut database = Connection::open(path).map_err(fail)?;
    database.busy_timeout(PATIENCE).map_err(fail)?;
    for (name, value) in pragmas {
        database.pragma_update(None, name, value).map_err(fail)?;
    }
    let transaction = database
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(fail)?;
    let version: i64 = transaction
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(fail)?;
    let missing = usize::try_from(version)
        .ok()
        .and_then(|version| steps.get(version..));
    let Some(missing) = missing else {
        let path = path.to_owned();
        return Err(AccessError::TooNew { path, version });
    };
    for step in missing {
        transaction.execute_batch(step).map_err(fail)?;
    }
    transaction
        .pragma_update(None, "user_version", steps.len())
        .map_err(fail)?;
    transaction.commit().map_err(fail)?;
    Ok(database)
}

//! Bringing the tables of a database to the newest version.

use rusqlite::{Connection, Transaction, TransactionBehavior};

/// What [`migrate`] found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Migrated {
    /// The tables are of the newest version now.
    UpToDate,
    /// The tables are of this version, which has no place in the list. Nothing was changed.
    UnknownVersion(i64),
}

/// Executes the `migrations` that the database lacks, or none. `migrations[v]` is the SQL that
/// turns tables of version `v` into tables of version `v + 1`; an empty database has version 0.
pub(crate) fn migrate(
    connection: &mut Connection,
    behavior: TransactionBehavior,
    migrations: &[&str],
) -> rusqlite::Result<Migrated> {
    let transaction = connection.transaction_with_behavior(behavior)?;
    let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let missing = usize::try_from(version)
        .ok()
        .and_then(|version| migrations.get(version..));
    let Some(missing) = missing else {
        return Ok(Migrated::UnknownVersion(version));
    };
    execute(&transaction, missing, migrations.len())?;
    transaction.commit()?;
    Ok(Migrated::UpToDate)
}

fn execute(transaction: &Transaction<'_>, missing: &[&str], newest: usize) -> rusqlite::Result<()> {
    for sql in missing {
        transaction.execute_batch(sql)?;
    }
    match missing {
        // Writing the version that is there would still be a change that other processes notice.
        [] => Ok(()),
        _ => transaction.pragma_update(None, "user_version", newest),
    }
}

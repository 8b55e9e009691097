//! Usage in SQLite. It has a database of its own, so that keys can be read while a long report is
//! made, and because users may delete it.

use std::{path::Path, time::UNIX_EPOCH};

use multigraft_api::{UsageCounts, UsageRow};
use multigraft_database::{Database, Durability, Options, Sharing};
use rusqlite::params;

use super::{
    HOUR, Hour, Waiting,
    report::{Period, Query},
};
use crate::error::AccessError;

/// The name of the database in the data folder.
pub const USAGE_FILE: &str = "usage.sqlite";

const TABLE: &str = "
    CREATE TABLE usage (
        -- Hours since 1970.
        hour INTEGER NOT NULL,
        -- The id of the key. These two are empty on a server without keys.
        key TEXT NOT NULL,
        tenant TEXT NOT NULL,
        adapter TEXT NOT NULL,
        requests INTEGER NOT NULL,
        prompt_tokens INTEGER NOT NULL,
        cached_prompt_tokens INTEGER NOT NULL,
        generated_tokens INTEGER NOT NULL,
        errors INTEGER NOT NULL,
        refused INTEGER NOT NULL,
        PRIMARY KEY (hour, key, tenant, adapter)
    ) STRICT, WITHOUT ROWID;
";

#[derive(Debug)]
pub(super) struct Store {
    database: Database,
}

/// SQLite's integers are signed.
fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

impl Store {
    pub(super) fn open(folder: &Path) -> Result<Self, AccessError> {
        let options = Options {
            sharing: Sharing::Shared,
            // A loss of power loses the last seconds, as a crash does anyway.
            durability: Durability::Normal,
            migrations: &[TABLE],
        };
        Ok(Self {
            database: Database::open(&folder.join(USAGE_FILE), &options)?,
        })
    }

    /// Adds all rows or none. They are added to the stored sums, because other processes may write
    /// to the database too.
    pub(super) fn add(&self, rows: &Waiting) -> Result<(), AccessError> {
        let added = self.database.write(|transaction| {
            let mut statement = transaction.prepare_cached(
                "INSERT INTO usage VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT DO UPDATE SET
                 requests = requests + ?5, prompt_tokens = prompt_tokens + ?6, cached_prompt_tokens = cached_prompt_tokens + ?7,
                 generated_tokens = generated_tokens + ?8, errors = errors + ?9, refused = refused + ?10",
            )?;
            for ((hour, used), counts) in rows {
                statement.execute(params![
                    signed(*hour),
                    used.key.as_deref().unwrap_or_default(),
                    used.tenant.as_deref().unwrap_or_default(),
                    used.adapter,
                    signed(counts.requests),
                    signed(counts.prompt_tokens),
                    signed(counts.cached_prompt_tokens),
                    signed(counts.generated_tokens),
                    signed(counts.errors),
                    signed(counts.refused),
                ])?;
            }
            Ok(())
        });
        Ok(added?)
    }

    /// Deletes the rows of hours before `hour`.
    pub(super) fn delete_before(&self, hour: Hour) -> Result<(), AccessError> {
        let delete = "DELETE FROM usage WHERE hour < ?";
        self.database
            .write(|transaction| transaction.execute(delete, [signed(hour)]))?;
        Ok(())
    }

    /// Sums, in order of time, key, tenant and adapter.
    pub(super) fn report(&self, query: &Query, most: usize) -> Result<Vec<UsageRow>, AccessError> {
        let by = query.by;
        let start = match by.period {
            None => "NULL",
            Some(Period::Hour) => "hour * 3600",
            Some(Period::Day) => "hour / 24 * 86400",
            Some(Period::Month) => {
                "CAST(strftime('%s', hour * 3600, 'unixepoch', 'start of month') AS INTEGER)"
            }
        };
        let column = |is_grouped, name| if is_grouped { name } else { "NULL" };
        let sql = format!(
            "SELECT {start}, {}, {}, {}, sum(requests), sum(prompt_tokens), sum(cached_prompt_tokens), sum(generated_tokens),
             sum(errors), sum(refused) FROM usage WHERE hour >= ?1 AND hour < ?2 AND (?3 IS NULL OR key = ?3)
             GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4 LIMIT ?4",
            column(by.key, "key"),
            column(by.tenant, "tenant"),
            column(by.adapter, "adapter"),
        );
        let end = query.to.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let rows = self.database.read(|database| {
            let mut statement = database.prepare(&sql)?;
            let range = params![
                signed(super::hour(query.from)),
                signed(end.div_ceil(HOUR)),
                query.key,
                signed(most as u64 + 1)
            ];
            let rows = statement.query_map(range, |row| {
                let count = |index| row.get(index).map(|sum: i64| u64::try_from(sum).unwrap_or(0));
                let start: Option<i64> = row.get(0)?;
                let known =
                    |text: Option<String>| text.map(|text| Some(text).filter(|text| !text.is_empty()));
                Ok(UsageRow {
                    start: start.map(|start| u64::try_from(start).unwrap_or(0)),
                    key: known(row.get(1)?),
                    key_name: None,
                    tenant: known(row.get(2)?),
                    adapter: row.get(3)?,
                    counts: UsageCounts {
                        requests: count(4)?,
                        prompt_tokens: count(5)?,
                        cached_prompt_tokens: count(6)?,
                        generated_tokens: count(7)?,
                        errors: count(8)?,
                        refused: count(9)?,
                    },
                })
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        })?;
        match rows.len() > most {
            false => Ok(rows),
            true => Err(AccessError::Invalid(format!(
                "the answer would have more than {most} rows: ask for a shorter time, or for fewer things apart"
            ))),
        }
    }
}

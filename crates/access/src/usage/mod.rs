//! Usage: requests and tokens of every key and adapter by the hour, in `usage.sqlite` of the data
//! folder.
//!
//! Requests are counted in memory when they end, and written every second or so by the thread of
//! [`Access::follow`](crate::Access::follow): a crash loses what was counted since, and running
//! requests. An hour has a row for each key and adapter that had a request in it. Rows are kept for
//! 400 days.

mod report;
mod store;

use std::{
    collections::HashMap,
    mem,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use multigraft_api::{UsageCounts, UsageRow};

pub use report::{By, Period, Query};
use store::Store;
pub use store::USAGE_FILE;

use crate::error::AccessError;

const HOUR: u64 = 3600;
/// How long rows are kept: a year, and a month to make its report.
const KEPT: Duration = Duration::from_secs(400 * 24 * HOUR);
/// The most rows that wait to be written. There are few, unless the disk is full for a long time.
const MOST_WAITING: usize = 100_000;

/// Who sent a request, and which adapter answered it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Used {
    /// The id of the key; `None` on a server without keys.
    pub key: Option<String>,
    /// The tenant of the key; `None` on a server without keys.
    pub tenant: Option<String>,
    /// The name of the adapter, or of the base.
    pub adapter: String,
}

/// Hours since 1970.
type Hour = u64;

fn hour(time: SystemTime) -> Hour {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / HOUR
}

type Waiting = HashMap<(Hour, Used), UsageCounts>;

/// Counts usage and stores it.
#[derive(Debug)]
pub struct Usage {
    waiting: Mutex<Waiting>,
    store: Store,
    /// The hour in which old rows were last deleted.
    swept: Mutex<Option<Hour>>,
}

impl Usage {
    /// Opens the usage of a data folder; creates its database where it does not exist.
    ///
    /// # Errors
    /// If the database cannot be opened or created.
    pub fn open(folder: &Path) -> Result<Self, AccessError> {
        Ok(Self {
            waiting: Mutex::default(),
            store: Store::open(folder)?,
            swept: Mutex::default(),
        })
    }

    /// Adds `counts` to the row of `used` in the hour of `now`.
    pub fn count(&self, used: Used, counts: &UsageCounts, now: SystemTime) {
        let mut waiting = self.waiting();
        let row = (hour(now), used);
        if waiting.len() < MOST_WAITING || waiting.contains_key(&row) {
            waiting.entry(row).or_default().add(counts);
        }
    }

    /// Writes the counts, and once an hour deletes rows that are too old.
    ///
    /// # Errors
    /// If the database cannot be written; then a later call writes the same counts.
    pub fn save(&self, now: SystemTime) -> Result<(), AccessError> {
        // Without the lock, so that requests do not wait for the disk.
        let taken = mem::take(&mut *self.waiting());
        if !taken.is_empty()
            && let Err(error) = self.store.add(&taken)
        {
            let mut waiting = self.waiting();
            for (row, counts) in taken {
                waiting.entry(row).or_default().add(&counts);
            }
            return Err(error);
        }
        let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        if *swept != Some(hour(now)) {
            self.store.delete_before(hour(now - KEPT))?;
            *swept = Some(hour(now));
        }
        Ok(())
    }

    /// Sums of the rows that were written, the oldest first, without the names of keys.
    ///
    /// # Errors
    /// If the database cannot be read, or there are more than `most` rows.
    pub(crate) fn report(&self, query: &Query, most: usize) -> Result<Vec<UsageRow>, AccessError> {
        self.store.report(query, most)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;

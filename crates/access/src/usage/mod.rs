//! What was used: requests and tokens of every key and adapter by the hour, in `usage.sqlite` of
//! the data folder.
//!
//! Requests are counted in memory when they end, and written every second or so by whoever follows
//! ([`Access::follow`](crate::Access::follow)): a crash loses what was counted since, and requests
//! under way. An hour has a row for each key and adapter that had a request in it; rows are kept
//! for 400 days.

mod report;
mod store;

use std::{
    collections::HashMap,
    mem,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

pub use report::{By, Period, Query, Row};
use store::Store;
pub use store::USAGE_FILE;

use crate::error::AccessError;

const HOUR: u64 = 3600;
/// How long rows are kept: a year, and a month to ask for it.
const KEPT: Duration = Duration::from_secs(400 * 24 * HOUR);
/// Rows that wait to be written, at most: they are few unless the disk is full for long.
const MOST_WAITING: usize = 100_000;

/// Whose a request is and what answers it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Used {
    /// The key's id; `None` on a server without keys.
    pub key: Option<String>,
    /// The key's tenant.
    pub tenant: Option<String>,
    /// The adapter's name, or the base's.
    pub adapter: String,
}

/// What is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Requests that were accepted.
    pub requests: u64,
    /// Tokens of their prompts, once for each choice.
    pub prompt_tokens: u64,
    /// Those of them that had been computed for an earlier request.
    pub cached_prompt_tokens: u64,
    /// Tokens that were generated, also for clients that went away.
    pub generated_tokens: u64,
    /// Requests of those accepted that ended in an error.
    pub errors: u64,
    /// Requests that were not accepted: too many, too much.
    pub refused: u64,
}

impl Counts {
    fn add(&mut self, more: &Self) {
        for (sum, more) in [
            (&mut self.requests, more.requests),
            (&mut self.prompt_tokens, more.prompt_tokens),
            (&mut self.cached_prompt_tokens, more.cached_prompt_tokens),
            (&mut self.generated_tokens, more.generated_tokens),
            (&mut self.errors, more.errors),
            (&mut self.refused, more.refused),
        ] {
            *sum = sum.saturating_add(more);
        }
    }
}

/// Hours since 1970.
type Hour = u64;

fn hour(time: SystemTime) -> Hour {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / HOUR
}

type Waiting = HashMap<(Hour, Used), Counts>;

/// What was used, counted and stored.
#[derive(Debug)]
pub struct Usage {
    waiting: Mutex<Waiting>,
    store: Store,
    /// The hour in which old rows were dropped last.
    swept: Mutex<Option<Hour>>,
}

impl Usage {
    /// Opens what a data folder holds, or begins it there.
    ///
    /// # Errors
    /// If the database cannot be used.
    pub fn open(folder: &Path) -> Result<Self, AccessError> {
        Ok(Self {
            waiting: Mutex::default(),
            store: Store::open(folder)?,
            swept: Mutex::default(),
        })
    }

    /// Counts for `used` at the time `now`.
    pub fn count(&self, used: Used, counts: &Counts, now: SystemTime) {
        let mut waiting = self.waiting();
        let row = (hour(now), used);
        if waiting.len() < MOST_WAITING || waiting.contains_key(&row) {
            waiting.entry(row).or_default().add(counts);
        }
    }

    /// Writes what was counted, and once an hour drops what is too old.
    ///
    /// # Errors
    /// If the database cannot be written; then a later call writes it.
    pub fn save(&self, now: SystemTime) -> Result<(), AccessError> {
        // Not under the lock: requests do not wait for the disk.
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
            self.store.drop_before(hour(now - KEPT))?;
            *swept = Some(hour(now));
        }
        Ok(())
    }

    /// Sums of what was written, the oldest first, keys without their names.
    ///
    /// # Errors
    /// If the database cannot be read, or there are more than `most` rows.
    pub(crate) fn report(&self, query: &Query, most: usize) -> Result<Vec<Row>, AccessError> {
        self.store.report(query, most)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;

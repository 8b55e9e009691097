//! The monthly quota: tokens of the current month, per key.
//!
//! Tokens are counted in memory and written to the database every second or so: a crash loses what
//! was counted since.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use time::UtcDateTime;

/// A calendar month in UTC, counted from year 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Month(pub(crate) i64);

impl Month {
    pub(crate) fn of(now: SystemTime) -> Self {
        let date = UtcDateTime::from(now);
        Self(i64::from(date.year()) * 12 + i64::from(u8::from(date.month())) - 1)
    }
}

/// The time until the next month begins in UTC.
fn until_next(now: SystemTime) -> Duration {
    let date = UtcDateTime::from(now);
    let days = date.month().length(date.year()) - date.day();
    let midnight = Duration::from_secs(24 * 3600).saturating_sub(Duration::new(
        u64::from(date.hour()) * 3600 + u64::from(date.minute()) * 60 + u64::from(date.second()),
        date.nanosecond(),
    ));
    midnight + Duration::from_secs(u64::from(days) * 24 * 3600)
}

/// The request needs more tokens than are left of the month.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted {
    /// Tokens counted this month.
    pub spent: u64,
    /// The time until the next month.
    pub until_next: Duration,
}

/// The tokens of a key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spent {
    pub(crate) month: Month,
    pub(crate) tokens: u64,
    /// Those of them that the database does not have yet; negative after a refund of tokens that it
    /// has.
    pub(crate) unsaved: i64,
}

/// The current month of every key that used tokens in it.
#[derive(Debug, Default)]
pub(crate) struct Months {
    known: Mutex<HashMap<String, Spent>>,
    /// Held while the database is written: two writers would add the same tokens twice.
    saving: Mutex<()>,
}

impl Months {
    pub(crate) fn new(stored: impl IntoIterator<Item = (String, Month, u64)>) -> Self {
        let spent = |month, tokens| Spent {
            month,
            tokens,
            unsaved: 0,
        };
        let known = stored
            .into_iter()
            .map(|(key, month, tokens)| (key, spent(month, tokens)));
        Self {
            known: Mutex::new(known.collect()),
            saving: Mutex::default(),
        }
    }

    /// Counts `tokens` for a key, unless the month's sum would exceed `most`.
    pub(crate) fn spend(
        &self,
        key: &str,
        tokens: u64,
        most: Option<u64>,
        now: SystemTime,
    ) -> Result<(), Exhausted> {
        let month = Month::of(now);
        let mut known = self.lock();
        let spent = match known.get(key) {
            Some(spent) if spent.month >= month => spent.tokens,
            _ => 0,
        };
        let sum = spent.saturating_add(tokens);
        if most.is_some_and(|most| sum > most) {
            return Err(Exhausted {
                spent,
                until_next: until_next(now),
            });
        }
        match known.get_mut(key) {
            // Setting the clock back does not start the quota again.
            Some(entry) if entry.month >= month => {
                entry.tokens = sum;
                entry.unsaved = entry.unsaved.saturating_add_unsigned(tokens);
            }
            _ => {
                let unsaved = i64::try_from(tokens).unwrap_or(i64::MAX);
                known.insert(
                    key.to_owned(),
                    Spent {
                        month,
                        tokens,
                        unsaved,
                    },
                );
            }
        }
        Ok(())
    }

    /// Takes back tokens that were counted a moment ago.
    pub(crate) fn refund(&self, key: &str, tokens: u64) {
        if let Some(spent) = self.lock().get_mut(key) {
            let back = tokens.min(spent.tokens);
            spent.tokens -= back;
            spent.unsaved = spent.unsaved.saturating_sub_unsigned(back);
        }
    }

    /// Gives `save` the tokens that the database does not have. If `save` fails, the next call
    /// gives it the same tokens again.
    pub(crate) fn save<E>(&self, save: impl FnOnce(&[(String, Spent)]) -> Result<(), E>) -> Result<(), E> {
        let _saving = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = |(key, spent): (&String, &Spent)| (spent.unsaved != 0).then(|| (key.clone(), *spent));
        let unsaved: Vec<(String, Spent)> = self.lock().iter().filter_map(changed).collect();
        if unsaved.is_empty() {
            return Ok(());
        }
        // Without the lock, so that requests do not wait for the disk.
        save(&unsaved)?;
        let mut known = self.lock();
        for (key, saved) in unsaved {
            if let Some(spent) = known.get_mut(&key)
                && spent.month == saved.month
            {
                spent.unsaved -= saved.unsaved;
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Spent>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    /// Seconds since 1970 of 2028-02-28, 23:59:50 UTC, in a leap year.
    const BEFORE: u64 = 1_835_395_190;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_month_ends_at_midnight_of_its_last_day_in_utc() {
        const DAY: u64 = 24 * 3600;
        assert_eq!(until_next(at(BEFORE)), Duration::from_secs(DAY + 10));
        let end = BEFORE + DAY + 10;
        assert_eq!(Month::of(at(end - 1)), Month(2028 * 12 + 1));
        assert_eq!(Month::of(at(end)), Month(2028 * 12 + 2));
        assert_eq!(until_next(at(end)), Duration::from_secs(31 * DAY));
    }

    #[test]
    fn a_month_gives_so_many_tokens_and_the_next_as_many_again() {
        let months = Months::default();
        let now = at(BEFORE);
        let spend = |tokens, now| {
            months
                .spend("a", tokens, Some(100), now)
                .map_err(|error| error.spent)
        };
        assert_eq!(spend(60, now), Ok(()));
        assert_eq!(spend(41, now), Err(60), "what is refused is not counted");
        assert_eq!(spend(40, now), Ok(()));
        assert_eq!(spend(1, now), Err(100));
        months.refund("a", 40);
        assert_eq!(spend(40, now), Ok(()));
        // An answer is counted even where nothing is left.
        assert_eq!(months.spend("a", 5, None, now), Ok(()));
        assert_eq!(spend(0, now), Err(105));
        let next = at(BEFORE + 2 * 24 * 3600);
        assert_eq!(spend(100, next), Ok(()));
        assert_eq!(spend(1, now), Err(100), "a clock that is set back");
    }

    #[test]
    fn what_could_not_be_written_is_written_the_next_time() {
        let months = Months::new([("a".to_owned(), Month::of(at(BEFORE)), 7)]);
        months.spend("a", 3, None, at(BEFORE)).expect("no bound");
        assert_eq!(months.save(|_| Err("full")), Err("full"));
        months.spend("a", 2, None, at(BEFORE)).expect("no bound");
        let written = |unsaved: &[(String, Spent)]| {
            assert_eq!(unsaved.len(), 1);
            assert_eq!((unsaved[0].1.tokens, unsaved[0].1.unsaved), (12, 5));
            Ok::<(), ()>(())
        };
        assert_eq!(months.save(written), Ok(()));
        assert_eq!(months.save(|_| Err("nothing is left to write")), Ok(()));
    }
}

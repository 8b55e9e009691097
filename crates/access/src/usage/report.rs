//! Queries of usage, and the rows of a report.

use std::{
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use time::{Date, Time, UtcDateTime, format_description::BorrowedFormatItem, macros::format_description};

/// The last second of the year 9999, in seconds since 1970.
const LAST_SECOND: u64 = 253_402_300_799;

/// The form of a day: `2027-01-31`.
const DAY: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]");

/// The length of a row's time, by the calendar in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// An hour.
    Hour,
    /// A day.
    Day,
    /// A month.
    Month,
}

/// What a report groups by. Everything else is summed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct By {
    /// By key.
    pub key: bool,
    /// By tenant.
    pub tenant: bool,
    /// By adapter.
    pub adapter: bool,
    /// By time.
    pub period: Option<Period>,
}

impl FromStr for By {
    type Err = String;

    /// `key`, `tenant`, `adapter` and one of `hour`, `day`, `month`, separated by commas.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut by = Self::default();
        for part in text.split(',').map(str::trim) {
            let period = match part {
                "key" => {
                    by.key = true;
                    continue;
                }
                "tenant" => {
                    by.tenant = true;
                    continue;
                }
                "adapter" => {
                    by.adapter = true;
                    continue;
                }
                "hour" => Period::Hour,
                "day" => Period::Day,
                "month" => Period::Month,
                other => {
                    return Err(format!(
                        "{other:?} is none of key, tenant, adapter, hour, day, month, which may be named together, separated by commas"
                    ));
                }
            };
            if by.period.is_some_and(|other| other != period) {
                return Err(format!("{text:?} names more than one of hour, day, month"));
            }
            by.period = Some(period);
        }
        Ok(by)
    }
}

/// A query.
#[derive(Clone, Debug)]
pub struct Query {
    /// The report begins with the hour that contains this time.
    pub from: SystemTime,
    /// The last hour of the report begins before this time.
    pub to: SystemTime,
    /// What the report groups by.
    pub by: By,
    /// The id of the only key to report; `None` is all keys.
    pub key: Option<String>,
}

impl Query {
    /// Reads a time: a day in UTC (`2027-01-31`, which is its beginning), or whole seconds since
    /// 1970.
    ///
    /// # Errors
    /// A sentence, if `text` is neither.
    pub fn time(text: &str) -> Result<SystemTime, String> {
        let seconds = match text.parse::<u64>() {
            Ok(seconds) => Some(seconds).filter(|seconds| *seconds <= LAST_SECOND),
            Err(_) => day(text),
        };
        let seconds = seconds
            .ok_or_else(|| format!("{text:?} is neither a day such as 2027-01-31 nor seconds since 1970"))?;
        Ok(UNIX_EPOCH + Duration::from_secs(seconds))
    }

    /// The day in UTC of a time in seconds since 1970, in the form `2027-01-31`.
    pub fn day(seconds: u64) -> String {
        let date = UtcDateTime::from(UNIX_EPOCH + Duration::from_secs(seconds.min(LAST_SECOND)));
        // Cannot fail: the format has no component that a date lacks.
        date.date().format(DAY).unwrap_or_default()
    }
}

/// Seconds since 1970 at which a day begins.
fn day(text: &str) -> Option<u64> {
    let date = Date::parse(text, DAY).ok()?;
    let seconds = u64::try_from(UtcDateTime::new(date, Time::MIDNIGHT).unix_timestamp()).ok()?;
    // The parser also accepts a sign before the year.
    Some(seconds).filter(|seconds| Query::day(*seconds) == text)
}

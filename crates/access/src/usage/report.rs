//! What can be asked of the usage.

use std::{
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;
use time::{Date, Time, UtcDateTime, format_description::BorrowedFormatItem, macros::format_description};

use super::Counts;

/// The end of time here, in seconds since 1970: that of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;

/// A day as people write it: `2027-01-31`.
const DAY: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]");

/// A stretch of the calendar, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// An hour.
    Hour,
    /// A day.
    Day,
    /// A month.
    Month,
}

/// What rows are apart by. The rest is summed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct By {
    /// Keys.
    pub key: bool,
    /// Tenants.
    pub tenant: bool,
    /// Adapters.
    pub adapter: bool,
    /// Stretches of time.
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

/// A question.
#[derive(Clone, Debug)]
pub struct Query {
    /// The first hour is that of this time.
    pub from: SystemTime,
    /// The last hour begins before this time.
    pub to: SystemTime,
    /// What rows are apart by.
    pub by: By,
    /// Of this key alone, by its id.
    pub key: Option<String>,
}

/// A row of the answer, as JSON has it too. What rows are not apart by is `None`, and left out
/// there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// When its hour, day or month begins, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<u64>,
    /// The key's id; within, `None` is of a server without keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Option<String>>,
    /// What people call the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_name: Option<Option<String>>,
    /// The tenant; within, `None` is of a server without keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Option<String>>,
    /// The adapter's name, or the base's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<String>,
    /// The sums.
    #[serde(flatten)]
    pub counts: Counts,
}

impl Query {
    /// A time as people write it: a day in UTC (`2027-01-31`, its beginning), or whole seconds
    /// since 1970.
    ///
    /// # Errors
    /// A sentence, if it is neither.
    pub fn time(text: &str) -> Result<SystemTime, String> {
        let seconds = match text.parse::<u64>() {
            Ok(seconds) => Some(seconds).filter(|seconds| *seconds <= LAST_SECOND),
            Err(_) => day(text),
        };
        let seconds = seconds
            .ok_or_else(|| format!("{text:?} is neither a day such as 2027-01-31 nor seconds since 1970"))?;
        Ok(UNIX_EPOCH + Duration::from_secs(seconds))
    }

    /// The day of a time in seconds since 1970, as people write it: `2027-01-31`, in UTC.
    pub fn day(seconds: u64) -> String {
        let date = UtcDateTime::from(UNIX_EPOCH + Duration::from_secs(seconds.min(LAST_SECOND)));
        // A date of four digits' year can be written.
        date.date().format(DAY).unwrap_or_default()
    }
}

/// Seconds since 1970 at which a day begins.
fn day(text: &str) -> Option<u64> {
    let date = Date::parse(text, DAY).ok()?;
    let seconds = u64::try_from(UtcDateTime::new(date, Time::MIDNIGHT).unix_timestamp()).ok()?;
    // `time` would take a sign too.
    Some(seconds).filter(|seconds| Query::day(*seconds) == text)
}

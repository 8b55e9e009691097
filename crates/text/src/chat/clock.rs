//! The date, for templates that tell the model what day it is.

use std::{
    fmt::Write,
    time::{SystemTime, UNIX_EPOCH},
};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = [
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
];
const SECONDS_PER_DAY: u64 = 86_400;

/// Seconds since 1970-01-01 00:00 UTC.
pub(super) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}

/// `seconds` after 1970 in UTC, formatted as Python's `strftime` does in the C locale.
///
/// # Errors
///
/// A sentence that names the directive that is not supported.
pub(super) fn strftime(seconds: u64, format: &str) -> Result<String, String> {
    let days = seconds / SECONDS_PER_DAY;
    let (year, month, day, day_of_year) = civil(days);
    let second = seconds % SECONDS_PER_DAY;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    // 1970-01-01 was a Thursday.
    let weekday = WEEKDAYS[((days + 3) % 7) as usize];
    let month_name = MONTHS[month as usize - 1];
    let hour12 = (hour + 11) % 12 + 1;

    let mut out = String::new();
    let mut characters = format.chars();
    while let Some(c) = characters.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut directive = characters.next().unwrap_or('%');
        let padded = directive != '-';
        if !padded {
            directive = characters.next().unwrap_or('-');
        }
        let two = |out: &mut String, n: u64| {
            if padded {
                write!(out, "{n:02}")
            } else {
                write!(out, "{n}")
            }
        };
        let done = match directive {
            'Y' => write!(out, "{year:04}"),
            'y' => two(&mut out, year % 100),
            'm' => two(&mut out, month),
            'd' => two(&mut out, day),
            'e' => write!(out, "{day:2}"),
            'j' if padded => write!(out, "{day_of_year:03}"),
            'j' => write!(out, "{day_of_year}"),
            'H' => two(&mut out, hour),
            'I' => two(&mut out, hour12),
            'M' => two(&mut out, minute),
            'S' => two(&mut out, second),
            'p' => out.write_str(if hour < 12 { "AM" } else { "PM" }),
            'A' => out.write_str(weekday),
            'a' => out.write_str(&weekday[..3]),
            'B' => out.write_str(month_name),
            'b' | 'h' => out.write_str(&month_name[..3]),
            'F' => write!(out, "{year:04}-{month:02}-{day:02}"),
            'T' => write!(out, "{hour:02}:{minute:02}:{second:02}"),
            'R' => write!(out, "{hour:02}:{minute:02}"),
            'D' => write!(out, "{month:02}/{day:02}/{:02}", year % 100),
            'Z' => out.write_str("UTC"),
            'z' => out.write_str("+0000"),
            's' => write!(out, "{seconds}"),
            'n' => out.write_str("\n"),
            't' => out.write_str("\t"),
            '%' => out.write_str("%"),
            other => return Err(format!("the directive %{other} is not supported")),
        };
        done.expect("writing to a string cannot fail");
    }
    Ok(out)
}

/// Year, month (1 to 12), day (1 to 31) and day of the year (1 to 366) of a day after 1970-01-01.
fn civil(mut days: u64) -> (u64, u64, u64, u64) {
    let is_leap =
        |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days_in_400_years = 146_097;
    let mut year = 1970 + days / days_in_400_years * 400;
    days %= days_in_400_years;
    loop {
        let in_year = if is_leap(year) { 366 } else { 365 };
        if days < in_year {
            break;
        }
        days -= in_year;
        year += 1;
    }
    let day_of_year = days + 1;
    let february = if is_leap(year) { 29 } else { 28 };
    let mut month = 1;
    for in_month in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < in_month {
            break;
        }
        days -= in_month;
        month += 1;
    }
    (year, month, days + 1, day_of_year)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2024-02-29 13:05:09 UTC, a Thursday.
    const LEAP_DAY: u64 = 1_709_211_909;

    #[test]
    fn directives_are_those_of_the_c_locale() {
        let format = |format| strftime(LEAP_DAY, format).unwrap();
        assert_eq!(format("%Y-%m-%d %H:%M:%S"), "2024-02-29 13:05:09");
        assert_eq!(format("%d %b %Y"), "29 Feb 2024");
        assert_eq!(
            format("%A, %B %d, %y, %a %I:%M %p"),
            "Thursday, February 29, 24, Thu 01:05 PM"
        );
        assert_eq!(
            format("%j %e %-m/%-d %F %T %R %D %Z%z %s %%"),
            "060 29 2/29 2024-02-29 13:05:09 13:05 02/29/24 UTC+0000 1709211909 %"
        );
        assert_eq!(format("no directive, ünïcode"), "no directive, ünïcode");
    }

    #[test]
    fn days_follow_each_other_through_the_calendar() {
        let date = |days: u64| strftime(days * SECONDS_PER_DAY, "%F %a").unwrap();
        assert_eq!(date(0), "1970-01-01 Thu");
        assert_eq!(date(58), "1970-02-28 Sat");
        assert_eq!(date(59), "1970-03-01 Sun");
        assert_eq!(date(789), "1972-02-29 Tue");
        assert_eq!(date(10_957), "2000-01-01 Sat");
        assert_eq!(date(11_016), "2000-02-29 Tue");
        assert_eq!(date(47_540), "2100-02-28 Sun");
        assert_eq!(date(47_541), "2100-03-01 Mon");
        assert_eq!(date(156_934), "2399-09-03 Fri");
    }

    #[test]
    fn twelve_hour_clocks_have_no_zero() {
        let hour = |hour: u64| strftime(hour * 3600, "%I%p").unwrap();
        assert_eq!(
            [hour(0), hour(1), hour(12), hour(23)],
            ["12AM", "01AM", "12PM", "11PM"]
        );
    }

    #[test]
    fn an_unknown_directive_is_named() {
        assert_eq!(
            strftime(0, "%Q").unwrap_err(),
            "the directive %Q is not supported"
        );
        assert_eq!(strftime(0, "100%").unwrap(), "100%");
    }
}

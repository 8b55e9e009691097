//! The date, for templates that tell the model what day it is.

use std::fmt::Write as _;

use time::UtcDateTime;

/// The time `now`, formatted as Python's `strftime` does in the C locale.
///
/// # Errors
///
/// A sentence that names the directive that is not supported.
pub(super) fn strftime(now: UtcDateTime, format: &str) -> Result<String, String> {
    let (year, month, day) = now.to_calendar_date();
    let (hour, minute, second) = now.as_hms();
    // Both are written in English, as in the C locale.
    let (month_name, weekday) = (month.to_string(), now.weekday().to_string());
    let month = u8::from(month);
    let year_of_century = year.rem_euclid(100);
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
        let two = |out: &mut String, n: u8| match padded {
            true => write!(out, "{n:02}"),
            false => write!(out, "{n}"),
        };
        let done = match directive {
            'Y' => write!(out, "{year:04}"),
            'y' if padded => write!(out, "{year_of_century:02}"),
            'y' => write!(out, "{year_of_century}"),
            'm' => two(&mut out, month),
            'd' => two(&mut out, day),
            'e' => write!(out, "{day:2}"),
            'j' if padded => write!(out, "{:03}", now.ordinal()),
            'j' => write!(out, "{}", now.ordinal()),
            'H' => two(&mut out, hour),
            'I' => two(&mut out, hour12),
            'M' => two(&mut out, minute),
            'S' => two(&mut out, second),
            'p' => out.write_str(if hour < 12 { "AM" } else { "PM" }),
            'A' => out.write_str(&weekday),
            'a' => out.write_str(&weekday[..3]),
            'B' => out.write_str(&month_name),
            'b' | 'h' => out.write_str(&month_name[..3]),
            'F' => write!(out, "{year:04}-{month:02}-{day:02}"),
            'T' => write!(out, "{hour:02}:{minute:02}:{second:02}"),
            'R' => write!(out, "{hour:02}:{minute:02}"),
            'D' => write!(out, "{month:02}/{day:02}/{year_of_century:02}"),
            'Z' => out.write_str("UTC"),
            'z' => out.write_str("+0000"),
            's' => write!(out, "{}", now.unix_timestamp()),
            'n' => out.write_str("\n"),
            't' => out.write_str("\t"),
            '%' => out.write_str("%"),
            other => return Err(format!("the directive %{other} is not supported")),
        };
        done.expect("writing to a string cannot fail");
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECONDS_PER_DAY: i64 = 86_400;
    /// 2024-02-29 13:05:09 UTC, a Thursday.
    const LEAP_DAY: i64 = 1_709_211_909;

    fn format_at(seconds: i64, format: &str) -> Result<String, String> {
        strftime(UtcDateTime::from_unix_timestamp(seconds).unwrap(), format)
    }

    #[test]
    fn directives_are_those_of_the_c_locale() {
        let format = |format| format_at(LEAP_DAY, format).unwrap();
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
        let date = |days: i64| format_at(days * SECONDS_PER_DAY, "%F %a").unwrap();
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
        let hour = |hour: i64| format_at(hour * 3600, "%I%p").unwrap();
        assert_eq!(
            [hour(0), hour(1), hour(12), hour(23)],
            ["12AM", "01AM", "12PM", "11PM"]
        );
    }

    #[test]
    fn an_unknown_directive_is_named() {
        assert_eq!(
            format_at(0, "%Q").unwrap_err(),
            "the directive %Q is not supported"
        );
        assert_eq!(format_at(0, "100%").unwrap(), "100%");
    }
}

use proptest::prelude::*;

use super::*;

/// 2028-02-28, 23:59:50 UTC, in a leap year.
const BEFORE: u64 = 1_835_395_190;
const DAY: u64 = 24 * HOUR;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn used(key: &str, adapter: &str) -> Used {
    Used {
        key: Some(key.to_owned()),
        tenant: Some(format!("t{key}")),
        adapter: adapter.to_owned(),
    }
}

fn counts(generated_tokens: u64) -> UsageCounts {
    UsageCounts {
        requests: 1,
        generated_tokens,
        ..UsageCounts::default()
    }
}

fn query(by: &str) -> Query {
    Query {
        from: at(0),
        to: at(BEFORE + 1000 * DAY),
        by: by.parse().expect("right"),
        key: None,
    }
}

/// Start, key, adapter and generated tokens of what `usage` reports.
fn rows(usage: &Usage, query: &Query) -> Vec<(Option<u64>, String, String, u64)> {
    let rows = usage.report(query, 100).expect("read").into_iter();
    rows.map(|row| {
        let text = Option::unwrap_or_default;
        (
            row.start,
            text(row.key.flatten()),
            text(row.adapter),
            row.counts.generated_tokens,
        )
    })
    .collect()
}

#[test]
fn what_was_counted_is_summed_by_key_adapter_and_stretch_of_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let usage = Usage::open(folder.path()).expect("opened");
    usage.count(used("a", "x"), &counts(1), at(BEFORE));
    usage.count(used("a", "y"), &counts(2), at(BEFORE));
    usage.count(used("b", "x"), &counts(4), at(BEFORE + 20));
    usage.save(at(BEFORE)).expect("written");
    usage.count(used("a", "x"), &counts(8), at(BEFORE + 2 * DAY));
    usage.save(at(BEFORE)).expect("added to what is there");
    let none = String::new;
    assert_eq!(
        rows(&usage, &query("key")),
        [(None, "a".into(), none(), 11), (None, "b".into(), none(), 4)]
    );
    assert_eq!(
        rows(&usage, &query("adapter")),
        [(None, none(), "x".into(), 13), (None, none(), "y".into(), 2)]
    );
    let midnight = BEFORE + 10;
    assert_eq!(
        rows(&usage, &query("day")),
        [
            (Some(midnight - DAY), none(), none(), 3),
            (Some(midnight), none(), none(), 4),
            (Some(midnight + DAY), none(), none(), 8)
        ]
    );
    let february = midnight - 28 * DAY;
    assert_eq!(
        rows(&usage, &query("month,key")),
        [
            (Some(february), "a".into(), none(), 3),
            (Some(february), "b".into(), none(), 4),
            (Some(midnight + DAY), "a".into(), none(), 8)
        ]
    );
    assert_eq!(rows(&usage, &query("hour"))[0].0, Some(midnight - HOUR));
    let own = Query {
        key: Some("b".to_owned()),
        ..query("adapter")
    };
    assert_eq!(rows(&usage, &own), [(None, none(), "x".into(), 4)]);
    let later = Query {
        from: at(midnight),
        to: at(midnight + 1),
        ..query("hour")
    };
    assert_eq!(rows(&usage, &later), [(Some(midnight), none(), none(), 4)]);
    assert!(
        rows(
            &usage,
            &Query {
                to: at(BEFORE - DAY),
                ..query("key")
            }
        )
        .is_empty()
    );
    let error = usage.report(&query("key,adapter"), 1).expect_err("too many");
    assert!(error.to_string().contains("more than 1 rows"), "{error}");
    // Another process has the same.
    assert_eq!(
        rows(&Usage::open(folder.path()).expect("opened"), &query("key")).len(),
        2
    );
}

#[test]
fn rows_are_kept_for_400_days() {
    let folder = tempfile::tempdir().expect("a folder");
    let usage = Usage::open(folder.path()).expect("opened");
    usage.count(used("a", "x"), &counts(1), at(BEFORE));
    usage.count(used("a", "x"), &counts(2), at(BEFORE + 2 * HOUR));
    usage.save(at(BEFORE + 400 * DAY)).expect("written");
    assert_eq!(rows(&usage, &query("key"))[0].3, 3);
    usage.save(at(BEFORE + 400 * DAY + HOUR)).expect("swept");
    assert_eq!(rows(&usage, &query("key"))[0].3, 2);
}

#[test]
fn a_database_of_version_1_goes_on() {
    /// The table as version 1 made it: databases that hold it exist.
    const VERSION_1: &str = "
        CREATE TABLE usage (hour INTEGER NOT NULL, key TEXT NOT NULL, tenant TEXT NOT NULL, adapter TEXT NOT NULL,
            requests INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL, cached_prompt_tokens INTEGER NOT NULL,
            generated_tokens INTEGER NOT NULL, errors INTEGER NOT NULL, refused INTEGER NOT NULL,
            PRIMARY KEY (hour, key, tenant, adapter)) STRICT, WITHOUT ROWID;
        PRAGMA user_version = 1;";
    let folder = tempfile::tempdir().expect("a folder");
    let database = rusqlite::Connection::open(folder.path().join(USAGE_FILE)).expect("created");
    database.execute_batch(VERSION_1).expect("written");
    let row = "INSERT INTO usage VALUES (?, 'a', 'acme', 'x', 1, 2, 3, 4, 0, 0)";
    database.execute(row, [BEFORE / HOUR]).expect("written");
    drop(database);
    let usage = Usage::open(folder.path()).expect("opened");
    usage.count(used("a", "y"), &counts(7), at(BEFORE));
    usage.save(at(BEFORE)).expect("written");
    let rows = usage.report(&query("adapter"), 10).expect("read");
    let tokens: Vec<_> = rows.iter().map(|row| row.counts.generated_tokens).collect();
    assert_eq!(tokens, [4, 7]);
}

#[test]
fn what_cannot_be_written_is_kept_for_later() {
    let folder = tempfile::tempdir().expect("a folder");
    let usage = Usage::open(folder.path()).expect("opened");
    let other = rusqlite::Connection::open(folder.path().join(USAGE_FILE)).expect("opened");
    other
        .execute_batch("ALTER TABLE usage RENAME TO gone")
        .expect("renamed");
    usage.count(used("a", "x"), &counts(1), at(BEFORE));
    assert!(usage.save(at(BEFORE)).is_err());
    usage.count(used("a", "x"), &counts(2), at(BEFORE));
    other
        .execute_batch("ALTER TABLE gone RENAME TO usage")
        .expect("renamed");
    usage.save(at(BEFORE)).expect("written");
    assert_eq!(rows(&usage, &query("key"))[0].3, 3);
}

#[test]
fn times_and_what_rows_are_apart_by_are_read_or_refused_by_name() {
    assert_eq!(Query::time("2028-02-29"), Ok(at(BEFORE + 10)));
    assert_eq!(Query::time("7"), Ok(at(7)));
    for wrong in [
        "",
        "2028-02-30",
        "2028-2-1",
        "-5",
        "+028-01-01",
        "1e9",
        "99999999999999",
        "yesterday",
    ] {
        assert!(Query::time(wrong).expect_err(wrong).contains(wrong), "{wrong}");
    }
    let by: By = "key, month".parse().expect("right");
    assert_eq!(
        (by.key, by.tenant, by.adapter, by.period),
        (true, false, false, Some(Period::Month))
    );
    for wrong in ["", "key,", "week", "hour,day"] {
        assert!(wrong.parse::<By>().is_err(), "{wrong}");
    }
}

proptest! {
    #[test]
    fn no_text_is_too_odd_to_be_refused(text in any::<String>()) {
        let _ = (Query::time(&text), text.parse::<By>());
    }

    /// Whatever is counted when, the sum of all hours is the sum of all counts.
    #[test]
    fn nothing_is_lost_between_hours(counted in prop::collection::vec((0..100 * DAY, 0..3u8, 0..1000u64), 0..40)) {
        let folder = tempfile::tempdir().expect("a folder");
        let usage = Usage::open(folder.path()).expect("opened");
        for (second, key, tokens) in &counted {
            usage.count(used(&key.to_string(), "x"), &counts(*tokens), at(BEFORE + second));
            if tokens % 3 == 0 {
                usage.save(at(BEFORE)).expect("written");
            }
        }
        usage.save(at(BEFORE)).expect("written");
        let sum: u64 = usage.report(&query("hour,key"), 1000).expect("read").iter().map(|row| row.counts.generated_tokens).sum();
        prop_assert_eq!(sum, counted.iter().map(|(.., tokens)| tokens).sum::<u64>());
    }
}

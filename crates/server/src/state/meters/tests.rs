use multigraft_access::{Grants, NewKey, Role, Store};

use super::*;

fn at(instant: Instant) -> Now {
    Now {
        instant,
        time: SystemTime::now(),
    }
}

fn limits(requests: u32, tokens: u32, concurrent: u32) -> AdapterLimits {
    AdapterLimits {
        requests_per_minute: NonZeroU32::new(requests),
        tokens_per_minute: NonZeroU32::new(tokens),
        concurrent_requests: NonZeroU32::new(concurrent),
        ..AdapterLimits::default()
    }
}

fn reserve_and_admit(
    meters: &Meters,
    bounded: Vec<Bounded>,
    prompt: usize,
    now: Instant,
) -> Result<Option<Metered>, ApiError> {
    let permit = meters.reserve(bounded.clone(), None)?;
    meters.admit(permit, bounded, None, prompt, at(now))
}

fn admit(
    meters: &Meters,
    limits: AdapterLimits,
    prompt: usize,
    now: Instant,
) -> Result<Metered, Option<Duration>> {
    reserve_and_admit(meters, vec![Bounded::adapter("a", &limits)], prompt, now)
        .map(|metered| metered.expect("it is bounded"))
        .map_err(|error| error.retry_after())
}

#[test]
fn a_full_bucket_allows_a_burst_and_then_its_rate() {
    let (meters, began) = (Meters::default(), Instant::now());
    for _ in 0..4 {
        assert!(admit(&meters, limits(4, 0, 0), 1, began).is_ok());
    }
    let refused = admit(&meters, limits(4, 0, 0), 1, began).unwrap_err();
    assert_eq!(refused, Some(Duration::from_secs(15)));
    let later = began + Duration::from_secs(16);
    assert!(admit(&meters, limits(4, 0, 0), 1, later).is_ok());
    assert!(admit(&meters, limits(4, 0, 0), 1, later).is_err());
    // An hour saves no more up than a minute does.
    let much_later = began + Duration::from_secs(3600);
    let accepted = (0..10).filter(|_| admit(&meters, limits(4, 0, 0), 1, much_later).is_ok());
    assert_eq!(accepted.count(), 4);
}

#[test]
fn an_answer_may_overdraw_and_the_next_request_waits() {
    let (meters, began) = (Meters::default(), Instant::now());
    let metered = admit(&meters, limits(0, 60, 0), 50, began).unwrap();
    for _ in 0..30 {
        metered.token(at(began));
    }
    assert_eq!(
        admit(&meters, limits(0, 60, 0), 10, began).unwrap_err(),
        Some(Duration::from_secs(30))
    );
    assert!(admit(&meters, limits(0, 60, 0), 10, began + Duration::from_secs(31)).is_ok());
    // A prompt that is larger than a minute's worth is not refused for ever.
    let rested = began + Duration::from_secs(120);
    assert!(admit(&meters, limits(0, 60, 0), 500, rested).is_ok());
    assert!(admit(&meters, limits(0, 60, 0), 1, rested + Duration::from_secs(400)).is_err());
}

#[test]
fn a_refund_returns_the_whole_charge() {
    let (meters, now) = (Meters::default(), Instant::now());
    for _ in 0..5 {
        let metered = admit(&meters, limits(1, 10, 0), 10, now).expect("there is room");
        metered.refund(now);
    }
    assert!(admit(&meters, limits(1, 10, 0), 10, now).is_ok());
    assert!(admit(&meters, limits(1, 10, 0), 10, now).is_err());
}

#[test]
fn the_end_of_a_request_releases_its_permit_and_a_refusal_reserves_none() {
    let (meters, now) = (Meters::default(), Instant::now());
    let first = admit(&meters, limits(3, 0, 1), 1, now).unwrap();
    for _ in 0..5 {
        assert!(admit(&meters, limits(3, 0, 1), 1, now).is_err(), "one at once");
    }
    drop(first);
    assert!(
        admit(&meters, limits(3, 0, 1), 1, now).is_ok(),
        "refusals were no requests"
    );
    // Of several names, all or none.
    let both = |concurrent| {
        let names = vec![
            Bounded::adapter("b", &limits(1, 0, 0)),
            Bounded::adapter("c", &limits(0, 0, concurrent)),
        ];
        reserve_and_admit(&meters, names, 1, now)
    };
    let held = meters
        .reserve(vec![Bounded::adapter("c", &limits(0, 0, 1))], None)
        .unwrap();
    assert!(both(1).is_err());
    drop(held);
    assert!(both(1).is_ok(), "`b` was not charged for what `c` refused");
    assert!(both(1).is_err());
    let unbounded = vec![Bounded::adapter("d", &AdapterLimits::default())];
    assert!(reserve_and_admit(&meters, unbounded, 1, now).unwrap().is_none());
}

fn account(folder: &tempfile::TempDir, limits: KeyLimits) -> Account {
    let store = Store::open(folder.path()).expect("a folder");
    let new = NewKey {
        name: "acme".to_owned(),
        role: Role::Use,
        tenant: None,
        grants: Grants::all(),
        limits,
        expires: None,
    };
    let (key, _) = store.add(&new).expect("a key");
    Account {
        access: Arc::new(Access::new(store).expect("keys")),
        key: Arc::new(key),
    }
}

#[test]
fn a_key_pays_for_minutes_and_month_or_for_neither() {
    let folder = tempfile::tempdir().expect("a folder");
    let account = account(
        &folder,
        KeyLimits {
            requests_per_minute: NonZeroU32::new(2),
            tokens_per_month: NonZeroU64::new(100),
            ..KeyLimits::default()
        },
    );
    let (meters, now) = (Meters::default(), at(Instant::now()));
    let admit = |prompt| meters.admit(Permit::default(), Vec::new(), Some(account.clone()), prompt, now);
    let left = || {
        let mut headers = HeaderMap::new();
        meters.label(&account.key, &mut headers, now.instant);
        headers["x-ratelimit-remaining-requests"].clone()
    };
    let refused = admit(101).unwrap_err();
    assert!(matches!(refused, ApiError::Quota { .. }), "{refused}");
    assert_eq!(left(), "2", "the month's refusal is no request");
    let first = admit(90).expect("there is room").expect("it is counted");
    assert_eq!(left(), "1");
    first.refund(now.instant);
    drop(first);
    assert_eq!(left(), "2");
    let second = admit(90).expect("it was given back").expect("it is counted");
    for _ in 0..20 {
        second.token(now);
    }
    let refused = admit(1).unwrap_err().to_string();
    assert!(
        refused.contains("`acme` reached: 110 of 100 tokens are used"),
        "{refused}"
    );
}

#[test]
fn headers_state_the_rest_and_the_time_until_the_bucket_is_full() {
    let folder = tempfile::tempdir().expect("a folder");
    let account = account(
        &folder,
        KeyLimits {
            tokens_per_minute: NonZeroU32::new(60),
            ..KeyLimits::default()
        },
    );
    let (meters, now) = (Meters::default(), at(Instant::now()));
    let metered = meters.admit(Permit::default(), Vec::new(), Some(account.clone()), 50, now);
    let metered = metered.expect("there is room").expect("it is bounded");
    let left = |later| {
        let mut headers = HeaderMap::new();
        meters.label(
            &account.key,
            &mut headers,
            now.instant + Duration::from_secs(later),
        );
        assert_eq!(headers.len(), 3, "nothing is said of what is not bounded");
        let [_, remaining, reset] =
            RATE_LIMIT_TOKENS.map(|name| headers[name].to_str().expect("text").to_owned());
        (remaining, reset)
    };
    assert_eq!(left(0), ("10".to_owned(), "50s".to_owned()));
    for _ in 0..30 {
        metered.token(now);
    }
    assert_eq!(left(0), ("0".to_owned(), "1m20s".to_owned()));
    assert_eq!(left(30), ("10".to_owned(), "50s".to_owned()));
    assert_eq!(left(90), ("60".to_owned(), "0s".to_owned()));
}

#[test]
fn times_are_written_as_openai_does_and_rounded_up() {
    for (microseconds, text) in [
        (0, "0s"),
        (1, "1ms"),
        (119_500, "120ms"),
        (1_000_000, "1s"),
        (1_000_001, "2s"),
        (360_000_000, "6m0s"),
        (3_661_000_000, "1h1m1s"),
    ] {
        assert_eq!(duration(Duration::from_micros(microseconds)), text);
    }
}

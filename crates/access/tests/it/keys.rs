//! The life of a key.

use std::{
    fs,
    num::{NonZeroU32, NonZeroU64},
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use multigraft_access::{
    Access, AccessError, Admins, Changes, FILE, Grants, KeyLimits, LimitChanges, NewKey, Refused, Role,
    Secret, Store,
};

const DAY: Duration = Duration::from_secs(86_400);

fn new(name: &str) -> NewKey {
    NewKey {
        name: name.to_owned(),
        role: Role::Use,
        tenant: None,
        grants: Grants::parse(&["acme/*"]).unwrap(),
        limits: KeyLimits::default(),
        expires: None,
    }
}

fn access(folder: &tempfile::TempDir) -> Access {
    Access::new(Store::open(folder.path()).unwrap()).unwrap()
}

#[test]
fn a_key_opens_with_its_secret_alone_and_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (key, secret) = access(&folder).store().add(&new("acme")).unwrap();
    let (_, other) = access(&folder).store().add(&new("other")).unwrap();
    let access = access(&folder);
    let now = SystemTime::now();
    assert_eq!(*access.check(&secret, now).unwrap(), key);
    assert_eq!(
        (key.tenant.as_str(), key.may_use("acme/a"), key.may_use("b")),
        ("acme", true, false)
    );
    let random = &other.reveal()[other.reveal().len() - 43..];
    let forged = Secret::parse(&format!("mg-{}-{random}", key.id)).unwrap();
    assert_eq!(access.check(&forged, now), Err(Refused::Unknown));
    assert!(matches!(
        access.store().add(&new("acme")),
        Err(AccessError::NameTaken(_))
    ));
}

#[test]
fn secrets_are_not_in_the_database() {
    let folder = tempfile::tempdir().unwrap();
    let (_, secret) = access(&folder).store().add(&new("acme")).unwrap();
    let random = &secret.reveal().as_bytes()[secret.reveal().len() - 43..];
    for file in fs::read_dir(folder.path()).unwrap() {
        let bytes = fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(random.len()).any(|window| window == random));
    }
    assert!(folder.path().join(FILE).exists());
}

#[test]
fn an_expired_key_opens_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let access = access(&folder);
    let now = SystemTime::now();
    let ends = NewKey {
        expires: Some(now + DAY),
        ..new("acme")
    };
    let (_, secret) = access.store().add(&ends).unwrap();
    access.refresh().unwrap();
    assert!(access.check(&secret, now).is_ok());
    assert_eq!(access.check(&secret, now + DAY), Err(Refused::Expired));
}

#[test]
fn after_a_rotation_the_old_secret_goes_on_until_its_time() {
    let folder = tempfile::tempdir().unwrap();
    let access = access(&folder);
    let now = SystemTime::now();
    let (_, old) = access.store().add(&new("acme")).unwrap();
    let (key, young) = access.store().rotate("acme", now + DAY).unwrap();
    access.refresh().unwrap();
    assert_eq!((old.id(), young.id()), (key.id.as_str(), key.id.as_str()));
    for secret in [&old, &young] {
        assert!(access.check(secret, now).is_ok());
    }
    assert_eq!(access.check(&old, now + DAY), Err(Refused::Expired));
    assert!(access.check(&young, now + 2 * DAY).is_ok());
    // A longer time does not bring back what was to end.
    access.store().rotate("acme", now + 9 * DAY).unwrap();
    access.refresh().unwrap();
    assert_eq!(access.check(&old, now + DAY), Err(Refused::Expired));
}

#[test]
fn a_revoked_key_stays_revoked_and_does_not_open_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let access = access(&folder);
    assert!(access.is_empty());
    let (key, secret) = access.store().add(&new("acme")).unwrap();
    access.store().revoke(&key.id, Admins::MayEnd).unwrap();
    access.refresh().unwrap();
    assert_eq!(access.check(&secret, SystemTime::now()), Err(Refused::Revoked));
    assert!(!access.is_empty());
    assert!(matches!(
        access.store().rotate("acme", SystemTime::now()),
        Err(AccessError::Revoked(_))
    ));
    assert!(matches!(
        access.store().set("acme", &Changes::default(), Admins::MayEnd),
        Err(AccessError::Revoked(_))
    ));
    assert!(matches!(
        access.store().revoke("none", Admins::MayEnd),
        Err(AccessError::Unknown(_))
    ));
}

#[test]
fn what_another_process_changes_is_seen_within_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let (_, secret) = access(&folder).store().add(&new("acme")).unwrap();
    let access = Arc::new(access(&folder));
    access.follow().unwrap();
    let other = Store::open(folder.path()).unwrap();
    other.revoke("acme", Admins::MayEnd).unwrap();
    let begun = Instant::now();
    while access.check(&secret, SystemTime::now()).is_ok() {
        assert!(begun.elapsed() < Duration::from_secs(20), "still open");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn limits_and_what_was_spent_of_them_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let limits = KeyLimits {
        requests_per_minute: NonZeroU32::new(5),
        tokens_per_month: NonZeroU64::new(100),
        ..KeyLimits::default()
    };
    let now = SystemTime::now();
    let first = access(&folder);
    let (key, secret) = first
        .store()
        .add(&NewKey {
            limits,
            ..new("acme")
        })
        .unwrap();
    first.spend(&key.id, 70, Some(100), now).unwrap();
    first.save().unwrap();
    first.spend(&key.id, 20, Some(100), now).unwrap();
    first.refund(&key.id, 10);
    first.save().unwrap();
    drop(first);

    let second = access(&folder);
    assert_eq!(second.check(&secret, now).unwrap().limits, limits);
    assert_eq!(second.spend(&key.id, 21, Some(100), now).unwrap_err().spent, 80);
    // What is not named stays, and a bound can be lifted.
    let changes = Changes {
        limits: LimitChanges {
            requests_per_minute: Some(None),
            concurrent_requests: Some(NonZeroU32::new(2)),
            ..LimitChanges::default()
        },
        ..Changes::default()
    };
    let changed = second
        .store()
        .set("acme", &changes, Admins::MayEnd)
        .unwrap()
        .limits;
    let expected = KeyLimits {
        requests_per_minute: None,
        concurrent_requests: NonZeroU32::new(2),
        ..limits
    };
    assert_eq!(changed, expected);
    assert_eq!(access(&folder).store().keys().unwrap()[0].limits, expected);
}

#[test]
fn a_folder_of_the_version_before_limits_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (_, secret) = access(&folder).store().add(&new("acme")).unwrap();
    let database = rusqlite::Connection::open(folder.path().join(FILE)).unwrap();
    database
        .execute_batch("ALTER TABLE key DROP COLUMN limits; DROP TABLE spent; PRAGMA user_version = 1;")
        .unwrap();
    drop(database);
    let key = access(&folder).check(&secret, SystemTime::now()).unwrap();
    assert_eq!((key.name.as_str(), key.limits), ("acme", KeyLimits::default()));
}

#[test]
fn keys_that_version_1_wrote_still_open() {
    /// The tables as version 1 made them: databases that hold them exist.
    const VERSION_1: &str = "
        CREATE TABLE key (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, role TEXT NOT NULL, tenant TEXT NOT NULL,
            grants TEXT NOT NULL, created INTEGER NOT NULL, expires INTEGER, revoked INTEGER) STRICT;
        CREATE TABLE secret (key TEXT NOT NULL REFERENCES key (id), hash BLOB NOT NULL, expires INTEGER) STRICT;
        CREATE TABLE owner (adapter TEXT PRIMARY KEY, key TEXT NOT NULL REFERENCES key (id)) STRICT;
        PRAGMA user_version = 1;";
    let (secrets, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (key, secret) = access(&secrets).store().add(&new("acme")).unwrap();
    let stored: Vec<u8> = rusqlite::Connection::open(secrets.path().join(FILE))
        .unwrap()
        .query_row("SELECT hash FROM secret", [], |row| row.get(0))
        .unwrap();
    let database = rusqlite::Connection::open(folder.path().join(FILE)).unwrap();
    database.execute_batch(VERSION_1).unwrap();
    let insert = "INSERT INTO key VALUES (?, 'acme', 'use', 'acme', '[\"acme/*\"]', 10, NULL, NULL)";
    database.execute(insert, [&key.id]).unwrap();
    let insert = "INSERT INTO secret VALUES (?, ?, NULL)";
    database
        .execute(insert, rusqlite::params![key.id, stored])
        .unwrap();
    let insert = "INSERT INTO owner VALUES ('acme/a', ?)";
    database.execute(insert, [&key.id]).unwrap();
    drop(database);
    let access = access(&folder);
    let found = access.check(&secret, SystemTime::now()).unwrap();
    assert_eq!(
        (found.name.as_str(), found.limits),
        ("acme", KeyLimits::default())
    );
    assert!(found.may_use("acme/a"));
    assert_eq!(access.store().owner("acme/a").unwrap(), Some(key.id));
}

#[test]
fn an_adapter_has_one_owner() {
    let folder = tempfile::tempdir().unwrap();
    let access = access(&folder);
    let (a, _) = access.store().add(&new("a")).unwrap();
    let (b, _) = access.store().add(&new("b")).unwrap();
    let store = access.store();
    assert_eq!(store.claim("x", &a.id).unwrap(), (true, true));
    assert_eq!(store.claim("x", &a.id).unwrap(), (true, false));
    assert_eq!(store.claim("x", &b.id).unwrap(), (false, false));
    assert_eq!(store.owner("x").unwrap(), Some(a.id));
    store.disown("x").unwrap();
    assert_eq!(store.claim("x", &b.id).unwrap(), (true, true));
}

#[test]
fn where_one_admin_has_to_stay_there_is_one_for_as_long_as_before() {
    let folder = tempfile::tempdir().unwrap();
    let access = access(&folder);
    let store = access.store();
    let now = SystemTime::now();
    let admin = |name: &str, expires| NewKey {
        role: Role::Admin,
        expires,
        ..new(name)
    };
    let (boss, _) = store.add(&admin("boss", None)).unwrap();
    store.add(&admin("guest", Some(now + DAY))).unwrap();
    let demoted = Changes {
        role: Some(Role::Use),
        ..Changes::default()
    };
    let ended = Changes {
        expires: Some(Some(now + 2 * DAY)),
        ..Changes::default()
    };
    for refused in [
        store.revoke("boss", Admins::OneStays),
        store.set("boss", &demoted, Admins::OneStays),
        store.set("boss", &ended, Admins::OneStays),
    ] {
        assert!(matches!(refused, Err(AccessError::LastAdmin(_))), "{refused:?}");
    }
    assert_eq!(store.key("boss").unwrap(), boss, "nothing is half done");
    let endless = Changes {
        expires: Some(None),
        ..Changes::default()
    };
    store.set("guest", &endless, Admins::OneStays).unwrap();
    store.revoke("boss", Admins::OneStays).unwrap();
    assert!(store.revoke("guest", Admins::OneStays).is_err());
    store.revoke("guest", Admins::MayEnd).unwrap();
}

#[test]
fn an_id_goes_before_a_name_that_looks_like_one() {
    let folder = tempfile::tempdir().unwrap();
    let access = access(&folder);
    let store = access.store();
    let (first, _) = store.add(&new("first")).unwrap();
    let (second, _) = store.add(&new("second")).unwrap();
    let (like, _) = store.add(&new(&second.id)).unwrap();
    let tenant = Changes {
        tenant: Some("t".to_owned()),
        ..Changes::default()
    };
    let changed = store.set(&second.id, &tenant, Admins::MayEnd).unwrap();
    assert_eq!(
        (changed.id.as_str(), changed.tenant.as_str()),
        (second.id.as_str(), "t")
    );
    assert_eq!(store.key(&second.id).unwrap().id, second.id);
    assert_eq!(
        store.rotate(&second.id, SystemTime::now()).unwrap().0.id,
        second.id
    );
    assert_eq!(store.key(&like.id).unwrap().tenant, second.id);
    assert_eq!(store.key("first").unwrap(), first);
}

//! Names, versions, loads and removals.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use multigraft_adapters::{
    AdapterLimits, Adding, LoadError, Lookup, Packer, Registry, RegistryOptions, Residency, Settings, Source,
};
use multigraft_model::{ModelError, ReadyAdapter};
use multigraft_sources::Reference;

use crate::support::{Adapter, BYTES, Fixture, base, loading, message, ready, source};

#[test]
fn a_name_finds_its_adapter_and_nothing_else() {
    let fixture = Fixture::new();
    fixture.register("support", 4);
    let entry = fixture.get("support").unwrap();
    assert_eq!(entry.name, "support");
    assert_eq!(entry.at, Reference::Folder(fixture.dir.path().join("support")));
    assert_eq!(entry.hash, entry.packed.hash());
    for other in ["", "acme/tiny", "Support", "support ", "suppor"] {
        assert!(matches!(fixture.registry.get(other), Lookup::Unknown), "{other}");
    }
    assert_eq!(fixture.registry.base(), "acme/tiny");
    assert_eq!(fixture.registry.names(), ["support"]);
}

#[test]
fn the_same_files_are_packed_once_and_shared() {
    let fixture = Fixture::new();
    for (name, alpha) in [("one", 4), ("two", 4), ("other", 8)] {
        fixture.register(name, alpha);
    }
    let [one, two, other] = ["one", "two", "other"].map(|name| fixture.get(name).unwrap());
    assert!(Arc::ptr_eq(&one.packed, &two.packed) && one.hash == two.hash);
    assert!(one.hash != other.hash && !Arc::ptr_eq(&one.packed, &other.packed));
    assert_eq!(fixture.packed.load(Ordering::SeqCst), 2);
    assert_eq!(fixture.registry.memory().0, 2 * BYTES);
    // The other name still has the same files.
    fixture.registry.remove("one").unwrap();
    assert!(fixture.is_resident("two"));
}

#[test]
fn names_that_cannot_be_served_are_refused_and_change_nothing() {
    let fixture = Fixture::new();
    fixture.register("support", 4);
    let again = fixture.write("again", 4);
    let mut text = String::new();
    let long = "é".repeat(65);
    for name in ["support", "acme/tiny", "tgi", "", " support", "new\nline", &long] {
        let registered = fixture.registry.register(source(name, &again)).unwrap_err();
        let added = fixture
            .registry
            .add(&source(name, &again), Adding::default())
            .unwrap_err();
        assert_eq!(registered.to_string(), added.to_string());
        writeln!(text, "{}", message(&added, fixture.dir.path())).unwrap();
    }
    insta::assert_snapshot!(text);
    assert_eq!(fixture.registry.names(), ["support"]);
    for name in [
        "acme/support",
        "support-v1.2",
        "поддержка",
        "two words",
        "..",
        &"x".repeat(128),
    ] {
        fixture
            .registry
            .register(source(name, &again))
            .unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

#[test]
fn requests_share_a_load_and_nobody_else_waits_for_it() {
    let (fixture, open) = Fixture::gated(RegistryOptions::default());
    fixture.register("warm", 1);
    open.send(()).unwrap();
    fixture.get("warm").unwrap();
    fixture.register("cold", 2);
    let waiting = [(), (), ()].map(|()| loading(fixture.registry.get("cold")));
    let state = fixture.registry.listed("cold").unwrap().residency;
    assert!(matches!(state, Residency::Loading), "{state:?}");
    ready(fixture.registry.get("warm"));
    open.send(()).unwrap();
    let entries = waiting.map(|waiting| waiting.block().unwrap());
    assert!(
        entries
            .iter()
            .all(|entry| Arc::ptr_eq(&entry.packed, &entries[0].packed))
    );
    ready(fixture.registry.get("cold"));
    assert_eq!(fixture.packed.load(Ordering::SeqCst), 2);
    assert_eq!(fixture.registry.listed("cold").unwrap().requests, 4);
}

#[test]
fn an_added_adapter_is_waited_for_and_there_once_it_is_loaded() {
    let (fixture, open) = Fixture::gated(RegistryOptions::default());
    let folder = fixture.write("new", 4);
    let added = fixture
        .registry
        .add(&source("new", &folder), Adding::default())
        .unwrap();
    let request = loading(fixture.registry.get("new"));
    // Adding the same source again joins the load until its files may have been read, because they
    // may have changed since.
    let replace = Adding {
        replace: true,
        pinned: Some(true),
        ..Adding::default()
    };
    let mut again = Vec::new();
    let error = loop {
        match fixture.registry.add(&source("new", &folder), replace.clone()) {
            Ok(waiting) => again.push(waiting),
            Err(error) => break error,
        }
        std::thread::yield_now();
    };
    assert!(error.to_string().contains("just being loaded"), "{error}");
    let other = fixture.write("other", 8);
    let error = fixture.registry.add(&source("new", &other), replace).unwrap_err();
    assert!(error.to_string().contains("just being loaded"), "{error}");
    open.send(()).unwrap();
    let hash = added.block().unwrap().hash;
    for waiting in again.into_iter().chain([request]) {
        assert_eq!(waiting.block().unwrap().hash, hash);
    }
}

#[test]
fn what_is_said_when_an_adapter_is_added_holds_as_soon_as_requests_get_it() {
    let (fixture, open) = Fixture::gated(RegistryOptions::default());
    let said = |value: &str, weight| Settings {
        defaults: Some([("system".to_owned(), value.into())].into_iter().collect()),
        limits: Some(AdapterLimits {
            weight,
            ..AdapterLimits::default()
        }),
    };
    let add = |folder: &str, alpha, settings| {
        let adding = Adding {
            replace: true,
            settings,
            ..Adding::default()
        };
        let from = source("a", &fixture.write(folder, alpha));
        fixture.registry.add(&from, adding).unwrap()
    };
    let holds = || {
        let defaults = fixture
            .registry
            .defaults("a")
            .map(|defaults| defaults["system"].clone());
        (defaults, fixture.registry.limits("a").weight)
    };
    // The settings already apply to a request that waits for the first version.
    let first = add("first", 1, said("one", 2.0));
    assert_eq!(holds(), (Some("one".into()), 2.0));
    open.send(()).unwrap();
    first.block().unwrap();
    // Settings of a later version take effect with its weights, and not at all if it is refused.
    let second = add("second", 2, said("two", 3.0));
    assert_eq!(holds(), (Some("one".into()), 2.0));
    open.send(()).unwrap();
    second.block().unwrap();
    assert_eq!(holds(), (Some("two".into()), 3.0));
    let folder = fixture.write("broken", 3);
    std::fs::write(folder.join("adapter_model.safetensors"), b"12345678").unwrap();
    let adding = Adding {
        replace: true,
        settings: said("three", 4.0),
        ..Adding::default()
    };
    let broken = fixture.registry.add(&source("a", &folder), adding).unwrap();
    broken.block().unwrap_err();
    assert_eq!(holds(), (Some("two".into()), 3.0));
    // Empty settings change nothing.
    let third = add("third", 4, Settings::default());
    open.send(()).unwrap();
    third.block().unwrap();
    assert_eq!(holds(), (Some("two".into()), 3.0));
}

#[test]
fn a_new_version_takes_over_at_once_and_the_old_one_is_freed_with_its_last_user() {
    let (fixture, open) = Fixture::gated(RegistryOptions::default());
    fixture.register("a", 1);
    open.send(()).unwrap();
    let old = fixture.get("a").unwrap();
    let folder = fixture.write("a2", 2);
    let adding = Adding {
        replace: true,
        pinned: None,
        ..Adding::default()
    };
    let added = fixture.registry.add(&source("a", &folder), adding).unwrap();
    // Until the new version is loaded, requests get the old one.
    assert_eq!(ready(fixture.registry.get("a")).hash, old.hash);
    assert!(fixture.registry.listed("a").unwrap().replacing);
    open.send(()).unwrap();
    let new = added.block().unwrap();
    assert_ne!(new.hash, old.hash);
    assert_eq!(ready(fixture.registry.get("a")).hash, new.hash);
    assert_eq!(fixture.registry.memory().0, 2 * BYTES, "both are used");
    let weak = Arc::downgrade(&old.packed);
    assert!(weak.upgrade().is_some(), "who uses the old one has it");
    drop(old);
    // The loader releases its reference a moment after it has sent the result.
    let deadline = Instant::now() + Duration::from_secs(10);
    while weak.upgrade().is_some() {
        assert!(Instant::now() < deadline, "the last user gave it back");
        std::thread::yield_now();
    }
    assert_eq!(fixture.registry.memory().0, BYTES);
    let versions = fixture.registry.listed("a").unwrap().versions;
    let active: Vec<bool> = versions.iter().map(|version| version.active).collect();
    assert_eq!(active, [false, true]);
}

#[test]
fn a_replacement_that_cannot_be_loaded_changes_nothing() {
    let fixture = Fixture::new();
    fixture.register("a", 1);
    let before = fixture.get("a").unwrap();
    let mut spoilt = Adapter::good();
    spoilt.reshape("0.self_attn.q_proj.lora_A.weight", &[2, 5]);
    let folder = fixture.dir.path().join("bad");
    spoilt.write(&folder);
    let error = fixture.replace("a", &folder).unwrap_err();
    assert!(error.to_string().contains("has shape [2, 5]"), "{error}");
    assert_eq!(ready(fixture.registry.get("a")).hash, before.hash);
    assert_eq!(fixture.registry.listed("a").unwrap().versions.len(), 1);
    // A failed first load leaves no name behind.
    let error = fixture
        .registry
        .add(&source("b", &folder), Adding::default())
        .unwrap()
        .block();
    assert!(matches!(error, Err(LoadError::Failed(_))));
    assert!(matches!(fixture.registry.get("b"), Lookup::Unknown));
}

#[test]
fn replacing_an_adapter_by_itself_is_no_new_version() {
    let fixture = Fixture::new();
    fixture.register("a", 1);
    fixture.get("a").unwrap();
    let copy = fixture.write("copy", 1);
    fixture.replace("a", &copy).unwrap();
    let listed = fixture.registry.listed("a").unwrap();
    assert_eq!(
        (listed.versions.len(), listed.versions[0].source.clone()),
        (1, Reference::Folder(copy))
    );
}

#[test]
fn rolling_back_goes_to_the_version_before_and_to_any_by_its_hash() {
    let fixture = Fixture::new();
    fixture.register("a", 1);
    let hashes: Vec<_> = std::iter::once(fixture.get("a").unwrap().hash)
        .chain([2, 3].map(|alpha| {
            let folder = fixture.write(&format!("a{alpha}"), alpha);
            fixture.replace("a", &folder).unwrap().hash
        }))
        .collect();
    assert_eq!(fixture.registry.activate("a", None).unwrap(), hashes[1]);
    assert_eq!(fixture.get("a").unwrap().hash, hashes[1]);
    assert_eq!(fixture.registry.activate("a", None).unwrap(), hashes[0]);
    let error = fixture.registry.activate("a", None).unwrap_err();
    assert_eq!(error.to_string(), "`a` has no version before the active one");
    assert_eq!(
        fixture.registry.activate("a", Some(hashes[2])).unwrap(),
        hashes[2]
    );
    assert_eq!(fixture.get("a").unwrap().hash, hashes[2]);
    assert!(
        fixture
            .registry
            .activate("a", Some(multigraft_model::AdapterHash([7; 32])))
            .is_err()
    );
    assert!(fixture.registry.activate("none", None).is_err());
}

#[test]
fn files_that_changed_are_not_served_under_the_old_hash() {
    let fixture = Fixture::new();
    fixture.register("a", 1);
    let first = fixture.get("a").unwrap().hash;
    let second = fixture.write("second", 2);
    fixture.replace("a", &second).unwrap();
    fixture.write("a", 3);
    let error = fixture.registry.activate("a", None).unwrap_err();
    assert!(
        error.to_string().contains("have changed since it was added"),
        "{error}"
    );
    assert_ne!(fixture.get("a").unwrap().hash, first, "the good version stays");
}

#[test]
fn a_removed_name_is_gone_while_its_users_go_on() {
    let (fixture, open) = Fixture::gated(RegistryOptions::default());
    fixture.register("a", 1);
    open.send(()).unwrap();
    let user = fixture.get("a").unwrap();
    fixture.registry.remove("a").unwrap();
    assert!(matches!(fixture.registry.get("a"), Lookup::Unknown));
    assert_eq!(fixture.registry.memory().0, BYTES, "as long as it is used");
    drop(user);
    assert_eq!(fixture.registry.memory().0, 0);
    assert!(fixture.registry.remove("a").is_err());
    // Those who wait for a removed name are told.
    fixture.register("b", 2);
    let waiting = loading(fixture.registry.get("b"));
    fixture.registry.remove("b").unwrap();
    open.send(()).unwrap();
    assert!(matches!(waiting.block(), Err(LoadError::Removed)));
    // The load of a removed name leaves nothing behind.
    fixture.register("c", 3);
    open.send(()).unwrap();
    fixture.get("c").unwrap();
    assert_eq!(fixture.registry.memory().0, BYTES);
}

#[test]
fn a_failed_load_backs_off_says_why_and_is_tried_again() {
    let options = RegistryOptions {
        backoff: Duration::from_millis(200),
        ..RegistryOptions::default()
    };
    let fixture = Fixture::with(options, None);
    fixture.register("a", 1);
    let weights = fixture.dir.path().join("a/adapter_model.safetensors");
    std::fs::write(&weights, b"spoilt").unwrap();
    let first = fixture.get("a").unwrap_err();
    assert!(matches!(first, LoadError::Failed(_)), "{first}");
    let second = fixture.get("a").unwrap_err();
    assert!(
        matches!(second, LoadError::BackedOff { attempts: 1, .. }),
        "{second}"
    );
    assert!(
        second.to_string().contains("adapter_model.safetensors"),
        "{second}"
    );
    let state = fixture.registry.listed("a").unwrap().residency;
    assert!(matches!(state, Residency::Failed { .. }), "{state:?}");
    std::thread::sleep(Duration::from_millis(250));
    let third = fixture.get("a").unwrap_err();
    assert!(matches!(third, LoadError::Failed(_)), "{third}");
    fixture.write("a", 1);
    std::thread::sleep(Duration::from_millis(450));
    fixture.get("a").unwrap();
    assert!(fixture.is_resident("a"));
}

#[test]
fn those_who_went_away_make_room_for_others_that_wait() {
    let options = RegistryOptions {
        max_waiting: 2,
        ..RegistryOptions::default()
    };
    let (fixture, open) = Fixture::gated(options);
    fixture.register("a", 1);
    drop([(), ()].map(|()| loading(fixture.registry.get("a"))));
    let waiting = loading(fixture.registry.get("a"));
    open.send(()).unwrap();
    waiting.block().unwrap();
}

#[test]
fn so_many_requests_wait_and_no_more() {
    let options = RegistryOptions {
        max_waiting: 2,
        ..RegistryOptions::default()
    };
    let (fixture, open) = Fixture::gated(options);
    fixture.register("a", 1);
    let waiting = [(), ()].map(|()| loading(fixture.registry.get("a")));
    let refused = fixture.registry.get("a");
    assert!(
        matches!(
            refused,
            Lookup::Unavailable(LoadError::TooManyWait { waiting: 2 })
        ),
        "{refused:?}"
    );
    open.send(()).unwrap();
    for waiting in waiting {
        waiting.block().unwrap();
    }
    ready(fixture.registry.get("a"));
}

#[test]
fn a_fault_of_the_packer_is_an_error_and_the_next_load_works() {
    let packer = Packer {
        shape: base(),
        self_test: None,
        size: Box::new(|_| 16),
        pack: {
            let calls = AtomicUsize::new(0);
            Box::new(move |weights, _| match calls.fetch_add(1, Ordering::SeqCst) {
                0 => panic!("on purpose"),
                1 => Err(ModelError::AdapterMismatch("layer 0".to_owned())),
                _ => Ok(ReadyAdapter::new(weights.hash, BYTES, Arc::new(()))),
            })
        },
    };
    let options = RegistryOptions {
        backoff: Duration::ZERO,
        memory: BYTES,
        ..RegistryOptions::default()
    };
    let registry = Registry::open("base", packer, options).unwrap();
    let dir = tempfile::tempdir().unwrap();
    Adapter::good().write(dir.path());
    registry.register(source("a", dir.path())).unwrap();
    let outcomes = [(), (), ()].map(|()| loading(registry.get("a")).block());
    assert!(matches!(outcomes[0], Err(LoadError::Panicked)));
    assert!(
        outcomes[1]
            .as_ref()
            .unwrap_err()
            .to_string()
            .contains("does not fit the base at layer 0")
    );
    assert!(outcomes[2].is_ok());
}

#[test]
fn who_waits_when_the_registry_ends_hears_so() {
    let (fixture, open) = Fixture::gated(RegistryOptions::default());
    fixture.register("a", 1);
    fixture.register("b", 2);
    let [first, second] = ["a", "b"].map(|name| loading(fixture.registry.get(name)));
    drop(fixture.registry);
    // The first load may not have started yet.
    let _ = open.send(());
    // The load in progress may finish; the other never starts.
    let _ = first.block();
    assert!(matches!(second.block(), Err(LoadError::Stopped)));
}

#[test]
fn a_folder_of_folders_is_a_list_of_adapters() {
    let dir = tempfile::tempdir().unwrap();
    let (outside, folder) = (dir.path().join("outside"), dir.path().join("adapters"));
    Adapter::good().write(&outside);
    for name in ["support", "billing"] {
        Adapter::good().write(&folder.join(name));
    }
    std::fs::create_dir(folder.join("notes")).unwrap();
    std::fs::write(folder.join("README.md"), "not an adapter").unwrap();
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&outside, folder.join("link")).unwrap();
        std::os::unix::fs::symlink(folder.join("support"), folder.join("alias")).unwrap();
    }
    let found = Source::in_folder(&folder).unwrap();
    let names: Vec<&str> = found.sources.iter().map(|source| source.name.as_str()).collect();
    let expected: &[&str] = if cfg!(unix) {
        &["alias", "billing", "support"]
    } else {
        &["billing", "support"]
    };
    assert_eq!(names, expected);
    assert_eq!(
        found.sources.last().unwrap().at,
        Reference::Folder(folder.join("support"))
    );
    let skipped = found.skipped.join("\n");
    assert_eq!(skipped.contains("leads out"), cfg!(unix), "{skipped}");
    assert!(
        skipped.contains("notes") && skipped.contains("adapter_config.json"),
        "{skipped}"
    );
    assert!(!skipped.contains("README"), "{skipped}");
    assert!(Source::in_folder(&folder.join("none")).is_err());
}

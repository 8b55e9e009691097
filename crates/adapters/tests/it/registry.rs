//! The lives of adapters under their names.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use multigraft_adapters::{
    AdapterLimits, Adding, LoadError, Lookup, Packer, Registry, RegistryOptions, Residency, Settings, Source,
};
use multigraft_model::{ModelError, ReadyAdapter};
use multigraft_sources::Reference;

use crate::support::{Adapter, BYTES, Place, base, loading, message, ready, source};

#[test]
fn a_name_finds_its_adapter_and_nothing_else() {
    let place = Place::new();
    place.register("support", 4);
    let entry = place.get("support").unwrap();
    assert_eq!(entry.name, "support");
    assert_eq!(entry.at, Reference::Folder(place.dir.path().join("support")));
    assert_eq!(entry.hash, entry.packed.hash());
    for other in ["", "acme/tiny", "Support", "support ", "suppor"] {
        assert!(matches!(place.registry.get(other), Lookup::Unknown), "{other}");
    }
    assert_eq!(place.registry.base(), "acme/tiny");
    assert_eq!(place.registry.names(), ["support"]);
}

#[test]
fn the_same_files_are_packed_once_and_shared() {
    let place = Place::new();
    for (name, alpha) in [("one", 4), ("two", 4), ("other", 8)] {
        place.register(name, alpha);
    }
    let [one, two, other] = ["one", "two", "other"].map(|name| place.get(name).unwrap());
    assert!(Arc::ptr_eq(&one.packed, &two.packed) && one.hash == two.hash);
    assert!(one.hash != other.hash && !Arc::ptr_eq(&one.packed, &other.packed));
    assert_eq!(place.packed.load(Ordering::SeqCst), 2);
    assert_eq!(place.registry.memory().0, 2 * BYTES);
    // One of two names less: the other still has it.
    place.registry.remove("one").unwrap();
    assert!(place.is_resident("two"));
}

#[test]
fn names_that_cannot_be_served_are_refused_and_change_nothing() {
    let place = Place::new();
    place.register("support", 4);
    let again = place.write("again", 4);
    let mut text = String::new();
    let long = "é".repeat(65);
    for name in ["support", "acme/tiny", "tgi", "", " support", "new\nline", &long] {
        let registered = place.registry.register(source(name, &again)).unwrap_err();
        let added = place
            .registry
            .add(&source(name, &again), Adding::default())
            .unwrap_err();
        assert_eq!(registered.to_string(), added.to_string());
        writeln!(text, "{}", message(&added, place.dir.path())).unwrap();
    }
    insta::assert_snapshot!(text);
    assert_eq!(place.registry.names(), ["support"]);
    for name in [
        "acme/support",
        "support-v1.2",
        "поддержка",
        "two words",
        "..",
        &"x".repeat(128),
    ] {
        place
            .registry
            .register(source(name, &again))
            .unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

#[test]
fn requests_share_a_load_and_nobody_else_waits_for_it() {
    let (place, open) = Place::gated(RegistryOptions::default());
    place.register("warm", 1);
    open.send(()).unwrap();
    place.get("warm").unwrap();
    place.register("cold", 2);
    let waiting = [(), (), ()].map(|()| loading(place.registry.get("cold")));
    let state = place.registry.listed("cold").unwrap().residency;
    assert!(matches!(state, Residency::Loading), "{state:?}");
    ready(place.registry.get("warm"));
    open.send(()).unwrap();
    let entries = waiting.map(|waiting| waiting.block().unwrap());
    assert!(
        entries
            .iter()
            .all(|entry| Arc::ptr_eq(&entry.packed, &entries[0].packed))
    );
    ready(place.registry.get("cold"));
    assert_eq!(place.packed.load(Ordering::SeqCst), 2);
    assert_eq!(place.registry.listed("cold").unwrap().requests, 4);
}

#[test]
fn an_added_adapter_is_waited_for_and_there_once_it_is_loaded() {
    let (place, open) = Place::gated(RegistryOptions::default());
    let folder = place.write("new", 4);
    let added = place
        .registry
        .add(&source("new", &folder), Adding::default())
        .unwrap();
    let request = loading(place.registry.get("new"));
    // Adding the same again waits for the same, until its files may have been read: they may be
    // others by now.
    let replace = Adding {
        replace: true,
        pinned: Some(true),
        ..Adding::default()
    };
    let mut again = Vec::new();
    let error = loop {
        match place.registry.add(&source("new", &folder), replace.clone()) {
            Ok(waiting) => again.push(waiting),
            Err(error) => break error,
        }
        std::thread::yield_now();
    };
    assert!(error.to_string().contains("just being loaded"), "{error}");
    let other = place.write("other", 8);
    let error = place.registry.add(&source("new", &other), replace).unwrap_err();
    assert!(error.to_string().contains("just being loaded"), "{error}");
    open.send(()).unwrap();
    let hash = added.block().unwrap().hash;
    for waiting in again.into_iter().chain([request]) {
        assert_eq!(waiting.block().unwrap().hash, hash);
    }
}

#[test]
fn what_is_said_when_an_adapter_is_added_holds_as_soon_as_requests_get_it() {
    let (place, open) = Place::gated(RegistryOptions::default());
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
        let from = source("a", &place.write(folder, alpha));
        place.registry.add(&from, adding).unwrap()
    };
    let holds = || {
        let defaults = place
            .registry
            .defaults("a")
            .map(|defaults| defaults["system"].clone());
        (defaults, place.registry.limits("a").weight)
    };
    // A request that waits for the first version is of it already.
    let first = add("first", 1, said("one", 2.0));
    assert_eq!(holds(), (Some("one".into()), 2.0));
    open.send(()).unwrap();
    first.block().unwrap();
    // Of a later one, no earlier than its weights; and not at all if it is refused.
    let second = add("second", 2, said("two", 3.0));
    assert_eq!(holds(), (Some("one".into()), 2.0));
    open.send(()).unwrap();
    second.block().unwrap();
    assert_eq!(holds(), (Some("two".into()), 3.0));
    let folder = place.write("broken", 3);
    std::fs::write(folder.join("adapter_model.safetensors"), b"12345678").unwrap();
    let adding = Adding {
        replace: true,
        settings: said("three", 4.0),
        ..Adding::default()
    };
    let broken = place.registry.add(&source("a", &folder), adding).unwrap();
    broken.block().unwrap_err();
    assert_eq!(holds(), (Some("two".into()), 3.0));
    // What says nothing changes nothing.
    let third = add("third", 4, Settings::default());
    open.send(()).unwrap();
    third.block().unwrap();
    assert_eq!(holds(), (Some("two".into()), 3.0));
}

#[test]
fn a_new_version_takes_over_at_once_and_the_old_one_is_freed_with_its_last_user() {
    let (place, open) = Place::gated(RegistryOptions::default());
    place.register("a", 1);
    open.send(()).unwrap();
    let old = place.get("a").unwrap();
    let folder = place.write("a2", 2);
    let adding = Adding {
        replace: true,
        pinned: None,
        ..Adding::default()
    };
    let added = place.registry.add(&source("a", &folder), adding).unwrap();
    // Until it is there, requests get the old one.
    assert_eq!(ready(place.registry.get("a")).hash, old.hash);
    assert!(place.registry.listed("a").unwrap().replacing);
    open.send(()).unwrap();
    let new = added.block().unwrap();
    assert_ne!(new.hash, old.hash);
    assert_eq!(ready(place.registry.get("a")).hash, new.hash);
    assert_eq!(place.registry.memory().0, 2 * BYTES, "both are used");
    let weak = Arc::downgrade(&old.packed);
    assert!(weak.upgrade().is_some(), "who uses the old one has it");
    drop(old);
    // The loader lets go a moment after it told us.
    let deadline = Instant::now() + Duration::from_secs(10);
    while weak.upgrade().is_some() {
        assert!(Instant::now() < deadline, "the last user gave it back");
        std::thread::yield_now();
    }
    assert_eq!(place.registry.memory().0, BYTES);
    let versions = place.registry.listed("a").unwrap().versions;
    let active: Vec<bool> = versions.iter().map(|version| version.active).collect();
    assert_eq!(active, [false, true]);
}

#[test]
fn a_replacement_that_cannot_be_loaded_changes_nothing() {
    let place = Place::new();
    place.register("a", 1);
    let before = place.get("a").unwrap();
    let mut spoilt = Adapter::good();
    spoilt.reshape("0.self_attn.q_proj.lora_A.weight", &[2, 5]);
    let folder = place.dir.path().join("bad");
    spoilt.write(&folder);
    let error = place.replace("a", &folder).unwrap_err();
    assert!(error.to_string().contains("has shape [2, 5]"), "{error}");
    assert_eq!(ready(place.registry.get("a")).hash, before.hash);
    assert_eq!(place.registry.listed("a").unwrap().versions.len(), 1);
    // A name that nothing stood for is none afterwards.
    let error = place
        .registry
        .add(&source("b", &folder), Adding::default())
        .unwrap()
        .block();
    assert!(matches!(error, Err(LoadError::Failed(_))));
    assert!(matches!(place.registry.get("b"), Lookup::Unknown));
}

#[test]
fn replacing_an_adapter_by_itself_is_no_new_version() {
    let place = Place::new();
    place.register("a", 1);
    place.get("a").unwrap();
    let copy = place.write("copy", 1);
    place.replace("a", &copy).unwrap();
    let listed = place.registry.listed("a").unwrap();
    assert_eq!(
        (listed.versions.len(), listed.versions[0].source.clone()),
        (1, Reference::Folder(copy))
    );
}

#[test]
fn rolling_back_goes_to_the_version_before_and_to_any_by_its_hash() {
    let place = Place::new();
    place.register("a", 1);
    let hashes: Vec<_> = std::iter::once(place.get("a").unwrap().hash)
        .chain([2, 3].map(|alpha| {
            let folder = place.write(&format!("a{alpha}"), alpha);
            place.replace("a", &folder).unwrap().hash
        }))
        .collect();
    assert_eq!(place.registry.activate("a", None).unwrap(), hashes[1]);
    assert_eq!(place.get("a").unwrap().hash, hashes[1]);
    assert_eq!(place.registry.activate("a", None).unwrap(), hashes[0]);
    let error = place.registry.activate("a", None).unwrap_err();
    assert_eq!(error.to_string(), "`a` has no version before the active one");
    assert_eq!(place.registry.activate("a", Some(hashes[2])).unwrap(), hashes[2]);
    assert_eq!(place.get("a").unwrap().hash, hashes[2]);
    assert!(
        place
            .registry
            .activate("a", Some(multigraft_model::AdapterHash([7; 32])))
            .is_err()
    );
    assert!(place.registry.activate("none", None).is_err());
}

#[test]
fn files_that_changed_are_not_served_under_the_old_hash() {
    let place = Place::new();
    place.register("a", 1);
    let first = place.get("a").unwrap().hash;
    let second = place.write("second", 2);
    place.replace("a", &second).unwrap();
    place.write("a", 3);
    let error = place.registry.activate("a", None).unwrap_err();
    assert!(
        error.to_string().contains("have changed since it was added"),
        "{error}"
    );
    assert_ne!(place.get("a").unwrap().hash, first, "the good version stays");
}

#[test]
fn a_removed_name_is_gone_while_its_users_go_on() {
    let (place, open) = Place::gated(RegistryOptions::default());
    place.register("a", 1);
    open.send(()).unwrap();
    let user = place.get("a").unwrap();
    place.registry.remove("a").unwrap();
    assert!(matches!(place.registry.get("a"), Lookup::Unknown));
    assert_eq!(place.registry.memory().0, BYTES, "as long as it is used");
    drop(user);
    assert_eq!(place.registry.memory().0, 0);
    assert!(place.registry.remove("a").is_err());
    // Those who wait for one that is removed hear so.
    place.register("b", 2);
    let waiting = loading(place.registry.get("b"));
    place.registry.remove("b").unwrap();
    open.send(()).unwrap();
    assert!(matches!(waiting.block(), Err(LoadError::Removed)));
    // The load that nobody wants any more leaves nothing behind.
    place.register("c", 3);
    open.send(()).unwrap();
    place.get("c").unwrap();
    assert_eq!(place.registry.memory().0, BYTES);
}

#[test]
fn a_failed_load_backs_off_says_why_and_is_tried_again() {
    let options = RegistryOptions {
        backoff: Duration::from_millis(200),
        ..RegistryOptions::default()
    };
    let place = Place::with(options, None);
    place.register("a", 1);
    let weights = place.dir.path().join("a/adapter_model.safetensors");
    std::fs::write(&weights, b"spoilt").unwrap();
    let first = place.get("a").unwrap_err();
    assert!(matches!(first, LoadError::Failed(_)), "{first}");
    let second = place.get("a").unwrap_err();
    assert!(
        matches!(second, LoadError::BackedOff { attempts: 1, .. }),
        "{second}"
    );
    assert!(
        second.to_string().contains("adapter_model.safetensors"),
        "{second}"
    );
    let state = place.registry.listed("a").unwrap().residency;
    assert!(matches!(state, Residency::Failed { .. }), "{state:?}");
    std::thread::sleep(Duration::from_millis(250));
    let third = place.get("a").unwrap_err();
    assert!(matches!(third, LoadError::Failed(_)), "{third}");
    place.write("a", 1);
    std::thread::sleep(Duration::from_millis(450));
    place.get("a").unwrap();
    assert!(place.is_resident("a"));
}

#[test]
fn those_who_went_away_make_room_for_others_that_wait() {
    let options = RegistryOptions {
        max_waiting: 2,
        ..RegistryOptions::default()
    };
    let (place, open) = Place::gated(options);
    place.register("a", 1);
    drop([(), ()].map(|()| loading(place.registry.get("a"))));
    let waiting = loading(place.registry.get("a"));
    open.send(()).unwrap();
    waiting.block().unwrap();
}

#[test]
fn so_many_requests_wait_and_no_more() {
    let options = RegistryOptions {
        max_waiting: 2,
        ..RegistryOptions::default()
    };
    let (place, open) = Place::gated(options);
    place.register("a", 1);
    let waiting = [(), ()].map(|()| loading(place.registry.get("a")));
    let refused = place.registry.get("a");
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
    ready(place.registry.get("a"));
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
    let (place, open) = Place::gated(RegistryOptions::default());
    place.register("a", 1);
    place.register("b", 2);
    let [first, second] = ["a", "b"].map(|name| loading(place.registry.get(name)));
    drop(place.registry);
    // The first may not even have begun.
    let _ = open.send(());
    // The one under way may come to its end; the other never begins.
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

//! Who makes room for whom in memory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use multigraft_adapters::{LoadError, RegistryOptions};
use multigraft_model::{MemoryBudget, Want};

use crate::support::{BYTES, Place, loading};

#[test]
fn those_unused_for_longest_make_room_but_never_one_that_runs_or_is_pinned() {
    let options = RegistryOptions {
        memory: 3 * BYTES,
        room_timeout: Duration::from_millis(30),
        ..RegistryOptions::default()
    };
    let place = Place::with(options, None);
    for (alpha, name) in (1..).zip(["a", "b", "c", "d", "e", "f"]) {
        place.register(name, alpha);
    }
    let running = place.get("a").unwrap();
    place.get("b").unwrap();
    place.get("c").unwrap();
    place.registry.pin("b", true).unwrap();
    place.get("d").unwrap();
    let resident = || ["a", "b", "c", "d", "e", "f"].map(|name| place.is_resident(name));
    assert_eq!(resident(), [true, true, false, true, false, false]);
    place.get("e").unwrap();
    assert_eq!(resident(), [true, true, false, false, true, false]);
    let also_running = place.get("e").unwrap();
    let error = place.get("f").unwrap_err();
    assert!(matches!(error, LoadError::NoRoom { held: 3000, .. }), "{error}");
    assert_eq!(place.registry.memory(), (3 * BYTES, 3 * BYTES));
    drop((running, also_running));
}

#[test]
fn a_load_waits_for_room_that_running_adapters_give_back() {
    let options = RegistryOptions {
        memory: BYTES,
        ..RegistryOptions::default()
    };
    let place = Place::with(options, None);
    place.register("a", 1);
    place.register("b", 2);
    let running = place.get("a").unwrap();
    let waiting = loading(place.registry.get("b"));
    std::thread::sleep(Duration::from_millis(20));
    drop(running);
    waiting.block().unwrap();
    assert!(!place.is_resident("a") && place.is_resident("b"));
}

#[test]
fn what_was_replaced_and_still_runs_counts_against_the_memory() {
    let options = RegistryOptions {
        memory: 2 * BYTES,
        room_timeout: Duration::from_millis(30),
        ..RegistryOptions::default()
    };
    let place = Place::with(options, None);
    place.register("a", 1);
    let first = place.get("a").unwrap();
    let second = place.replace("a", &place.write("second", 2)).unwrap();
    let third = place.replace("a", &place.write("third", 3));
    assert!(
        matches!(third, Err(LoadError::NoRoom { held: 2000, .. })),
        "{third:?}"
    );
    drop((first, second));
    place.replace("a", &place.dir.path().join("third")).unwrap();
}

/// A budget that holds four adapters, of which one is always keys' and values', and a registry that
/// takes from it.
fn budgeted() -> (Arc<MemoryBudget>, Place) {
    let budget = Arc::new(MemoryBudget::new(4 * BYTES, BYTES));
    let options = RegistryOptions {
        budget: Arc::clone(&budget),
        room_timeout: Duration::from_millis(300),
        ..RegistryOptions::default()
    };
    let place = Place::with(options, None);
    for (alpha, name) in (1..).zip(["a", "b", "c", "d"]) {
        place.register(name, alpha);
    }
    (budget, place)
}

/// Keys and values of which `bytes` were last used at `used`, and which give back what is wanted if
/// it is older.
fn idle_keys_and_values(budget: &Arc<MemoryBudget>, bytes: usize, used: Instant) {
    assert!(budget.take_for_kv(bytes));
    let kept = Arc::downgrade(budget);
    budget.on_kv_wanted(move || {
        let Some(budget) = kept.upgrade() else {
            return false;
        };
        let Some(Want { unused_since, .. }) = budget.wanted_of_kv() else {
            return true;
        };
        let (kv, _) = budget.taken();
        if unused_since.is_none_or(|since| used < since) && kv > budget.floor() {
            budget.return_from_kv(BYTES);
        }
        budget.answer();
        true
    });
}

fn resident(place: &Place) -> [bool; 4] {
    ["a", "b", "c", "d"].map(|name| place.is_resident(name))
}

#[test]
fn keys_and_values_that_were_idle_for_longer_make_room_before_adapters_do() {
    let (budget, place) = budgeted();
    idle_keys_and_values(&budget, BYTES, Instant::now());
    place.get("a").unwrap();
    place.get("b").unwrap();
    assert_eq!(budget.taken(), (2 * BYTES, 2 * BYTES));
    place.get("c").unwrap();
    assert_eq!(resident(&place), [true, true, true, false]);
    assert_eq!(budget.taken(), (BYTES, 3 * BYTES));
    // Of keys and values only the floor is left.
    place.get("d").unwrap();
    assert_eq!(resident(&place), [false, true, true, true]);
    assert_eq!(place.registry.memory(), (3 * BYTES, 3 * BYTES));
}

#[test]
fn adapters_that_were_idle_for_longer_make_room_before_keys_and_values_do() {
    let (budget, place) = budgeted();
    place.get("a").unwrap();
    place.get("b").unwrap();
    idle_keys_and_values(&budget, BYTES, Instant::now());
    place.get("c").unwrap();
    assert_eq!(resident(&place), [false, true, true, false]);
    assert_eq!(budget.taken(), (2 * BYTES, 2 * BYTES));
    // Those that run do not.
    let running = (place.get("b").unwrap(), place.get("c").unwrap());
    place.get("d").unwrap();
    assert_eq!(resident(&place), [false, true, true, true]);
    assert_eq!(budget.taken(), (BYTES, 3 * BYTES));
    drop(running);
}

#[test]
fn a_load_that_running_requests_leave_no_memory_for_says_so() {
    let (budget, place) = budgeted();
    assert!(budget.take_for_kv(2 * BYTES));
    let running = place.get("a").unwrap();
    let error = place.get("b").unwrap_err();
    assert!(
        matches!(error, LoadError::NoBudget { lacking: BYTES, .. }),
        "{error}"
    );
    budget.return_from_kv(BYTES);
    std::thread::sleep(Duration::from_millis(1100));
    place.get("b").unwrap();
    drop(running);
}

#[test]
fn sequences_that_lack_memory_get_that_of_idle_adapters_which_are_not_pinned() {
    let (budget, place) = budgeted();
    place.get("a").unwrap();
    place.get("b").unwrap();
    place.registry.pin("a", true).unwrap();
    let running = place.get("c").unwrap();
    assert!(!budget.take_for_kv(BYTES));
    budget.ask_adapters(BYTES);
    let deadline = Instant::now() + Duration::from_secs(10);
    while !budget.take_for_kv(BYTES) {
        assert!(Instant::now() < deadline, "{budget:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(resident(&place), [true, false, true, false]);
    budget.ask_adapters(BYTES);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(
        resident(&place),
        [true, false, true, false],
        "one is pinned, one runs"
    );
    drop(running);
}

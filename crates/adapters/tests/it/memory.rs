//! Eviction and the memory budget that adapters share with the KV cache.

use std::sync::Arc;
use std::time::{Duration, Instant};

use multigraft_adapters::{LoadError, RegistryOptions};
use multigraft_model::{MemoryBudget, Want};

use crate::support::{BYTES, Fixture, loading};

#[test]
fn those_unused_for_longest_make_room_but_never_one_that_runs_or_is_pinned() {
    let options = RegistryOptions {
        memory: 3 * BYTES,
        room_timeout: Duration::from_millis(30),
        ..RegistryOptions::default()
    };
    let fixture = Fixture::with(options, None);
    for (alpha, name) in (1..).zip(["a", "b", "c", "d", "e", "f"]) {
        fixture.register(name, alpha);
    }
    let running = fixture.get("a").unwrap();
    fixture.get("b").unwrap();
    fixture.get("c").unwrap();
    fixture.registry.pin("b", true).unwrap();
    fixture.get("d").unwrap();
    let resident = || ["a", "b", "c", "d", "e", "f"].map(|name| fixture.is_resident(name));
    assert_eq!(resident(), [true, true, false, true, false, false]);
    fixture.get("e").unwrap();
    assert_eq!(resident(), [true, true, false, false, true, false]);
    let also_running = fixture.get("e").unwrap();
    let error = fixture.get("f").unwrap_err();
    assert!(matches!(error, LoadError::NoRoom { held: 3000, .. }), "{error}");
    assert_eq!(fixture.registry.memory(), (3 * BYTES, 3 * BYTES));
    drop((running, also_running));
}

#[test]
fn a_load_waits_for_room_that_running_adapters_give_back() {
    let options = RegistryOptions {
        memory: BYTES,
        ..RegistryOptions::default()
    };
    let fixture = Fixture::with(options, None);
    fixture.register("a", 1);
    fixture.register("b", 2);
    let running = fixture.get("a").unwrap();
    let waiting = loading(fixture.registry.get("b"));
    std::thread::sleep(Duration::from_millis(20));
    drop(running);
    waiting.block().unwrap();
    assert!(!fixture.is_resident("a") && fixture.is_resident("b"));
}

#[test]
fn what_was_replaced_and_still_runs_counts_against_the_memory() {
    let options = RegistryOptions {
        memory: 2 * BYTES,
        room_timeout: Duration::from_millis(30),
        ..RegistryOptions::default()
    };
    let fixture = Fixture::with(options, None);
    fixture.register("a", 1);
    let first = fixture.get("a").unwrap();
    let second = fixture.replace("a", &fixture.write("second", 2)).unwrap();
    let third = fixture.replace("a", &fixture.write("third", 3));
    assert!(
        matches!(third, Err(LoadError::NoRoom { held: 2000, .. })),
        "{third:?}"
    );
    drop((first, second));
    fixture.replace("a", &fixture.dir.path().join("third")).unwrap();
}

/// A budget that holds four adapters, one of which is always the KV cache's, and a registry that
/// uses it.
fn budgeted() -> (Arc<MemoryBudget>, Fixture) {
    let budget = Arc::new(MemoryBudget::new(4 * BYTES, BYTES));
    let options = RegistryOptions {
        budget: Arc::clone(&budget),
        room_timeout: Duration::from_millis(300),
        ..RegistryOptions::default()
    };
    let fixture = Fixture::with(options, None);
    for (alpha, name) in (1..).zip(["a", "b", "c", "d"]) {
        fixture.register(name, alpha);
    }
    (budget, fixture)
}

/// `bytes` of idle KV cache, last used at `used`. It gives back what is requested if it is older
/// than the request says.
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

fn resident(fixture: &Fixture) -> [bool; 4] {
    ["a", "b", "c", "d"].map(|name| fixture.is_resident(name))
}

#[test]
fn keys_and_values_that_were_idle_for_longer_make_room_before_adapters_do() {
    let (budget, fixture) = budgeted();
    idle_keys_and_values(&budget, BYTES, Instant::now());
    fixture.get("a").unwrap();
    fixture.get("b").unwrap();
    assert_eq!(budget.taken(), (2 * BYTES, 2 * BYTES));
    fixture.get("c").unwrap();
    assert_eq!(resident(&fixture), [true, true, true, false]);
    assert_eq!(budget.taken(), (BYTES, 3 * BYTES));
    // Only the minimum of the KV cache is left.
    fixture.get("d").unwrap();
    assert_eq!(resident(&fixture), [false, true, true, true]);
    assert_eq!(fixture.registry.memory(), (3 * BYTES, 3 * BYTES));
}

#[test]
fn adapters_that_were_idle_for_longer_make_room_before_keys_and_values_do() {
    let (budget, fixture) = budgeted();
    fixture.get("a").unwrap();
    fixture.get("b").unwrap();
    idle_keys_and_values(&budget, BYTES, Instant::now());
    fixture.get("c").unwrap();
    assert_eq!(resident(&fixture), [false, true, true, false]);
    assert_eq!(budget.taken(), (2 * BYTES, 2 * BYTES));
    // Adapters in use are not evicted.
    let running = (fixture.get("b").unwrap(), fixture.get("c").unwrap());
    fixture.get("d").unwrap();
    assert_eq!(resident(&fixture), [false, true, true, true]);
    assert_eq!(budget.taken(), (BYTES, 3 * BYTES));
    drop(running);
}

#[test]
fn a_load_that_running_requests_leave_no_memory_for_says_so() {
    let (budget, fixture) = budgeted();
    assert!(budget.take_for_kv(2 * BYTES));
    let running = fixture.get("a").unwrap();
    let error = fixture.get("b").unwrap_err();
    assert!(
        matches!(error, LoadError::NoBudget { lacking: BYTES, .. }),
        "{error}"
    );
    budget.return_from_kv(BYTES);
    std::thread::sleep(Duration::from_millis(1100));
    fixture.get("b").unwrap();
    drop(running);
}

#[test]
fn sequences_that_lack_memory_get_that_of_idle_adapters_which_are_not_pinned() {
    let (budget, fixture) = budgeted();
    fixture.get("a").unwrap();
    fixture.get("b").unwrap();
    fixture.registry.pin("a", true).unwrap();
    let running = fixture.get("c").unwrap();
    assert!(!budget.take_for_kv(BYTES));
    budget.ask_adapters(BYTES);
    let deadline = Instant::now() + Duration::from_secs(10);
    while !budget.take_for_kv(BYTES) {
        assert!(Instant::now() < deadline, "{budget:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(resident(&fixture), [true, false, true, false]);
    budget.ask_adapters(BYTES);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(
        resident(&fixture),
        [true, false, true, false],
        "one is pinned, one runs"
    );
    drop(running);
}

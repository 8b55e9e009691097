//! Fairness among shares under load.

use crate::testing::{FakeBackend, Harness, Recording, adapter, exactly, generous};
use crate::{EngineOptions, Request, Tenant};

fn options(step_tokens: usize, max_running: usize) -> EngineOptions {
    EngineOptions {
        step_tokens,
        max_running,
        prefix_cache: false,
        ..EngineOptions::default()
    }
}

/// A request of adapter number `which` with `prompt` and `output` tokens.
fn request(which: u8, prompt: usize, output: usize) -> Request {
    Request {
        adapter: Some(adapter(which)),
        ..exactly((0..prompt).map(|i| 2 + i as u32 % 20).collect(), output)
    }
}

/// The turn in which each recording ended.
fn ends(harness: &mut Harness, recordings: &[Recording]) -> Vec<usize> {
    let mut ends = vec![0; recordings.len()];
    for turn in 1.. {
        let busy = harness.turn();
        for (end, recording) in ends.iter_mut().zip(recordings) {
            if *end == 0 && recording.ends() == 1 {
                *end = turn;
            }
        }
        if !busy {
            return ends;
        }
    }
    unreachable!("it ends")
}

#[test]
fn a_flood_of_one_adapter_does_not_hold_up_another() {
    let mut harness = Harness::over(FakeBackend::new(generous()), options(16, 2));
    let mut recordings: Vec<Recording> = (0..20).map(|_| harness.submit(request(1, 4, 4))).collect();
    recordings.push(harness.submit(request(2, 4, 4)));
    let ends = ends(&mut harness, &recordings);
    let earlier = ends[..20].iter().filter(|end| **end <= ends[20]).count();
    assert!(
        earlier <= 3,
        "{earlier} of the flood ended before the other: {ends:?}"
    );
}

#[test]
fn tenants_of_one_adapter_have_shares_of_their_own() {
    let mut harness = Harness::over(FakeBackend::new(generous()), options(16, 1));
    let of = |name: &str| Request {
        tenant: Some(Tenant::new(name)),
        ..request(1, 4, 4)
    };
    let mut recordings: Vec<Recording> = (0..10).map(|_| harness.submit(of("loud"))).collect();
    recordings.push(harness.submit(of("quiet")));
    let ends = ends(&mut harness, &recordings);
    assert!(ends[10] < ends[2], "{ends:?}");
}

#[test]
fn parts_of_one_tenant_have_one_share() {
    let mut harness = Harness::over(FakeBackend::new(generous()), options(16, 1));
    let of = |payer: &str, tenant: &str| Request {
        payer: Some(Tenant::new(payer)),
        tenant: Some(Tenant::new(tenant)),
        ..request(1, 4, 4)
    };
    let mut recordings: Vec<Recording> = (0..10)
        .map(|n| harness.submit(of("loud", &format!("loud {n}"))))
        .collect();
    recordings.extend((0..2).map(|_| harness.submit(of("quiet", "quiet"))));
    let ends = ends(&mut harness, &recordings);
    assert!(ends[11] < ends[4], "{ends:?}");
}

#[test]
fn shares_are_by_weight() {
    // Both always have waiting requests; one has three times the weight.
    let mut harness = Harness::over(FakeBackend::new(generous()), options(64, 1));
    let weighted = |which, weight| Request {
        weight,
        ..request(which, 4, 4)
    };
    let light: Vec<Recording> = (0..100).map(|_| harness.submit(weighted(1, 1.0))).collect();
    let heavy: Vec<Recording> = (0..100).map(|_| harness.submit(weighted(2, 3.0))).collect();
    for _ in 0..320 {
        harness.turn();
    }
    let [light, heavy] =
        [light, heavy].map(|recordings| recordings.iter().map(Recording::tokens).sum::<usize>());
    let ratio = heavy as f64 / light as f64;
    assert!((2.8..3.2).contains(&ratio), "{heavy} over {light} tokens");
}

#[test]
fn shares_are_of_tokens_not_of_requests() {
    // Adapter 1 sends long requests, adapter 2 short ones; both always have waiting requests.
    let mut harness = Harness::over(FakeBackend::new(generous()), options(64, 1));
    let long: Vec<Recording> = (0..20).map(|_| harness.submit(request(1, 10, 15))).collect();
    let short: Vec<Recording> = (0..80).map(|_| harness.submit(request(2, 2, 4))).collect();
    for _ in 0..300 {
        harness.turn();
    }
    let given = |recordings: &[Recording], prompt: usize| -> usize {
        let started = recordings
            .iter()
            .filter(|recording| !recording.events().is_empty());
        started.map(|recording| prompt + 2 * recording.tokens()).sum()
    };
    let (long, short) = (given(&long, 10), given(&short, 2));
    // Their counters differ by at most one request of the larger kind.
    assert!(long.abs_diff(short) <= 40, "{long} and {short}");
}

#[test]
fn a_lone_share_gets_the_whole_capacity() {
    let mut harness = Harness::over(FakeBackend::new(generous()), options(64, 4));
    let recordings: Vec<Recording> = (0..8).map(|_| harness.submit(request(1, 4, 4))).collect();
    let ends = ends(&mut harness, &recordings);
    assert_eq!(ends[..4], [ends[0]; 4], "four run at once");
}

#[test]
fn a_cold_adapter_is_served_beside_hot_ones() {
    let mut harness = Harness::over(FakeBackend::new(generous()), options(16, 2));
    for _ in 0..10 {
        harness.submit(request(1, 4, 8));
    }
    for _ in 0..30 {
        harness.turn();
        harness.submit(request(1, 4, 8));
    }
    let cold = harness.submit(request(2, 4, 1));
    for _ in 0..20 {
        harness.turn();
        harness.submit(request(1, 4, 8));
    }
    assert_eq!(cold.ends(), 1);
}

#[test]
fn a_priority_counts_within_its_share_alone() {
    let mut harness = Harness::over(FakeBackend::new(generous()), options(16, 1));
    let of = |name: &str, priority: i64| Request {
        tenant: Some(Tenant::new(name)),
        priority,
        ..request(1, 4, 4)
    };
    let mut recordings: Vec<Recording> = [3, 1, 1, -2, i64::MIN, i64::MAX]
        .map(|priority| harness.submit(of("a", priority)))
        .to_vec();
    recordings.push(harness.submit(of("b", 7)));
    let ends = ends(&mut harness, &recordings);
    let mut order: Vec<usize> = (0..6).collect();
    order.sort_by_key(|&index| ends[index]);
    assert_eq!(order, [4, 3, 1, 2, 0, 5], "of equals the older one: {ends:?}");
    // Whatever priority the other requests have in their own share.
    assert!(ends[6] < ends[3], "{ends:?}");
}

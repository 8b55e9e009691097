//! Clients that half-close, reset, send slowly, or do not read.

use std::time::Duration;

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

use super::super::{
    case::{Case, Expected, Step},
    routes::ServerFacts,
};
use super::{pick, valid_request};

/// The time between slow bytes, so long that each of the server's time limits ends the connection.
const DRIP_INTERVAL: Duration = Duration::from_secs(2);
/// Milliseconds that a client goes without reading before it resets the connection.
const UNREAD_MILLISECONDS: std::ops::Range<u64> = 2_000..40_000;

/// A request split in two at a random position, which may be its beginning or its end.
fn split(random: &mut ChaCha8Rng, request: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let at = match random.random_range(0..4) {
        0 => request.len(),
        1 => 0,
        _ => random.random_range(0..=request.len()),
    };
    (request[..at].to_vec(), request[at..].to_vec())
}

fn short_pause(random: &mut ChaCha8Rng) -> Step {
    Step::Pause(Duration::from_millis(random.random_range(0..200)))
}

pub(super) fn half_closed(random: &mut ChaCha8Rng, facts: &ServerFacts) -> Case {
    let request = valid_request(random, facts);
    let (sent, _) = split(random, &request);
    let mut steps = vec![Step::Send(sent)];
    if random.random() {
        steps.push(short_pause(random));
    }
    steps.push(Step::HalfClose);
    Case {
        steps,
        expected: Expected::AtLeast(0),
    }
}

pub(super) fn reset(random: &mut ChaCha8Rng, facts: &ServerFacts) -> Case {
    // Sometimes the stream of events, which only the client ends.
    let request = match random.random_bool(0.1) {
        true => facts.request("GET", "/v1/adapters/events", &[], b""),
        false => valid_request(random, facts),
    };
    let (sent, rest) = split(random, &request);
    let mut steps = vec![Step::Send(sent)];
    if random.random() {
        steps.push(short_pause(random));
    }
    if random.random_bool(0.3) {
        steps.extend([Step::Send(rest), short_pause(random)]);
    }
    steps.push(Step::Reset);
    Case {
        steps,
        expected: Expected::Nothing,
    }
}

pub(super) fn slow(random: &mut ChaCha8Rng, facts: &ServerFacts) -> Case {
    let request = valid_request(random, facts);
    let (sent, rest) = split(random, &request);
    // Nothing at all, the beginning only, or some or all bytes one by one.
    let steps = match random.random_range(0..4) {
        0 => Vec::new(),
        1 => vec![Step::Send(sent)],
        2 => vec![Step::Drip(request, DRIP_INTERVAL)],
        _ => vec![Step::Send(sent), Step::Drip(rest, DRIP_INTERVAL)],
    };
    Case {
        steps,
        expected: Expected::Disconnect,
    }
}

pub(super) fn unread(random: &mut ChaCha8Rng, facts: &ServerFacts) -> Case {
    // Small requests with large answers.
    let head = |target: &str| {
        format!(
            "GET {target} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n",
            facts.key
        )
        .into_bytes()
    };
    let request = pick(
        random,
        &[
            head("/openapi.json"),
            head("/docs"),
            head("/metrics"),
            head("/v1/adapters/events"),
        ],
    );
    let count = random.random_range(20..200);
    let time = Duration::from_millis(random.random_range(UNREAD_MILLISECONDS));
    Case {
        steps: vec![Step::Send(request.repeat(count)), Step::Pause(time), Step::Reset],
        expected: Expected::Nothing,
    }
}

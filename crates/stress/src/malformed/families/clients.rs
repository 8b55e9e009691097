//! Clients that stop, go, dawdle or do not read.

use std::time::Duration;

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

use super::super::case::{Case, Due, Known, Step};
use super::{good, one};

/// Between bytes that come slowly: so few of them come that every limit of the server ends it.
const DRIP: Duration = Duration::from_secs(2);
/// How long a client goes without reading; then it is gone.
const UNREAD: std::ops::Range<u64> = 2_000..40_000;

/// A request cut in two somewhere, also before its first and after its last byte.
fn cut(random: &mut ChaCha8Rng, request: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let at = match random.random_range(0..4) {
        0 => request.len(),
        1 => 0,
        _ => random.random_range(0..=request.len()),
    };
    (request[..at].to_vec(), request[at..].to_vec())
}

fn moment(random: &mut ChaCha8Rng) -> Step {
    Step::Pause(Duration::from_millis(random.random_range(0..200)))
}

pub(super) fn half_closed(random: &mut ChaCha8Rng, known: &Known) -> Case {
    let request = good(random, known);
    let (sent, _) = cut(random, &request);
    let mut steps = vec![Step::Send(sent)];
    if random.random() {
        steps.push(moment(random));
    }
    steps.push(Step::HalfClose);
    Case {
        steps,
        due: Due::Either(0),
    }
}

pub(super) fn reset(random: &mut ChaCha8Rng, known: &Known) -> Case {
    // A stream that ends with the client only is among what is left.
    let request = match random.random_bool(0.1) {
        true => known.request("GET", "/v1/adapters/events", &[], b""),
        false => good(random, known),
    };
    let (sent, rest) = cut(random, &request);
    let mut steps = vec![Step::Send(sent)];
    if random.random() {
        steps.push(moment(random));
    }
    if random.random_bool(0.3) {
        steps.extend([Step::Send(rest), moment(random)]);
    }
    steps.push(Step::Reset);
    Case {
        steps,
        due: Due::Nothing,
    }
}

pub(super) fn slow(random: &mut ChaCha8Rng, known: &Known) -> Case {
    let request = good(random, known);
    let (sent, rest) = cut(random, &request);
    // Nothing at all, the begin and nothing more, or the rest byte by byte.
    let steps = match random.random_range(0..4) {
        0 => Vec::new(),
        1 => vec![Step::Send(sent)],
        2 => vec![Step::Drip(request, DRIP)],
        _ => vec![Step::Send(sent), Step::Drip(rest, DRIP)],
    };
    Case {
        steps,
        due: Due::CutOff,
    }
}

pub(super) fn unread(random: &mut ChaCha8Rng, known: &Known) -> Case {
    // Much is answered to little.
    let head = |target: &str| {
        format!(
            "GET {target} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n",
            known.key
        )
        .into_bytes()
    };
    let request = one(
        random,
        &[
            head("/openapi.json"),
            head("/docs"),
            head("/metrics"),
            head("/v1/adapters/events"),
        ],
    );
    let count = random.random_range(20..200);
    let time = Duration::from_millis(random.random_range(UNREAD));
    Case {
        steps: vec![Step::Send(request.repeat(count)), Step::Pause(time), Step::Reset],
        due: Due::Nothing,
    }
}

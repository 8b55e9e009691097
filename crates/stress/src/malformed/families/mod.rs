//! The ways in which a request is malformed, each a function from random numbers to a case.

mod bodies;
mod chunks;
mod clients;
mod forms;
mod heads;

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

use super::case::{Case, Known};
use crate::arguments::Malformation;

/// All of them, and how many of a thousand requests each is.
const SHARES: [(Malformation, u32); 14] = [
    (Malformation::Values, 270),
    (Malformation::Text, 150),
    (Malformation::Encoding, 60),
    (Malformation::Headers, 80),
    (Malformation::Lengths, 60),
    (Malformation::Lines, 60),
    (Malformation::Targets, 80),
    (Malformation::Chunks, 60),
    (Malformation::Pipelines, 40),
    (Malformation::Forms, 60),
    (Malformation::HalfClosed, 34),
    (Malformation::Reset, 34),
    (Malformation::Slow, 6),
    (Malformation::Unread, 6),
];

/// Any family, or any of `only`.
pub(super) fn any(random: &mut ChaCha8Rng, only: &[Malformation]) -> Malformation {
    let among = |family: &Malformation| only.is_empty() || only.contains(family);
    let shares = || SHARES.iter().filter(|(family, _)| among(family));
    let all: u32 = shares().map(|(_, share)| share).sum();
    let mut place = random.random_range(0..all);
    for (family, share) in shares() {
        if place < *share {
            return *family;
        }
        place -= share;
    }
    Malformation::Values
}

/// A case of a family.
pub(super) fn case(family: Malformation, random: &mut ChaCha8Rng, known: &Known) -> Case {
    match family {
        Malformation::Values => bodies::values(random, known),
        Malformation::Text => bodies::text(random, known),
        Malformation::Encoding => bodies::encoding(random, known),
        Malformation::Headers => heads::headers(random, known),
        Malformation::Lengths => heads::lengths(random, known),
        Malformation::Lines => heads::lines(random, known),
        Malformation::Targets => heads::targets(random, known),
        Malformation::Chunks => chunks::chunks(random, known),
        Malformation::Pipelines => chunks::pipelines(random, known),
        Malformation::Forms => forms::forms(random, known),
        Malformation::HalfClosed => clients::half_closed(random, known),
        Malformation::Reset => clients::reset(random, known),
        Malformation::Slow => clients::slow(random, known),
        Malformation::Unread => clients::unread(random, known),
    }
}

fn one<T: Clone>(random: &mut ChaCha8Rng, of: &[T]) -> T {
    of[random.random_range(0..of.len())].clone()
}

/// A request of any route as it should be, by which other families begin.
fn good(random: &mut ChaCha8Rng, known: &Known) -> Vec<u8> {
    let (method, target, body) = parts(random, known);
    known.json(&method, &target, &body)
}

/// Method, target and body of any route.
fn parts(random: &mut ChaCha8Rng, known: &Known) -> (String, String, Vec<u8>) {
    let route = one(random, &known.routes);
    let body = match route.schema {
        Some(_) => route.body(random, known).to_string().into_bytes(),
        None => Vec::new(),
    };
    (route.method.clone(), route.target(random), body)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use serde_json::json;

    use super::super::routes;
    use super::*;

    fn known() -> Known {
        let document = json!({"paths": {
            "/v1/chat/completions": {"post": {"requestBody": {"content": {"application/json": {"schema":
                {"type": "object", "required": ["messages"], "properties": {"model": {}, "messages": {}, "max_tokens": {}}}}}}}},
            "/v1/adapters/{name}": {"get": {}, "delete": {}},
        }});
        Known {
            routes: routes::all(&document).expect("routes"),
            key: "mg-key".to_owned(),
            models: ["base".to_owned(), "steady".to_owned()],
            source: "/adapters/a0".to_owned(),
            file: "file-1".to_owned(),
        }
    }

    #[test]
    fn a_number_is_a_case_and_every_family_has_many() {
        let known = known();
        for (family, _) in SHARES {
            let of = |seed| case(family, &mut ChaCha8Rng::seed_from_u64(seed), &known);
            let mut different = 0;
            for seed in 0..60 {
                assert_eq!(of(seed), of(seed));
                different += usize::from(of(seed) != of(seed + 1));
            }
            assert!(different > 50, "{family:?}: {different}");
        }
    }

    #[test]
    fn what_changes_adapters_never_names_the_one_that_is_asked() {
        let known = known();
        for seed in 0..3000 {
            let random = &mut ChaCha8Rng::seed_from_u64(seed);
            let family = any(random, &[]);
            for step in case(family, random, &known).steps {
                let super::super::case::Step::Send(bytes) = step else {
                    continue;
                };
                let text = String::from_utf8_lossy(&bytes);
                let line = text.lines().next().unwrap_or_default();
                assert!(!line.contains("steady"), "{family:?}: {line}");
            }
        }
    }

    #[test]
    fn only_what_is_asked_for_is_drawn() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let only = [Malformation::Slow, Malformation::Forms];
        let drawn: Vec<Malformation> = (0..100).map(|_| any(&mut random, &only)).collect();
        assert!(drawn.iter().all(|family| only.contains(family)));
        assert!(only.iter().all(|family| drawn.contains(family)));
    }
}

//! The ways in which requests are malformed. Each is a function from random numbers to a case.

mod bodies;
mod chunks;
mod clients;
mod forms;
mod heads;

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

use super::{case::Case, routes::ServerFacts};
use crate::arguments::Malformation;

/// All families, and how many of a thousand requests each has.
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

/// A random family; one of `only` if that is not empty.
pub(super) fn draw(random: &mut ChaCha8Rng, only: &[Malformation]) -> Malformation {
    let is_allowed = |family: &Malformation| only.is_empty() || only.contains(family);
    let shares = || SHARES.iter().filter(|(family, _)| is_allowed(family));
    let all: u32 = shares().map(|(_, share)| share).sum();
    let mut position = random.random_range(0..all);
    for (family, share) in shares() {
        if position < *share {
            return *family;
        }
        position -= share;
    }
    Malformation::Values
}

/// A random case of a family.
pub(super) fn case(family: Malformation, random: &mut ChaCha8Rng, facts: &ServerFacts) -> Case {
    match family {
        Malformation::Values => bodies::values(random, facts),
        Malformation::Text => bodies::text(random, facts),
        Malformation::Encoding => bodies::encoding(random, facts),
        Malformation::Headers => heads::headers(random, facts),
        Malformation::Lengths => heads::lengths(random, facts),
        Malformation::Lines => heads::lines(random, facts),
        Malformation::Targets => heads::targets(random, facts),
        Malformation::Chunks => chunks::chunks(random, facts),
        Malformation::Pipelines => chunks::pipelines(random, facts),
        Malformation::Forms => forms::forms(random, facts),
        Malformation::HalfClosed => clients::half_closed(random, facts),
        Malformation::Reset => clients::reset(random, facts),
        Malformation::Slow => clients::slow(random, facts),
        Malformation::Unread => clients::unread(random, facts),
    }
}

fn pick<T: Clone>(random: &mut ChaCha8Rng, of: &[T]) -> T {
    of[random.random_range(0..of.len())].clone()
}

/// A valid request to any route, from which other families start.
fn valid_request(random: &mut ChaCha8Rng, facts: &ServerFacts) -> Vec<u8> {
    let (method, target, body) = request_parts(random, facts);
    facts.json(&method, &target, &body)
}

/// Method, target and body of a request to any route.
fn request_parts(random: &mut ChaCha8Rng, facts: &ServerFacts) -> (String, String, Vec<u8>) {
    let route = pick(random, &facts.routes);
    let body = match route.schema {
        Some(_) => route.body(random, facts).to_string().into_bytes(),
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

    fn facts() -> ServerFacts {
        let document = json!({"paths": {
            "/v1/chat/completions": {"post": {"requestBody": {"content": {"application/json": {"schema":
                {"type": "object", "required": ["messages"], "properties": {"model": {}, "messages": {}, "max_tokens": {}}}}}}}},
            "/v1/adapters/{name}": {"get": {}, "delete": {}},
        }});
        ServerFacts {
            routes: routes::all(&document).expect("routes"),
            key: "mg-key".to_owned(),
            models: ["base".to_owned(), "steady".to_owned()],
            source: "/adapters/a0".to_owned(),
            file: "file-1".to_owned(),
        }
    }

    #[test]
    fn a_seed_determines_the_case_and_every_family_has_many_cases() {
        let facts = facts();
        for (family, _) in SHARES {
            let of = |seed| case(family, &mut ChaCha8Rng::seed_from_u64(seed), &facts);
            let mut different = 0;
            for seed in 0..60 {
                assert_eq!(of(seed), of(seed));
                different += usize::from(of(seed) != of(seed + 1));
            }
            assert!(different > 50, "{family:?}: {different}");
        }
    }

    #[test]
    fn no_change_names_the_adapter_of_good_requests() {
        let facts = facts();
        for seed in 0..3000 {
            let random = &mut ChaCha8Rng::seed_from_u64(seed);
            let family = draw(random, &[]);
            for step in case(family, random, &facts).steps {
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
    fn only_the_selected_families_are_drawn() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let only = [Malformation::Slow, Malformation::Forms];
        let drawn: Vec<Malformation> = (0..100).map(|_| draw(&mut random, &only)).collect();
        assert!(drawn.iter().all(|family| only.contains(family)));
        assert!(only.iter().all(|family| drawn.contains(family)));
    }
}

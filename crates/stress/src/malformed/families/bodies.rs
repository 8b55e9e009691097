//! Invalid bodies in complete requests.

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

use super::super::mutate;
use super::super::routes::Route;
use super::super::{case::Case, routes::ServerFacts};
use super::{pick, request_parts};

/// A random route with a JSON body.
fn route<'a>(random: &mut ChaCha8Rng, facts: &'a ServerFacts) -> Option<&'a Route> {
    let routes: Vec<&Route> = facts
        .routes
        .iter()
        .filter(|route| route.schema.is_some())
        .collect();
    match routes.len() {
        0 => None,
        count => Some(routes[random.random_range(0..count)]),
    }
}

pub(super) fn values(random: &mut ChaCha8Rng, facts: &ServerFacts) -> Case {
    let Some(route) = route(random, facts) else {
        return Case::answered(super::valid_request(random, facts));
    };
    let body = route.body(random, facts);
    let body = mutate::values(random, body);
    Case::answered(facts.json(&route.method, &route.target(random), &body))
}

pub(super) fn text(random: &mut ChaCha8Rng, facts: &ServerFacts) -> Case {
    let Some(route) = route(random, facts) else {
        return Case::answered(super::valid_request(random, facts));
    };
    let body = route.body(random, facts).to_string();
    let body = mutate::bytes(random, &body);
    Case::answered(facts.json(&route.method, &route.target(random), &body))
}

pub(super) fn encoding(random: &mut ChaCha8Rng, facts: &ServerFacts) -> Case {
    let (method, target, body) = request_parts(random, facts);
    let kinds = [
        "text/plain",
        "application/xml",
        "application/json; charset=utf-16",
        "application/json; charset=\"",
        "application/json, text/plain",
        "APPLICATION/JSON",
        "application/vnd.api+json",
        "json",
        "",
        "/",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "application/x-www-form-urlencoded",
        "application/octet-stream",
        "application/json;;;;",
    ];
    let mut headers = vec![("content-type", pick(random, &kinds))];
    if random.random() {
        let codings = ["gzip", "br", "deflate", "zstd", "identity", "x", "gzip, gzip", ""];
        headers[0].1 = "application/json";
        headers.push(("content-encoding", pick(random, &codings)));
    }
    if random.random_bool(0.3) {
        let accepted = [
            "text/event-stream",
            "image/png",
            "*/*;q=0",
            "",
            ";",
            "application/openmetrics-text",
        ];
        headers.push(("accept", pick(random, &accepted)));
    }
    let bytes = facts.request(&method, &target, &headers, &body);
    // A repeated content type is ambiguous, too.
    match random.random_bool(0.1) {
        true => Case::answered(facts.request(&method, &target, &[headers[0], headers[0]], &body)),
        false => Case::answered(bytes),
    }
}

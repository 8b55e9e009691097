//! Bodies that are wrong, in requests that are none the less whole.

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

use super::super::case::{Case, Known};
use super::super::mutate;
use super::super::routes::Route;
use super::{one, parts};

/// Any route that takes JSON.
fn route<'a>(random: &mut ChaCha8Rng, known: &'a Known) -> Option<&'a Route> {
    let routes: Vec<&Route> = known
        .routes
        .iter()
        .filter(|route| route.schema.is_some())
        .collect();
    match routes.len() {
        0 => None,
        count => Some(routes[random.random_range(0..count)]),
    }
}

pub(super) fn values(random: &mut ChaCha8Rng, known: &Known) -> Case {
    let Some(route) = route(random, known) else {
        return Case::answered(super::good(random, known));
    };
    let body = route.body(random, known);
    let body = mutate::values(random, body);
    Case::answered(known.json(&route.method, &route.target(random), &body))
}

pub(super) fn text(random: &mut ChaCha8Rng, known: &Known) -> Case {
    let Some(route) = route(random, known) else {
        return Case::answered(super::good(random, known));
    };
    let body = route.body(random, known).to_string();
    let body = mutate::bytes(random, &body);
    Case::answered(known.json(&route.method, &route.target(random), &body))
}

pub(super) fn encoding(random: &mut ChaCha8Rng, known: &Known) -> Case {
    let (method, target, body) = parts(random, known);
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
    let mut headers = vec![("content-type", one(random, &kinds))];
    if random.random() {
        let codings = ["gzip", "br", "deflate", "zstd", "identity", "x", "gzip, gzip", ""];
        headers[0].1 = "application/json";
        headers.push(("content-encoding", one(random, &codings)));
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
        headers.push(("accept", one(random, &accepted)));
    }
    let bytes = known.request(&method, &target, &headers, &body);
    // The same type twice is another way to be unclear.
    match random.random_bool(0.1) {
        true => Case::answered(known.request(&method, &target, &[headers[0], headers[0]], &body)),
        false => Case::answered(bytes),
    }
}

//! Chunked bodies, and several requests on one connection.

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

use super::super::{
    case::{Case, Expected, Step},
    routes::ServerFacts,
};
use super::{pick, request_parts, valid_request};

pub(super) fn chunks(random: &mut ChaCha8Rng, facts: &ServerFacts) -> Case {
    let (method, target, body) = request_parts(random, facts);
    let codings = [
        "chunked",
        "chunked",
        "chunked",
        "chunked, chunked",
        "gzip, chunked",
        "identity",
        "chunked, identity",
        "x",
        "CHUNKED",
        "",
    ];
    let coding = pick(random, &codings);
    let mut bytes = facts.head(
        &method,
        &target,
        &[
            ("content-type", "application/json"),
            ("transfer-encoding", coding),
        ],
    );
    bytes.extend(b"\r\n");
    for part in body.chunks(random.random_range(1..60)) {
        let size = match random.random_range(0..20) {
            0 => "-1".to_owned(),
            1 => "ffffffffffffffff".to_owned(),
            2 => "fffffffffffffffffffff".to_owned(),
            3 => "x".to_owned(),
            4 => String::new(),
            5 => format!(
                "{:x};{}",
                part.len(),
                "a=b;".repeat(random.random_range(1..20_000))
            ),
            6 => format!("0x{:x}", part.len()),
            7 => format!("{:x}", part.len() + random.random_range(1..9)),
            8 => format!("{:x}", part.len().saturating_sub(1)),
            9 => format!("{:0>4000x}", part.len()),
            _ => format!("{:x}", part.len()),
        };
        let ends = ["\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\n", "", "\r"];
        bytes.extend(size.bytes());
        bytes.extend(pick(random, &ends).bytes());
        bytes.extend(part);
        bytes.extend(pick(random, &ends).bytes());
    }
    let last: Vec<u8> = match random.random_range(0..8) {
        0 => Vec::new(),
        1 => b"0\r\n".to_vec(),
        2 => b"0\r\ntrailer: x\r\n\r\n".to_vec(),
        3 => [
            b"0\r\n".to_vec(),
            b"x: y\r\n".repeat(random.random_range(1..5_000)),
            b"\r\n".to_vec(),
        ]
        .concat(),
        4 => b"0\r\n\r\n0\r\n\r\n".to_vec(),
        5 => b"0;x\r\ncontent-length: 5\r\n\r\n".to_vec(),
        _ => b"0\r\n\r\n".to_vec(),
    };
    bytes.extend(last);
    Case::ambiguous(bytes)
}

pub(super) fn pipelines(random: &mut ChaCha8Rng, facts: &ServerFacts) -> Case {
    let health = format!(
        "GET /health HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n",
        facts.key
    )
    .into_bytes();
    let count = random.random_range(1..8);
    let bad: Vec<u8> = match random.random_range(0..5) {
        0 => (0..random.random_range(1..500))
            .map(|_| random.random())
            .collect(),
        1 => {
            let mut request = valid_request(random, facts);
            let at = random.random_range(0..request.len());
            request[at] ^= 1 << random.random_range(0..8);
            request
        }
        2 => b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n{".to_vec(),
        3 => b"GET /no/such/route HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
        _ => {
            let mut request = valid_request(random, facts);
            request.truncate(random.random_range(0..request.len()));
            request
        }
    };
    // The server may read requests after the bad one as a part of it.
    let (least, bytes) = match random.random_range(0..3) {
        0 => (count, [health.repeat(count), bad].concat()),
        1 => (0, [bad, health.repeat(count)].concat()),
        _ => (count, [health.repeat(count), bad, health].concat()),
    };
    Case {
        steps: vec![Step::Send(bytes)],
        expected: Expected::AtLeast(least),
    }
}

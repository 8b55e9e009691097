//! Malformed request lines, targets, headers and content lengths.

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

use super::super::{
    case::{Case, Expected, Step},
    routes::ServerFacts,
};
use super::{pick, request_parts, valid_request};

pub(super) fn headers(random: &mut ChaCha8Rng, facts: &ServerFacts) -> Case {
    let (method, target, body) = request_parts(random, facts);
    let mut head = facts.head(&method, &target, &[("content-type", "application/json")]);
    let random_bytes =
        |random: &mut ChaCha8Rng, length| -> Vec<u8> { (0..length).map(|_| random.random()).collect() };
    for _ in 0..random.random_range(1..4) {
        let line: Vec<u8> = match random.random_range(0..16) {
            0 => (0..random.random_range(1..300))
                .flat_map(|n| format!("x-{n}: {n}\r\n").into_bytes())
                .collect(),
            1 => [
                b"x-long: ".to_vec(),
                vec![b'a'; random.random_range(1..100_000)],
                b"\r\n".to_vec(),
            ]
            .concat(),
            2 => [vec![b'a'; random.random_range(1..80_000)], b": x\r\n".to_vec()].concat(),
            3 => b"no colon\r\n".to_vec(),
            4 => b": no name\r\n".to_vec(),
            5 => b"x-folded: a\r\n  b\r\n\tc\r\n".to_vec(),
            6 => [b"x-bytes: ".to_vec(), random_bytes(random, 20), b"\r\n".to_vec()].concat(),
            7 => [random_bytes(random, 8), b": x\r\n".to_vec()].concat(),
            8 => b"x space : x\r\n".to_vec(),
            9 => b"host: \r\nhost: other\r\nhost: a b\r\n".to_vec(),
            10 => {
                let names = [
                    "upgrade: h2c\r\nconnection: upgrade, http2-settings",
                    "upgrade: websocket\r\nconnection: upgrade",
                    "connection: ,,,",
                    "te: trailers, x",
                    "expect: 100-continue",
                    "expect: 200-ok",
                    "connection: keep-alive, close",
                ];
                format!("{}\r\n", pick(random, &names)).into_bytes()
            }
            11 => {
                let keys = [
                    "Bearer",
                    "Bearer ",
                    "Bearer mg-",
                    "Basic Og==",
                    "bearer \u{e9}",
                    "Bearer x y",
                    "",
                    "Bearer mg-aaaa-bbbb",
                ];
                format!(
                    "authorization: {}\r\nx-api-key: {}\r\n",
                    pick(random, &keys),
                    pick(random, &keys)
                )
                .into_bytes()
            }
            12 => {
                let contexts = [
                    "00-0-0-00",
                    "00-00000000000000000000000000000000-0000000000000000-00",
                    "ff-x",
                    "",
                    "00-é-1-1",
                    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
                ];
                let context = pick(random, &contexts);
                format!(
                    "traceparent: {context}\r\ntracestate: {},=,x\r\n",
                    "a=b,".repeat(random.random_range(0..200))
                )
                .into_bytes()
            }
            13 => format!(
                "authorization: Bearer {}\r\n",
                "a".repeat(random.random_range(1..60_000))
            )
            .into_bytes(),
            14 => {
                let names = [
                    "x-request-id",
                    "x-forwarded-for",
                    "cookie",
                    "range",
                    "if-none-match",
                    "last-event-id",
                    "accept",
                    "origin",
                ];
                format!(
                    "{}: {}\r\n",
                    pick(random, &names),
                    pick(random, &["\u{fffd}", "-1", "\"", "a\tb", ";;;", "bytes=5-1"])
                )
                .into_bytes()
            }
            _ => b"x-line: a\rb\r\n x\n\n".to_vec(),
        };
        head.extend(line);
    }
    head.extend(format!("content-length: {}\r\n\r\n", body.len()).bytes());
    head.extend(body);
    if random.random_bool(0.2) {
        flip_bits(random, &mut head);
    }
    Case::ambiguous(head)
}

/// Flips some bits, most of them in the request line and the headers.
fn flip_bits(random: &mut ChaCha8Rng, bytes: &mut [u8]) {
    let end = bytes.len().min(300);
    for _ in 0..random.random_range(1..6) {
        bytes[random.random_range(0..end)] ^= 1 << random.random_range(0..8);
    }
}

pub(super) fn lengths(random: &mut ChaCha8Rng, facts: &ServerFacts) -> Case {
    let (method, target, mut body) = request_parts(random, facts);
    if body.is_empty() {
        body = b"{}".to_vec();
    }
    let length = body.len();
    let mut head = facts.head(&method, &target, &[("content-type", "application/json")]);
    let lines = match random.random_range(0..12) {
        0 => format!("content-length: {}\r\n", random.random_range(0..length)),
        1 => format!("content-length: {}\r\n", length + random.random_range(1..1000)),
        2 => "content-length: -1\r\n".to_owned(),
        3 => "content-length: 18446744073709551615\r\n".to_owned(),
        4 => "content-length: 99999999999999999999999\r\n".to_owned(),
        5 => format!("content-length: {}\r\n", 1_u64 << random.random_range(24..63)),
        6 => format!("content-length: {length}\r\ncontent-length: {}\r\n", length + 1),
        7 => format!("content-length: {length}, {length}\r\n"),
        8 => format!("content-length: +{length}\r\n"),
        9 => format!("content-length: 0x{length:x}\r\n"),
        10 => format!("content-length: {length}\r\ntransfer-encoding: chunked\r\n"),
        _ => "content-length: \r\n".to_owned(),
    };
    head.extend(lines.bytes());
    if random.random_bool(0.2) {
        head.extend(b"expect: 100-continue\r\n");
    }
    head.extend(b"\r\n");
    head.extend(body);
    Case::ambiguous(head)
}

pub(super) fn lines(random: &mut ChaCha8Rng, facts: &ServerFacts) -> Case {
    let request = valid_request(random, facts);
    let (_, rest) = split_line(&request);
    let line: Vec<u8> = match random.random_range(0..14) {
        0 => b"GET /health".to_vec(),
        1 => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec(),
        2 => format!(
            "{} /v1/models HTTP/1.1",
            pick(
                random,
                &[
                    "HEAD", "OPTIONS", "TRACE", "PUT", "CONNECT", "PROPFIND", "get", "G"
                ]
            )
        )
        .into_bytes(),
        3 => format!("{} / HTTP/1.1", "A".repeat(random.random_range(1..70_000))).into_bytes(),
        4 => format!(
            "GET /health HTTP/{}",
            pick(random, &["0.9", "1.2", "2", "3.0", "9.9", "", "x", "1.1.1"])
        )
        .into_bytes(),
        5 => b"GET /health HTTP/1.0".to_vec(),
        6 => b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec(),
        7 => b"GET\t/health\tHTTP/1.1".to_vec(),
        8 => b"GET  /health  HTTP/1.1".to_vec(),
        9 => b"\r\n\r\n\r\nGET /health HTTP/1.1".to_vec(),
        10 => format!(
            "GET {} HTTP/1.1",
            pick(
                random,
                &[
                    "*",
                    "http://example.com/health",
                    "example.com:443",
                    "//",
                    "http://[::1",
                    "?",
                    "#"
                ]
            )
        )
        .into_bytes(),
        11 => (0..random.random_range(1..200))
            .map(|_| random.random())
            .collect(),
        12 => format!(
            "CONNECT {} HTTP/1.1",
            pick(random, &["127.0.0.1:22", "x", "*", "a:b:c"])
        )
        .into_bytes(),
        _ => b"{\"model\": 1}".to_vec(),
    };
    Case::ambiguous([line, b"\r\n".to_vec(), rest.to_vec()].concat())
}

/// The request line, and what follows it.
fn split_line(request: &[u8]) -> (&[u8], &[u8]) {
    let at = request.windows(2).position(|part| part == b"\r\n");
    at.map_or((request, &[]), |at| (&request[..at], &request[at + 2..]))
}

pub(super) fn targets(random: &mut ChaCha8Rng, facts: &ServerFacts) -> Case {
    let (method, _, body) = request_parts(random, facts);
    let ids = [
        "%",
        "%zz",
        "%00",
        "%ff%fe",
        "%2e%2e%2f%2e%2e",
        "..",
        "../../etc/passwd",
        "....//",
        "%2F",
        "a%20b",
        "%0d%0aset-cookie:x",
        "~",
        "''",
        "%22%3e",
        "con",
        "-",
        "null",
        "%F0%9F%A6%80",
        "%ED%A0%80",
        "*",
        ";x",
        "a//b",
        ".",
        "x%2fupload",
        "/upload",
        "%2e",
        "%5c..%5c",
        "x/versions/y",
        "18446744073709551616",
        "file-",
        "batch_%00",
        "$(id)",
        "{name}",
    ];
    let queries = [
        "",
        "?",
        "?a=b",
        "?limit=-1",
        "?limit=99999999999999999999",
        "?after=%ff",
        "?order=%00",
        "?by=key,key,hour&from=x&to=-1",
        "?from=1e400",
        "?limit=1&limit=2",
        "?replace=maybe",
        "?pinned=",
        "?&&&==",
        "?name[]=1",
        "?purpose=%zz",
        "?from=0000-00-00",
        "?from=9999999999999999&to=2027-13-99",
    ];
    let route = pick(random, &facts.routes);
    let id = pick(random, &ids);
    let mut target = route.path.replace("{name}", id).replace("{id}", id) + pick(random, &queries);
    match random.random_range(0..8) {
        0 => target += &"/x".repeat(random.random_range(1..6_000)),
        1 => target = target.repeat(random.random_range(2..20)),
        2 => target = format!("/{id}{target}"),
        3 => target += &format!("?q={}", "a".repeat(random.random_range(1..16_000))),
        _ => {}
    }
    let method = if random.random_bool(0.7) {
        route.method
    } else {
        method
    };
    let mut request = facts.json(&method, &target, &body);
    if random.random_bool(0.15) {
        // Bytes that are not allowed in a target.
        let odd: [&[u8]; 6] = [b"\xff\xfe", b"\0", b" ", b"\x7f", "é".as_bytes(), b"\x0b"];
        let at = method.len() + 2;
        request.splice(at..at, pick(random, &odd).iter().copied());
        return Case::ambiguous(request);
    }
    Case {
        steps: vec![Step::Send(request)],
        // The server does not read request lines to their end that are longer than the limit of all
        // headers.
        expected: if target.len() < 30_000 {
            Expected::Answer
        } else {
            Expected::AtLeast(0)
        },
    }
}

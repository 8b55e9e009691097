//! Makes valid JSON bodies invalid: by changes of values, after which most are still JSON, and by
//! changes of bytes.

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};

/// A placeholder in a JSON tree for text that no tree can hold. It is replaced when the tree is
/// written.
const RAW: &str = "@raw@";
/// A prefix of a key that occurs twice in its object. It is removed when the tree is written.
const TWICE: &str = "@twice@";

/// Texts in the place of a value.
const VALUES: [&str; 50] = [
    "1e400",
    "-1e400",
    "1e-400",
    "99999999999999999999",
    "-99999999999999999999999999",
    "-0",
    "-0.0",
    "NaN",
    "Infinity",
    "-Infinity",
    "0x10",
    "01",
    "1.",
    "+1",
    ".5",
    "1e",
    "--1",
    "9007199254740993",
    "18446744073709551615",
    "18446744073709551616",
    "9223372036854775807",
    "-9223372036854775808",
    "4294967296",
    "2147483648",
    "1.5",
    "-1",
    "0",
    "1",
    "1e9",
    "true",
    "false",
    "null",
    "nul",
    "undefined",
    "\"\"",
    "\" \"",
    "[]",
    "{}",
    "[[]]",
    "[null]",
    "{\"\":null}",
    "\"\\ud800\"",
    "\"\\udc00\\ud800\"",
    "\"\\u0000\"",
    "\"\\q\"",
    "\"\u{0}\"",
    "\"\u{202e}\u{feff}\"",
    "'x'",
    "/**/1",
    "\"../../etc/passwd\"",
];

/// One of [`VALUES`], or a large value.
fn raw(random: &mut ChaCha8Rng) -> String {
    let large = random.random_range(1..4) * 10_000;
    match random.random_range(0..80) {
        0 => format!("\"{}\"", "a".repeat(8 * large)),
        1 => format!("\"{}\"", "\u{1f980}".repeat(large)),
        2 => format!("\"{}\"", "\\u0041".repeat(large)),
        3 => format!("[{}0]", "0,".repeat(large)),
        4 => format!("[{}\"\"]", "\"a\",".repeat(large)),
        5 => "[".repeat(100_000) + &"]".repeat(100_000),
        6 => "{\"a\":".repeat(100_000) + "1" + &"}".repeat(100_000),
        7 => "[".repeat(120) + &"]".repeat(120),
        8 => "{\"a\":".repeat(100) + "1" + &"}".repeat(100),
        9 => "9".repeat(large),
        10 => format!("1e{}", "9".repeat(large)),
        11 => {
            let entries: Vec<String> = (0..large / 4)
                .map(|entry| format!("\"k{entry}\":{entry}"))
                .collect();
            format!("{{{}}}", entries.join(","))
        }
        12 => format!("\"{}\"", "\\n".repeat(large)),
        13 => format!("[{}{{}}]", "{},".repeat(large)),
        _ => small(random).to_owned(),
    }
}

fn small(random: &mut ChaCha8Rng) -> &'static str {
    VALUES[random.random_range(0..VALUES.len())]
}

/// The text of `body` with one to three changes of its values.
pub(super) fn values(random: &mut ChaCha8Rng, mut body: Value) -> Vec<u8> {
    for _ in 0..random.random_range(1..4) {
        change(random, &mut body);
    }
    let mut text = body.to_string();
    // A list may hold hundreds of placeholders. Few of them become large, so that bodies stay below
    // the server's limit.
    let mut written = 0;
    while let Some(at) = text.find(RAW) {
        let raw = if written < 3 {
            raw(random)
        } else {
            small(random).to_owned()
        };
        written += 1;
        // The placeholder with its quotes.
        text.replace_range(at - 1..at + RAW.len() + 1, &raw);
    }
    text.replace(TWICE, "").into_bytes()
}

/// Changes one value.
fn change(random: &mut ChaCha8Rng, body: &mut Value) {
    let mut pointers = Vec::new();
    visit(body, String::new(), &mut pointers);
    let pointer = pointers[random.random_range(0..pointers.len())].clone();
    let other = pointers[random.random_range(0..pointers.len())].clone();
    let other = body.pointer(&other).cloned().unwrap_or_default();
    let what = random.random_range(0..9);
    let Some(node) = body.pointer_mut(&pointer) else {
        return;
    };
    match (what, &mut *node) {
        (0, Value::Object(fields)) if !fields.is_empty() => {
            let field = fields.keys().nth(random.random_range(0..fields.len())).cloned();
            fields.remove(&field.unwrap_or_default());
        }
        (1, Value::Object(fields)) => {
            let names = [
                "no_such_field",
                "",
                "model",
                "\u{0}",
                "__proto__",
                "MODEL",
                "stream",
                "messages\u{200b}",
            ];
            let name = names[random.random_range(0..names.len())];
            fields.insert(name.to_owned(), json!(RAW));
        }
        (2, Value::Object(fields)) if !fields.is_empty() => *fields = with_repeated_key(random, fields),
        (3, Value::Array(items)) if !items.is_empty() => {
            let item = items[random.random_range(0..items.len())].clone();
            items.extend(vec![item; random.random_range(1..200)]);
        }
        (4, node) => *node = json!([node.clone()]),
        (5, node) => *node = json!({"value": node.clone()}),
        (6, node) => *node = other,
        (7, node) => *node = json!(node.to_string()),
        (_, node) => *node = json!(RAW),
    }
}

/// The same fields, one of them twice. A tree cannot hold a key twice: the second one gets its real
/// key when the tree is written.
fn with_repeated_key(random: &mut ChaCha8Rng, fields: &Map<String, Value>) -> Map<String, Value> {
    let mut repeated = fields.clone();
    let name = fields.keys().nth(random.random_range(0..fields.len())).cloned();
    repeated.insert(format!("{TWICE}{}", name.unwrap_or_default()), json!(RAW));
    repeated
}

/// Collects the JSON pointers of `value` and all values in it.
fn visit(value: &Value, at: String, pointers: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let name = name.replace('~', "~0").replace('/', "~1");
                visit(value, format!("{at}/{name}"), pointers);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                visit(value, format!("{at}/{index}"), pointers);
            }
        }
        _ => {}
    }
    pointers.push(at);
}

/// The bytes of `text`, changed so that most are not JSON or not UTF-8.
pub(super) fn bytes(random: &mut ChaCha8Rng, text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    let at = random.random_range(0..=bytes.len());
    let insert = |bytes: &mut Vec<u8>, what: &[u8]| drop(bytes.splice(at..at, what.iter().copied()));
    match random.random_range(0..16) {
        0..3 => bytes.truncate(at),
        3..6 => {
            for _ in 0..random.random_range(1..9) {
                if let Some(byte) = random_byte(random, &mut bytes) {
                    *byte ^= 1 << random.random_range(0..8);
                }
            }
        }
        6..8 => {
            let bad: [&[u8]; 7] = [
                b"\xff",
                b"\xc0\x80",
                b"\xed\xa0\x80",
                b"\xf4\x90\x80\x80",
                b"\xe2\x82",
                b"\x80",
                b"\xfe\xff",
            ];
            insert(&mut bytes, bad[random.random_range(0..bad.len())]);
        }
        8 => insert(&mut bytes, b"\0"),
        9 => bytes = [b"\xef\xbb\xbf", &bytes[..]].concat(),
        10 => {
            let after: [&[u8]; 6] = [b"}", b" x", b"\0", b"{}", b"\xff", b"]]]]"];
            bytes.extend(after[random.random_range(0..after.len())]);
        }
        11 => bytes = text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        12 => bytes = bytes.repeat(random.random_range(2..20)),
        13 => {
            let deep: [&[u8]; 4] = [b"[", b"{\"a\":", b"[{\"a\":", b"[[],"];
            bytes = deep[random.random_range(0..deep.len())].repeat(100_000);
        }
        14 => bytes = vec![b" \n\0\xff"[random.random_range(0..4)]; random.random_range(0..100_000)],
        _ => {
            let length = random.random_range(0..2000);
            bytes = (0..length).map(|_| random.random()).collect();
        }
    }
    bytes
}

fn random_byte<'a>(random: &mut ChaCha8Rng, bytes: &'a mut [u8]) -> Option<&'a mut u8> {
    match bytes.len() {
        0 => None,
        length => bytes.get_mut(random.random_range(0..length)),
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn keys_are_repeated_and_no_placeholder_is_left() {
        let body =
            json!({"messages": [{"role": "user", "content": "a"}], "stop": ["a/b", "c~d"], "x/y": {"z": 1}});
        let (mut repeated, mut broken) = (0, 0);
        for seed in 0..2000 {
            let text = values(&mut ChaCha8Rng::seed_from_u64(seed), body.clone());
            let text = String::from_utf8(text).expect("UTF-8");
            assert!(!text.contains(RAW) && !text.contains(TWICE), "{text}");
            repeated += usize::from(text.matches("\"stop\":").count() > 1);
            broken += usize::from(serde_json::from_str::<Value>(&text).is_err());
        }
        assert!(repeated > 20 && broken > 100, "{repeated} {broken}");
    }

    #[test]
    fn a_seed_determines_the_body() {
        let of = |seed| {
            let random = &mut ChaCha8Rng::seed_from_u64(seed);
            (values(random, json!({"a": [1]})), bytes(random, "{\"a\":1}"))
        };
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }
}

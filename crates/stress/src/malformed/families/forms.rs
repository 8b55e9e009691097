//! Broken uploads of adapters and files. There are no archives among them, since the server does
//! not accept any.

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

use super::super::{case::Case, routes::ServerFacts};
use super::pick;

const BOUNDARY: &str = "b0undary";
const CONFIG: &str = r#"{"peft_type":"LORA","task_type":"CAUSAL_LM","r":4,"lora_alpha":8,"target_modules":["q_proj"],"bias":"none"}"#;
const LINE: &str =
    r#"{"custom_id":"a","method":"POST","url":"/v1/completions","body":{"prompt":"x","max_tokens":1}}"#;

/// A part of a multipart form.
struct Part {
    name: String,
    file: Option<String>,
    content: Vec<u8>,
}

pub(super) fn forms(random: &mut ChaCha8Rng, facts: &ServerFacts) -> Case {
    let is_adapter = random.random_bool(0.6);
    let (target, mut parts) = if is_adapter {
        let name = pick(
            random,
            &[
                "guest1",
                "guest2",
                "%2e%2e",
                "a/b/c",
                "..%2f..%2fx",
                "%00",
                "x%ff",
            ],
        );
        let query = pick(
            random,
            &[
                "",
                "?replace=true",
                "?replace=x",
                "?pinned=true&replace=true",
                "?more=1",
            ],
        );
        (format!("/v1/adapters/{name}/upload{query}"), adapter(random))
    } else {
        ("/v1/files".to_owned(), file(random))
    };
    for part in &mut parts {
        match random.random_range(0..12) {
            0 => {
                let names = [
                    "../../x",
                    "/etc/passwd",
                    "",
                    "adapter_model.bin",
                    "a\u{0}b",
                    "C:\\x",
                    "adapter_config.json",
                    "x.gguf",
                    "x.zip",
                ];
                part.file = Some(pick(random, &names).to_owned());
            }
            1 => part.file = None,
            2 => part.name = "\"".repeat(random.random_range(0..100)),
            3 => part.content.truncate(random.random_range(0..=part.content.len())),
            4 => {
                let length = part.content.len();
                if length > 0 {
                    part.content[random.random_range(0..length)] ^= 1 << random.random_range(0..8);
                }
            }
            _ => {}
        }
    }
    match random.random_range(0..5) {
        0 if !parts.is_empty() => drop(parts.remove(random.random_range(0..parts.len()))),
        1 if !parts.is_empty() => {
            let again = random.random_range(0..parts.len());
            let Part { name, file, content } = &parts[again];
            let again = Part {
                name: name.clone(),
                file: file.clone(),
                content: content.clone(),
            };
            parts.push(again);
        }
        _ => {}
    }
    let mut body = encode(&parts);
    match random.random_range(0..6) {
        0 => body.truncate(random.random_range(0..=body.len())),
        1 => {
            let length = body.len();
            if length > 0 {
                body[random.random_range(0..length)] ^= 1 << random.random_range(0..8);
            }
        }
        _ => {}
    }
    let kinds = [
        "multipart/form-data; boundary=b0undary",
        "multipart/form-data; boundary=other",
        "multipart/form-data; boundary=\"b0undary\"",
        "multipart/form-data",
        "multipart/mixed; boundary=b0undary",
        "application/json",
    ];
    let kind = if random.random_bool(0.8) {
        kinds[0]
    } else {
        pick(random, &kinds)
    };
    Case::answered(facts.request("POST", &target, &[("content-type", kind)], &body))
}

fn encode(parts: &[Part]) -> Vec<u8> {
    let mut body = Vec::new();
    for part in parts {
        let file = part
            .file
            .as_ref()
            .map(|file| format!("; filename=\"{file}\""))
            .unwrap_or_default();
        let head = format!(
            "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{}\"{file}\r\n\r\n",
            part.name
        );
        body.extend(head.bytes());
        body.extend(&part.content);
        body.extend(b"\r\n");
    }
    body.extend(format!("--{BOUNDARY}--\r\n").bytes());
    body
}

fn adapter(random: &mut ChaCha8Rng) -> Vec<Part> {
    let part = |name: &str, content: Vec<u8>| Part {
        name: name.to_owned(),
        file: Some(name.to_owned()),
        content,
    };
    if random.random_bool(0.2) {
        let length = random.random_range(0..4000);
        let mut gguf = b"GGUF\x03\0\0\0".to_vec();
        gguf.extend((0..length).map(|_| random.random::<u8>()));
        return vec![part("adapter.gguf", gguf)];
    }
    let headers = [
        r#"{"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight":{"dtype":"F32","shape":[4,8],"data_offsets":[0,128]}}"#,
        r#"{"x":{"dtype":"F32","shape":[18446744073709551615,2],"data_offsets":[0,8]}}"#,
        r#"{"x":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}"#,
        r#"{"x":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#,
        r#"{"x":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]},"x":1}"#,
        r#"{"__metadata__":[]}"#,
        "{}",
        "[",
        "",
    ];
    let header = pick(random, &headers);
    let lengths = [
        header.len() as u64,
        header.len() as u64,
        0,
        1,
        u64::MAX,
        1 << 40,
        header.len() as u64 + 1,
    ];
    let mut weights = pick(random, &lengths).to_le_bytes().to_vec();
    weights.extend(header.bytes());
    weights.extend(vec![0; random.random_range(0..512)]);
    let configs = [
        CONFIG,
        CONFIG,
        CONFIG,
        "{}",
        "[]",
        "{",
        "null",
        r#"{"peft_type":"LORA","r":1e400}"#,
        r#"{"peft_type":"NONSENSE"}"#,
        r#"{"peft_type":"LORA","r":-1,"lora_alpha":1,"target_modules":"("}"#,
        r#"{"peft_type":"LORA","r":4294967295,"lora_alpha":1,"target_modules":"((a{1,1000}){1,1000}){1,1000}"}"#,
    ];
    vec![
        part("adapter_config.json", pick(random, &configs).as_bytes().to_vec()),
        part("adapter_model.safetensors", weights),
    ]
}

fn file(random: &mut ChaCha8Rng) -> Vec<Part> {
    let contents = [LINE, "{", "", "\n\n\n", "\u{0}", "[]", "{\"custom_id\":1}"];
    let content = pick(random, &contents).repeat(random.random_range(1..20));
    let text = |name: &str, content: &str| Part {
        name: name.to_owned(),
        file: None,
        content: content.as_bytes().to_vec(),
    };
    let mut parts = vec![
        text(
            "purpose",
            pick(random, &["batch", "batch", "batch", "assistants", "", "\u{0}"]),
        ),
        Part {
            name: "file".to_owned(),
            file: Some("lines.jsonl".to_owned()),
            content: content.into_bytes(),
        },
    ];
    if random.random_bool(0.3) {
        parts.push(text("expires_after[anchor]", pick(random, &["created_at", "x"])));
        parts.push(text(
            "expires_after[seconds]",
            pick(random, &["3600", "-1", "1e9", "99999999999999999999"]),
        ));
    }
    parts
}

//! What a server logs, and what it never logs.

use crate::program::{run, serving::Serving};
use serde_json::{Value, json};

/// A word of the prompt, and a word of the answer.
const PROMPT: &str = "xylophonist";
const ANSWER: &str = "quetzalcoatl";

/// Sends requests in every dialect to a server with a key. Returns its log and the secret of the
/// key.
fn log_of_requests(more: &[&str]) -> (String, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().to_str().expect("UTF-8");
    let added = run(&["keys", "add", "boss", "--role", "admin", "--data", data]);
    let secret = added
        .stdout
        .split_whitespace()
        .find(|word| word.starts_with("mg-"));
    let secret = secret.expect("the key is shown").to_owned();
    let mut arguments = vec!["--log", "trace", "serve", "--threads", "1", "--data", data];
    arguments.extend(more);
    let server = Serving::start(&arguments, &[]);
    let key = format!("authorization: Bearer {secret}");
    let wrong = format!("x-api-key: {secret}x");
    let messages = json!([{"role": "user", "content": format!("Say {PROMPT}")}]);
    let grammar = json!({"choice": [ANSWER]});
    for (path, body) in [
        (
            "/v1/chat/completions",
            json!({"model": "", "messages": messages, "max_tokens": 20, "structured_outputs": grammar}),
        ),
        (
            "/v1/completions",
            json!({"model": "", "prompt": PROMPT, "max_tokens": 20, "structured_outputs": grammar, "stream": true}),
        ),
        (
            "/generate",
            json!({"inputs": PROMPT, "parameters": {"max_new_tokens": 2}}),
        ),
        (
            "/v1/completions",
            json!({"model": "", "prompt": PROMPT, PROMPT: PROMPT}),
        ),
        ("/v1/chat/completions", json!({"model": "", "messages": PROMPT})),
    ] {
        let (status, answer) = server.ask("POST", path, &[&key], Some(&body));
        assert!(matches!(status, 200 | 400), "{status} {answer}");
        assert_eq!(server.ask("POST", path, &[&wrong], Some(&body)).0, 401);
    }
    (server.stop(), secret)
}

#[test]
fn neither_prompts_nor_answers_nor_keys_are_logged() {
    let (log, secret) = log_of_requests(&[]);
    assert!(
        log.contains("/v1/chat/completions"),
        "requests are logged:\n{log}"
    );
    for hidden in [PROMPT, ANSWER, &secret] {
        let line = log.lines().find(|line| line.contains(hidden));
        assert_eq!(line, None, "`{hidden}` is logged");
    }
}

#[test]
fn with_the_flag_prompts_and_answers_are_logged_but_no_keys() {
    let (log, secret) = log_of_requests(&["--log-prompts", "--log-format", "json"]);
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let texts = |message: &str| -> Vec<&str> {
        let lines = lines.iter().filter(|line| line["message"] == message);
        lines.filter_map(|line| line["text"].as_str()).collect()
    };
    let prompts = texts("prompt");
    assert_eq!(prompts.len(), 3, "{prompts:?}");
    assert!(prompts.iter().all(|text| text.contains(PROMPT)), "{prompts:?}");
    let answers = texts("answer");
    assert_eq!(
        answers.iter().filter(|text| text.contains(ANSWER)).count(),
        2,
        "{answers:?}"
    );
    assert!(
        lines.iter().any(|line| line["level"] == "WARN"
            && line["message"]
                .as_str()
                .is_some_and(|text| text.contains("--log-prompts"))),
        "it says so at the start"
    );
    assert!(!log.contains(&secret));
}

//! How a request chooses its adapter, and at which scale.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::{Value, json};
use support::{Answer, BASE, Server, hash, server};

/// A completion of `a` in one token, with more fields.
async fn complete(server: &Server, fields: Value) -> Answer {
    let mut body = json!({"prompt": "a", "max_tokens": 1});
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    server.post("/v1/completions", body).await
}

fn text(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()["choices"][0]["text"].as_str().unwrap().to_owned()
}

/// The field at fault and the message.
fn refusal(answer: &Answer) -> (String, String) {
    assert_eq!(answer.status, 400, "{}", answer.text);
    let error = &answer.json()["error"];
    let part = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
    (part("param"), part("message"))
}

#[tokio::test]
async fn a_scale_is_applied_and_echoed() {
    let server = server();
    for (scale, letter) in [
        (json!(1), "d"),
        (json!(3), "h"),
        (json!(0.5), "c"),
        (json!(0), "b"),
    ] {
        let answer = complete(&server, json!({"model": "team/three", "adapter_scale": scale})).await;
        assert_eq!(text(&answer), letter, "{scale}");
        assert_eq!(answer.header("x-multigraft-adapter"), "team/three");
        assert_eq!(answer.header("x-multigraft-adapter-hash"), hash(3));
        assert_eq!(answer.header("x-multigraft-adapter-scale"), scale.to_string());
        let mark = match scale == 1 {
            true => String::new(),
            false => format!("@{scale}"),
        };
        assert_eq!(
            answer.json()["system_fingerprint"],
            format!("multigraft-{}{mark}", hash(3))
        );
    }
    let base = complete(&server, json!({"model": BASE, "adapter_scale": 1})).await;
    assert_eq!(text(&base), "b");
    assert!(!base.headers.contains_key("x-multigraft-adapter-scale"));
    let chat = json!({"model": "two", "adapter_scale": 2, "max_tokens": 1,
        "messages": [{"role": "user", "content": "a"}]});
    let chat = server.post("/v1/chat/completions", chat).await;
    assert_eq!(chat.header("x-multigraft-adapter-scale"), "2");
    let parameters = json!({"adapter_id": "two", "adapter_scale": 2, "max_new_tokens": 1, "details": true});
    let answer = server
        .post("/generate", json!({"inputs": "a", "parameters": parameters}))
        .await;
    assert_eq!(answer.json()["generated_text"], "d");
    assert_eq!(answer.json()["details"]["adapter_scale"], 2.0);
}

#[tokio::test]
async fn a_scale_is_a_number_and_an_adapters() {
    let server = server();
    for (fields, message) in [
        (
            json!({"model": "two", "adapter_scale": "half"}),
            "`adapter_scale` is \"half\", but must be a number",
        ),
        (
            json!({"model": "two", "adapter_scale": 1e300}),
            "`adapter_scale` is larger than a 32-bit float can be",
        ),
        (
            json!({"model": BASE, "adapter_scale": 0.5}),
            "`adapter_scale` is 0.5, but the request asks for the base, which has no scale",
        ),
    ] {
        let refused = refusal(&complete(&server, fields).await);
        assert_eq!(refused, ("adapter_scale".to_owned(), message.to_owned()));
    }
    let parameters = json!({"adapter_scale": 2});
    let refused = server
        .post("/generate", json!({"inputs": "a", "parameters": parameters}))
        .await;
    assert_eq!(refused.status, 422);
    assert!(
        refused.text.contains("`parameters.adapter_scale` is 2"),
        "{}",
        refused.text
    );
}

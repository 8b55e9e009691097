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

#[tokio::test]
async fn llama_cpps_lora_field_chooses_by_number() {
    let server = server();
    for (fields, letter, name) in [
        (json!({"lora": []}), "b", BASE),
        (json!({"lora": [{"id": 0, "scale": 0}]}), "b", BASE),
        (
            json!({"model": BASE, "lora": [{"id": 1, "scale": 1.0}]}),
            "d",
            "team/three",
        ),
        (
            json!({"lora": [{"id": 1, "scale": 0.0}, {"id": 0, "scale": 2.0}]}),
            "d",
            "two",
        ),
    ] {
        let answer = complete(&server, fields.clone()).await;
        assert_eq!(text(&answer), letter, "{fields}");
        assert_eq!(answer.header("x-multigraft-adapter"), name);
    }
}

#[tokio::test]
async fn what_is_wrong_in_llama_cpps_lora_field_is_named() {
    let server = server();
    for (fields, field, message) in [
        (
            json!({"model": "two", "lora": []}),
            "lora",
            "`lora` chooses adapters, but `model` asks for `two` already; leave one of them out",
        ),
        (
            json!({"lora": [{"id": 2, "scale": 1}]}),
            "lora[0].id",
            "`lora[0].id` is 2, but GET /lora-adapters lists 2 adapters, counted from 0",
        ),
        (
            json!({"lora": [{"id": 0, "scale": 1}, {"id": 0, "scale": 1}]}),
            "lora[1].id",
            "`lora[1].id` is 0, as in an entry before it",
        ),
        (
            json!({"lora": [{"id": 0}]}),
            "lora[0].scale",
            "`lora[0].scale` is missing",
        ),
        (
            json!({"lora": [{"id": 0, "scale": 1, "x": 1}]}),
            "lora[0].x",
            "`lora[0].x` is not a field that this server knows",
        ),
        (json!({"lora": 1}), "lora", "`lora` is 1, but must be a list"),
        (
            json!({"lora": [], "adapter_scale": 2}),
            "adapter_scale",
            "`adapter_scale` is not allowed with `lora`, which has scales of its own",
        ),
    ] {
        let refused = refusal(&complete(&server, fields).await);
        assert_eq!(refused, (field.to_owned(), message.to_owned()));
    }
    let nobody = complete(&server, json!({"model": "nobody", "lora": []})).await;
    assert_eq!(nobody.status, 404);
}

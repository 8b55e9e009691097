//! How a request chooses its adapter, and at which scale.

use serde_json::{Value, json};

use crate::support::{Answer, BASE, Options, Server, hash, server, server_with, write_adapter};

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
            "`adapter_scale` is not allowed with `lora`, which has its own",
        ),
    ] {
        let refused = refusal(&complete(&server, fields).await);
        assert_eq!(refused, (field.to_owned(), message.to_owned()));
    }
    let nobody = complete(&server, json!({"model": "nobody", "lora": []})).await;
    assert_eq!(nobody.status, 404);
}

/// A server with the adapters `a` and `b` of files, beside `two` and `team/three`.
async fn with_files() -> (Server, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let server = server_with(Options {
        allowed: vec![multigraft_sources::AllowedSource::Folder(dir.path().to_owned())],
        ..Options::default()
    });
    for (name, alpha) in [("a", 1), ("b", 2)] {
        let source = write_adapter(&dir.path().join(name), alpha);
        let added = server
            .post("/v1/adapters", json!({"name": name, "source": source}))
            .await;
        assert_eq!(added.status, 201, "{}", added.text);
    }
    (server, dir)
}

async fn generate(server: &Server, parameters: Value) -> Answer {
    let mut parameters = parameters;
    parameters["max_new_tokens"] = 1.into();
    server
        .post("/generate", json!({"inputs": "a", "parameters": parameters}))
        .await
}

#[tokio::test]
async fn several_adapters_answer_as_one_that_has_a_hash_of_its_own() {
    let (server, _dir) = with_files().await;
    let made_by = |answer: &Answer| {
        assert_eq!(answer.status, 200, "{}", answer.text);
        let header = |name: &str| answer.header(name).to_owned();
        (
            header("x-multigraft-adapter"),
            header("x-multigraft-adapter-hash"),
        )
    };
    let several = json!([{"id": "a", "weight": 0.5}, {"id": "b"}]);
    let (name, sum) = made_by(&complete(&server, json!({"adapters": several})).await);
    assert_eq!(name, "a@0.5+b@1");
    let again = complete(&server, json!({"model": BASE, "adapters": several})).await;
    assert_eq!(made_by(&again), (name, sum.clone()));
    // llama.cpp's field is the same sum.
    let numbered = json!({"lora": [{"id": 2, "scale": 0.5}, {"id": 3, "scale": 1}]});
    assert_eq!(made_by(&complete(&server, numbered).await).1, sum);
    assert_eq!(
        made_by(&generate(&server, json!({"adapters": several})).await).1,
        sum
    );
    let mut hashes = vec![sum];
    for (more, name) in [
        (json!({}), "linear(a@1+b@1)"),
        (json!({"weights": [1, 2]}), "linear(a@1+b@2)"),
        (json!({"merge_strategy": "ties", "density": 0.5}), "ties(a@1+b@1)"),
        (
            json!({"merge_strategy": "ties", "density": 0.25}),
            "ties(a@1+b@1)",
        ),
        (
            json!({"merge_strategy": "ties", "density": 0.25, "majority_sign_method": "frequency"}),
            "ties(a@1+b@1)",
        ),
        (
            json!({"merge_strategy": "dare_linear", "density": 0.5}),
            "dare_linear(a@1+b@1)",
        ),
        (
            json!({"merge_strategy": "dare_ties", "density": 0.5}),
            "dare_ties(a@1+b@1)",
        ),
    ] {
        let mut merged = more.clone();
        merged["ids"] = json!(["a", "b"]);
        let (called, hash) = made_by(&generate(&server, json!({"merged_adapters": merged})).await);
        assert_eq!(called, name);
        assert!(!hashes.contains(&hash), "{more}");
        hashes.push(hash);
    }
    // One of them is itself, at that scale.
    let one = complete(&server, json!({"adapters": [{"id": "a", "weight": 0.5}]})).await;
    assert_eq!(made_by(&one).0, "a");
    assert_eq!(one.header("x-multigraft-adapter-scale"), "0.5");
}

#[tokio::test]
async fn what_is_wrong_with_several_adapters_is_named() {
    let (server, _dir) = with_files().await;
    let many: Vec<Value> = (0..17).map(|_| json!({"id": "a"})).collect();
    for (fields, field, part) in [
        (json!({"adapters": []}), "adapters", "names no adapter"),
        (
            json!({"adapters": many}),
            "adapters",
            "names 17 adapters, but at most 16",
        ),
        (
            json!({"adapters": [{"weight": 1}]}),
            "adapters[0].id",
            "is missing",
        ),
        (
            json!({"adapters": [{"id": "a", "weight": 1e300}]}),
            "adapters[0].weight",
            "is larger than",
        ),
        (
            json!({"adapters": [{"id": BASE}, {"id": "a"}]}),
            "adapters",
            "which is the base and no adapter",
        ),
        (
            json!({"model": "a", "adapters": [{"id": "b"}]}),
            "adapters",
            "`model` asks for `a` already",
        ),
        (
            json!({"lora": [], "adapters": []}),
            "adapters",
            "is not allowed with `lora`",
        ),
    ] {
        let (at, message) = refusal(&complete(&server, fields).await);
        assert_eq!(at, field, "{message}");
        assert!(message.contains(part), "{message}");
    }
    let nobody = complete(&server, json!({"adapters": [{"id": "a"}, {"id": "nobody"}]})).await;
    assert_eq!(nobody.status, 404);
    for (merged, part) in [
        (
            json!({"ids": []}),
            "`parameters.merged_adapters` names no adapter",
        ),
        (
            json!({"ids": ["a", "b"], "weights": [1]}),
            "`parameters.merged_adapters.weights` has 1 entries, but `ids` has 2",
        ),
        (
            json!({"ids": ["a", "b"], "weights": [1, "x"]}),
            "`parameters.merged_adapters.weights` must be a list of numbers",
        ),
        (
            json!({"ids": ["a", "b"], "merge_strategy": "svd"}),
            "`parameters.merged_adapters.merge_strategy` is \"svd\", but must be \"linear\", \"ties\"",
        ),
        (
            json!({"ids": ["a", "b"], "merge_strategy": "ties"}),
            "`parameters.merged_adapters.density` is missing",
        ),
        (
            json!({"ids": ["a", "b"], "merge_strategy": "ties", "density": 0}),
            "`parameters.merged_adapters.density` is 0, but must be above 0, at most 1",
        ),
        (
            json!({"ids": ["a", "b"], "merge_strategy": "dare_ties", "density": 1.5}),
            "`parameters.merged_adapters.density` is 1.5",
        ),
        (
            json!({"ids": ["a", "b"], "majority_sign_method": "loudest"}),
            "`parameters.merged_adapters.majority_sign_method` is \"loudest\"",
        ),
    ] {
        let refused = generate(&server, json!({"merged_adapters": merged})).await;
        assert_eq!(refused.status, 422, "{}", refused.text);
        let body = refused.json();
        let message = body["error"].as_str().unwrap();
        assert!(message.contains(part), "{message}");
    }
    let both = json!({"adapter_id": "a", "merged_adapters": {"ids": ["a", "b"]}});
    let refused = generate(&server, both).await;
    assert!(
        refused
            .text
            .contains("is not allowed with `parameters.adapter_id`"),
        "{}",
        refused.text
    );
}

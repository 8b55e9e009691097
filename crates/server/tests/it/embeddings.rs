//! Embeddings over HTTP: OpenAI's route and LoRAX's.

use multigraft_engine::EngineOptions;
use serde_json::{Value, json};

use crate::support::{BASE, Options, hash, server, server_with};

/// The vector of length 1 in the direction of the one that the backend gives: the token, the
/// adapter's step, 0.
fn direction(token: f64, step: f64) -> Vec<f64> {
    let length = token.hypot(step);
    vec![token / length, step / length, 0.0]
}

fn close(got: &Value, expected: &[f64]) -> bool {
    let got: Vec<f64> = got
        .as_array()
        .unwrap()
        .iter()
        .map(|value| value.as_f64().unwrap())
        .collect();
    got.len() == expected.len() && got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6)
}

#[tokio::test]
async fn inputs_of_all_forms_become_vectors_in_their_order() {
    let server = server();
    let (a, b) = (f64::from(b'a'), f64::from(b'b'));
    let mean = (a + b) / 2.0;
    for (input, tokens, expected) in [
        (json!("ab"), 2, vec![mean]),
        (json!(["ab", "b"]), 3, vec![mean, b]),
        (json!([97, 98]), 2, vec![mean]),
        (json!([[98], [97, 98]]), 3, vec![b, mean]),
    ] {
        let answer = server
            .post("/v1/embeddings", json!({"model": BASE, "input": input}))
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let body = answer.json();
        assert_eq!((&body["object"], &body["model"]), (&json!("list"), &json!(BASE)));
        assert_eq!(body["usage"]["prompt_tokens"], tokens, "{input}");
        assert_eq!(body["usage"]["total_tokens"], tokens);
        let data = body["data"].as_array().unwrap();
        assert_eq!(data.len(), expected.len());
        for (index, (entry, token)) in data.iter().zip(expected).enumerate() {
            assert_eq!(
                (&entry["object"], &entry["index"]),
                (&json!("embedding"), &json!(index))
            );
            assert!(close(&entry["embedding"], &direction(token, 1.0)), "{entry}");
        }
    }
}

#[tokio::test]
async fn an_adapter_embeds_at_its_scale_and_the_answer_says_so() {
    let server = server();
    let body = json!({"model": "two", "input": "b", "pooling": "last", "user": "u"});
    let answer = server.post("/v1/embeddings", body).await;
    assert!(
        close(&answer.json()["data"][0]["embedding"], &direction(98.0, 2.0)),
        "{}",
        answer.text
    );
    assert_eq!(answer.header("x-multigraft-adapter"), "two");
    assert_eq!(answer.header("x-multigraft-adapter-hash"), hash(2));
    let body = json!({"model": "two", "input": "b", "adapter_scale": 3.0});
    let answer = server.post("/v1/embeddings", body).await;
    assert!(
        close(&answer.json()["data"][0]["embedding"], &direction(98.0, 4.0)),
        "{}",
        answer.text
    );
}

#[tokio::test]
async fn base64_is_the_floats_bytes() {
    let body = |format: &str| json!({"model": "team/three", "input": "xyz", "encoding_format": format});
    let server = server();
    let floats = server.post("/v1/embeddings", body("float")).await.json();
    let encoded = server.post("/v1/embeddings", body("base64")).await.json();
    let encoded = encoded["data"][0]["embedding"].as_str().unwrap();
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(encoded).unwrap();
    let decoded: Vec<f32> = bytes
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
        .collect();
    let floats: Vec<f32> = serde_json::from_value(floats["data"][0]["embedding"].clone()).unwrap();
    assert_eq!(decoded, floats);
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let server = server_with(Options {
        context: 8,
        engine: EngineOptions {
            max_waiting: 3,
            ..EngineOptions::default()
        },
        ..Options::default()
    });
    for (body, status, message) in [
        (json!({"model": BASE}), 400, "`input` is missing"),
        (
            json!({"model": BASE, "input": ""}),
            400,
            "`input` has no tokens: there is nothing to embed",
        ),
        (
            json!({"model": BASE, "input": ["a", ""]}),
            400,
            "`input[1]` has no tokens: there is nothing to embed",
        ),
        (
            json!({"model": BASE, "input": ["a", "123456789"]}),
            400,
            "`input[1]` has 9 tokens, but a sequence may have at most 8 here; embed it in parts",
        ),
        (
            json!({"model": BASE, "input": {}}),
            400,
            "`input` must be text, token ids, or a list of either",
        ),
        (
            json!({"model": BASE, "input": [258]}),
            400,
            "`input` has something that is no token of the vocabulary",
        ),
        (
            json!({"model": BASE, "input": ["a", "b", "c", "d"]}),
            400,
            "`input` has 4 entries, but may have at most 3",
        ),
        (
            json!({"model": BASE, "input": "a", "dimensions": 2}),
            400,
            "`dimensions` is 2, but embeddings of this model have 3, and no meaning cut short",
        ),
        (
            json!({"model": BASE, "input": "a", "encoding_format": "int8"}),
            400,
            "`encoding_format` is \"int8\", but must be \"float\" or \"base64\"",
        ),
        (
            json!({"model": BASE, "input": "a", "pooling": "max"}),
            400,
            "`pooling` is \"max\", but must be \"mean\" (of all positions) or \"last\" (the last position)",
        ),
        (
            json!({"model": BASE, "input": "a", "temperature": 1}),
            400,
            "`temperature` is not a field that this server knows",
        ),
    ] {
        let answer = server.post("/v1/embeddings", body).await;
        assert_eq!(answer.status, status, "{}", answer.text);
        assert_eq!(answer.json()["error"]["message"], message);
    }
    let answer = server
        .post("/v1/embeddings", json!({"model": "none", "input": "a"}))
        .await;
    assert_eq!(answer.status, 404, "{}", answer.text);
}

#[tokio::test]
async fn lorax_asks_for_one_text_at_a_time() {
    let server = server();
    // All that its client sends.
    let body = json!({"inputs": "b", "parameters": null, "stream": false});
    let answer = server.post("/embed", body).await;
    assert!(
        close(&answer.json()["embeddings"], &direction(98.0, 1.0)),
        "{}",
        answer.text
    );
    let body = json!({"inputs": "ab", "parameters": {"adapter_id": "two", "pooling": "last"}});
    let answer = server.post("/embed", body).await;
    assert!(
        close(&answer.json()["embeddings"], &direction(98.0, 2.0)),
        "{}",
        answer.text
    );
    assert_eq!(answer.header("x-multigraft-adapter"), "two");
    for (body, status, message) in [
        (json!({"inputs": ""}), 422, "`inputs` is missing"),
        (
            json!({"inputs": "a", "parameters": {"details": true}}),
            422,
            "`parameters.details` is not a field that this server knows",
        ),
        (
            json!({"inputs": "a", "parameters": {"api_token": "t"}}),
            422,
            "`parameters.api_token`: a token of the request's own",
        ),
    ] {
        let answer = server.post("/embed", body).await;
        assert_eq!(answer.status, status, "{}", answer.text);
        assert!(
            answer.json()["error"].as_str().unwrap().starts_with(message),
            "{}",
            answer.text
        );
    }
}

#[tokio::test]
async fn embeddings_are_counted_as_prompts() {
    let server = server();
    server
        .post("/v1/embeddings", json!({"model": "two", "input": ["abc", "de"]}))
        .await;
    let metrics = server.get("/metrics").await.text;
    for line in [
        "multigraft_prompt_tokens_total{adapter=\"two\"} 5",
        "multigraft_requests_total{adapter=\"two\",outcome=\"finished\"} 2",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

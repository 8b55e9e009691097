//! TGI's dialect, as its clients see it.

use serde_json::{Value, json};

use crate::support::{BASE, END, hash, server};

fn request(inputs: &str, parameters: Value) -> Value {
    json!({"inputs": inputs, "parameters": parameters})
}

#[tokio::test]
async fn generate_is_greedy_and_short_by_default() {
    let answer = server().post("/generate", json!({"inputs": "w"})).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json(), json!({"generated_text": "xyz", "details": null}));
    assert_eq!(answer.header("x-multigraft-adapter"), BASE);
    assert_eq!(answer.header("x-prompt-tokens"), "1");
    assert_eq!(answer.header("x-generated-tokens"), "4");
    assert_eq!(answer.header("x-compute-characters"), "1");
    for name in [
        "x-compute-type",
        "x-compute-time",
        "x-total-time",
        "x-validation-time",
        "x-queue-time",
    ] {
        assert!(!answer.header(name).is_empty());
    }
    for name in ["x-inference-time", "x-time-per-token"] {
        assert!(!answer.header(name).is_empty());
    }
}

#[tokio::test]
async fn adapter_id_picks_the_adapter_and_nothing_is_the_base() {
    let server = server();
    for (adapter, text, hash) in [
        (json!("two"), "uwy", hash(2)),
        (json!("team/three"), "vy", hash(3)),
        (Value::Null, "tuvwxyz", "base".to_owned()),
        (json!(""), "tuvwxyz", "base".to_owned()),
        (json!(BASE), "tuvwxyz", "base".to_owned()),
        (json!("tgi"), "tuvwxyz", "base".to_owned()),
    ] {
        let answer = server
            .post("/generate", request("s", json!({"adapter_id": adapter})))
            .await;
        assert_eq!(answer.json()["generated_text"], text, "{adapter}");
        assert_eq!(answer.header("x-multigraft-adapter-hash"), hash);
    }
}

#[tokio::test]
async fn an_unknown_adapter_is_404_in_tgis_shape_on_every_route() {
    let server = server();
    for path in ["/", "/generate", "/generate_stream"] {
        let answer = server
            .post(path, request("s", json!({"adapter_id": "nobody"})))
            .await;
        assert_eq!(answer.status, 404, "{path}");
        let body = answer.json();
        assert_eq!(body["error_type"], "not_found");
        let message = body["error"].as_str().expect("a message");
        assert!(
            message.starts_with("The model `nobody` does not exist."),
            "{message}"
        );
    }
}

#[tokio::test]
async fn details_have_tokens_prefill_alternatives_and_the_adapter() {
    let parameters = json!({
        "adapter_id": "two", "details": true, "decoder_input_details": true, "top_n_tokens": 2,
    });
    let body = server().post("/generate", request("aw", parameters)).await.json();
    assert_eq!(body["generated_text"], "y");
    let details = &body["details"];
    assert_eq!(details["finish_reason"], "eos_token");
    assert_eq!(details["generated_tokens"], 2);
    assert_eq!(details["seed"], Value::Null);
    assert_eq!(details["adapter_id"], "two");
    assert_eq!(details["adapter_hash"], hash(2));
    assert_eq!(
        details["prefill"][0],
        json!({"id": 97, "text": "a", "logprob": null})
    );
    assert!(
        details["prefill"][1]["logprob"]
            .as_f64()
            .is_some_and(|logprob| logprob < -20.0)
    );
    assert_eq!(details["tokens"][0]["text"], "y");
    assert_eq!(details["tokens"][0]["special"], false);
    let end = &details["tokens"][1];
    assert_eq!(
        (&end["id"], &end["text"], &end["special"]),
        (&json!(END), &json!("<end>"), &json!(true))
    );
    assert_eq!(details["top_tokens"][0][1]["text"], "!");
}

#[tokio::test]
async fn a_stream_ends_with_the_whole_text_and_its_details() {
    let server = server();
    let parameters = json!({"adapter_id": "team/three", "details": true, "return_full_text": true});
    let answer = server.post("/generate_stream", request("s", parameters)).await;
    assert_eq!(answer.header("content-type"), "text/event-stream");
    assert_eq!(answer.header("x-multigraft-adapter"), "team/three");
    let (events, done) = answer.chunks();
    assert!(!done, "TGI's streams have no end mark");
    let indices: Vec<_> = events.iter().map(|event| event["index"].as_u64()).collect();
    assert_eq!(indices, [Some(1), Some(2), Some(3)]);
    let (last, rest) = events.split_last().expect("events");
    assert!(
        rest.iter()
            .all(|event| event["generated_text"].is_null() && event["details"].is_null())
    );
    assert!(events.iter().all(|event| event["token"]["logprob"].is_number()));
    assert_eq!(last["generated_text"], "svy");
    assert_eq!(last["token"]["special"], true);
    assert_eq!(last["details"]["finish_reason"], "eos_token");
    assert_eq!(last["details"]["generated_tokens"], 3);
    assert_eq!(last["details"]["input_length"], 1);
    assert_eq!(last["details"]["adapter_hash"], hash(3));
}

#[tokio::test]
async fn token_texts_of_a_stream_add_up_however_it_ends() {
    let server = server();
    for (parameters, text, reason) in [
        (json!({"max_new_tokens": 3}), "bcd", "length"),
        (json!({"stop": ["de"]}), "bcde", "stop_sequence"),
        (json!({"stop": ["dx"], "max_new_tokens": 3}), "bcd", "length"),
        (
            json!({"ignore_eos_token": true, "max_new_tokens": 2}),
            "bc",
            "length",
        ),
    ] {
        let mut parameters = parameters;
        parameters["details"] = json!(true);
        let (events, _) = server
            .post("/generate_stream", request("a", parameters.clone()))
            .await
            .chunks();
        let streamed: String = events
            .iter()
            .filter_map(|event| event["token"]["text"].as_str())
            .collect();
        let last = events.last().expect("events");
        assert_eq!(
            (streamed.as_str(), &last["generated_text"]),
            (text, &json!(text)),
            "{parameters}"
        );
        assert_eq!(last["details"]["finish_reason"], reason, "{parameters}");
        let whole = server.post("/generate", request("a", parameters)).await.json();
        assert_eq!(whole["generated_text"], text);
        assert_eq!(whole["details"]["finish_reason"], reason);
    }
}

#[tokio::test]
async fn the_root_answers_in_a_list_or_a_stream() {
    let server = server();
    let answer = server.post("/", request("w", json!({}))).await;
    assert_eq!(answer.json(), json!([{"generated_text": "xyz", "details": null}]));
    let (events, _) = server
        .post("/", json!({"inputs": "w", "stream": true}))
        .await
        .chunks();
    assert_eq!(events.last().expect("events")["generated_text"], "xyz");
    for (path, stream) in [("/generate", true), ("/generate_stream", false)] {
        let answer = server.post(path, json!({"inputs": "w", "stream": stream})).await;
        assert_eq!(answer.status, 422, "{path}");
    }
}

#[tokio::test]
async fn a_prompt_is_truncated_from_the_left() {
    let parameters = json!({"truncate": 1, "return_full_text": true});
    let answer = server().post("/generate", request("cbw", parameters)).await;
    assert_eq!(answer.header("x-prompt-tokens"), "1");
    assert_eq!(answer.json()["generated_text"], "cbwxyz");
}

#[tokio::test]
async fn drawing_reports_its_seed_and_repeats_with_it() {
    let server = server();
    let draw = async |seed: Value| {
        let parameters = json!({"do_sample": true, "temperature": 20.0, "seed": seed, "details": true});
        server.post("/generate", request("a", parameters)).await.json()
    };
    let first = draw(Value::Null).await;
    let seed = first["details"]["seed"].clone();
    assert!(seed.is_u64(), "{seed}");
    assert_eq!(draw(seed).await["generated_text"], first["generated_text"]);
}

#[tokio::test]
async fn what_cannot_be_done_is_422_and_names_the_field() {
    let server = server();
    for (parameters, field) in [
        (json!({"watermark": true}), "watermark"),
        (json!({"grammar": {"type": "regex", "value": "("}}), "grammar"),
        (json!({"best_of": 2}), "best_of"),
        (json!({"best_of": 2, "do_sample": true, "seed": 1}), "best_of"),
        (json!({"temperature": -0.5}), "temperature"),
        (json!({"top_p": 1.5}), "top_p"),
        (json!({"typical_p": 0}), "typical_p"),
        (json!({"frequency_penalty": 5}), "frequency_penalty"),
        (json!({"max_new_tokens": 100_000}), "max_new_tokens"),
        (json!({"stop": [""]}), "stop"),
        (
            json!({"adapter_id": "a", "adapter_source": "pbase"}),
            "adapter_source",
        ),
        (json!({"unheard_of": 1}), "unheard_of"),
    ] {
        let answer = server.post("/generate", request("a", parameters)).await;
        assert_eq!(answer.status, 422, "{field}: {}", answer.text);
        let body = answer.json();
        assert_eq!(body["error_type"], "validation");
        let message = body["error"].as_str().expect("a message");
        assert!(message.contains(&format!("parameters.{field}")), "{message}");
    }
    let parameters = json!({"details": true, "decoder_input_details": true});
    let answer = server.post("/generate_stream", request("a", parameters)).await;
    assert_eq!(answer.status, 422);
}

#[tokio::test]
async fn the_best_of_several_answers_comes_with_the_others() {
    let server = server();
    let parameters = json!({"best_of": 8, "do_sample": true, "temperature": 5.0, "max_new_tokens": 12, "details": true,
        "decoder_input_details": true, "top_n_tokens": 1, "ignore_eos_token": true});
    let answer = server.post("/generate", request("ab", parameters.clone())).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let body = answer.json();
    let best = &body["details"];
    let others = best["best_of_sequences"].as_array().expect("a list");
    assert_eq!(others.len(), 7);
    let mean = |sequence: &Value| {
        let tokens = sequence["tokens"].as_array().expect("tokens");
        let logprobs = tokens.iter().filter_map(|token| token["logprob"].as_f64());
        logprobs.sum::<f64>() / tokens.len() as f64
    };
    let means: Vec<f64> = others.iter().map(mean).collect();
    assert!(means.iter().all(|other| *other <= mean(best)), "{means:?}");
    assert!(
        means.iter().any(|other| *other < mean(best)),
        "they differ: {means:?}"
    );
    for sequence in others.iter().chain([best]) {
        assert_eq!(sequence["prefill"].as_array().map(Vec::len), Some(2));
        assert!(sequence["seed"].is_u64());
        assert_eq!(sequence["finish_reason"], "length");
        assert_eq!(sequence["generated_tokens"], 12);
        assert_eq!(sequence["top_tokens"].as_array().map(Vec::len), Some(12));
    }
    assert!(others.iter().all(|other| other["generated_text"].is_string()));
    // All that was made is counted, the headers are of the answer.
    assert_eq!(answer.header("x-generated-tokens"), "12");
    // Figures are shown after the step that the answer ended in.
    while server.get("/stats").await.json()["generated_tokens"] != 8 * 12 {
        tokio::task::yield_now().await;
    }

    let streamed = server.post("/generate_stream", request("a", parameters)).await;
    assert_eq!(streamed.status, 422);
    let plain = json!({"best_of": 3, "do_sample": true, "max_new_tokens": 2});
    let plain = server.post("/generate", request("a", plain)).await.json();
    assert_eq!(plain["details"], Value::Null);
    assert_eq!(server.get("/info").await.json()["max_best_of"], 128);
}

#[tokio::test]
async fn a_prompts_details_bring_the_answers() {
    let parameters = json!({"decoder_input_details": true});
    let body = server().post("/generate", request("w", parameters)).await.json();
    assert_eq!(body["details"]["prefill"][0]["id"], 119);
    assert_eq!(body["details"]["generated_tokens"], 4);
}

#[tokio::test]
async fn tokenize_says_where_each_token_is() {
    let server = server();
    let answer = server.post("/tokenize", json!({"inputs": "aé"})).await.json();
    assert_eq!(answer[0], json!({"id": 97, "text": "a", "start": 0, "stop": 1}));
    assert_eq!(answer.as_array().map(Vec::len), Some(3));
    assert_eq!((&answer[1]["start"], &answer[1]["stop"]), (&json!(1), &json!(1)));
    assert_eq!((&answer[2]["start"], &answer[2]["stop"]), (&json!(1), &json!(2)));
    let chat = json!({"messages": [{"role": "user", "content": "x"}]});
    let answer = server.post("/chat_tokenize", chat).await.json();
    assert_eq!(answer["templated_text"], "<start>user:x<end><start>");
    assert_eq!(answer["tokenize_response"].as_array().map(Vec::len), Some(9));
    assert_eq!(server.post("/tokenize", json!({})).await.status, 422);
}

#[tokio::test]
async fn info_has_tgis_fields() {
    let info = server().get("/info").await.json();
    assert_eq!(info["model_id"], BASE);
    assert_eq!(info["max_total_tokens"], 1024);
    assert_eq!(info["max_input_tokens"], 1023);
    for field in [
        "model_sha",
        "model_pipeline_tag",
        "max_concurrent_requests",
        "max_best_of",
        "max_stop_sequences",
        "validation_workers",
        "max_client_batch_size",
        "router",
        "version",
        "sha",
        "docker_label",
    ] {
        assert!(info.get(field).is_some(), "{field}");
    }
    assert_eq!(info["adapters"].as_array().map(Vec::len), Some(2));
}

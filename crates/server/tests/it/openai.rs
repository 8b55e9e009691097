//! OpenAI's dialect, as its clients see it.

use multigraft_engine::EngineOptions;
use multigraft_server::Limits;
use serde_json::{Value, json};

use crate::support::{BASE, Options, hash, server, server_with};

fn completion(model: &str, prompt: &str) -> Value {
    json!({"model": model, "prompt": prompt, "temperature": 0})
}

fn with(mut body: Value, extra: Value) -> Value {
    let fields = extra.as_object().expect("an object").clone();
    body.as_object_mut().expect("an object").extend(fields);
    body
}

#[tokio::test]
async fn a_completion_has_openais_shape_and_says_who_made_it() {
    let answer = server().post("/v1/completions", completion(BASE, "w")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-multigraft-adapter"), BASE);
    assert_eq!(answer.header("x-multigraft-adapter-hash"), "base");
    let body = answer.json();
    assert_eq!(body["object"], "text_completion");
    assert_eq!(body["model"], BASE);
    assert_eq!(body["system_fingerprint"], "multigraft-base");
    assert!(body["id"].as_str().is_some_and(|id| id.starts_with("cmpl-")));
    assert!(body["created"].as_u64().is_some_and(|time| time > 1_700_000_000));
    assert_eq!(
        body["choices"],
        json!([{"index": 0, "text": "xyz", "logprobs": null, "finish_reason": "stop"}])
    );
    assert_eq!(
        body["usage"],
        json!({
            "prompt_tokens": 1, "completion_tokens": 4, "total_tokens": 5, "prompt_tokens_details": {"cached_tokens": 0}
        })
    );
}

#[tokio::test]
async fn the_model_picks_the_adapter() {
    let server = server();
    for (model, text, name, id) in [
        ("two", "egikmoqsuwy", "two", hash(2)),
        ("team/three", "filorux", "team/three", hash(3)),
        ("", "defghijklmnopqrstuvwxyz", BASE, "base".to_owned()),
        ("tgi", "defghijklmnopqrstuvwxyz", BASE, "base".to_owned()),
    ] {
        let answer = server.post("/v1/completions", completion(model, "c")).await;
        let body = answer.json();
        assert_eq!(body["choices"][0]["text"], text, "{model}");
        assert_eq!(body["model"], name);
        assert_eq!(body["system_fingerprint"], format!("multigraft-{id}"));
        assert_eq!(answer.header("x-multigraft-adapter"), name);
        assert_eq!(answer.header("x-multigraft-adapter-hash"), id);
    }
}

#[tokio::test]
async fn an_unknown_model_is_404_and_never_the_base() {
    let server = server();
    let messages = json!([{"role": "user", "content": "x"}]);
    for (path, body) in [
        ("/v1/completions", completion("nobody", "a")),
        (
            "/v1/chat/completions",
            json!({"model": "nobody", "messages": messages}),
        ),
        (
            "/v1/chat/completions",
            json!({"model": "nobody", "messages": messages, "stream": true}),
        ),
    ] {
        let answer = server.post(path, body).await;
        assert_eq!(answer.status, 404);
        let error = &answer.json()["error"];
        assert_eq!(error["type"], "NotFoundError");
        assert_eq!(error["param"], "model");
        assert_eq!(error["code"], 404);
        let message = error["message"].as_str().expect("a message");
        assert!(
            message.starts_with("The model `nobody` does not exist."),
            "{message}"
        );
        assert!(message.contains(BASE) && message.contains("`two`"), "{message}");
    }
}

#[tokio::test]
async fn a_missing_model_is_an_error_that_says_which_exist() {
    let answer = server().post("/v1/completions", json!({"prompt": "a"})).await;
    assert_eq!(answer.status, 400);
    let error = &answer.json()["error"];
    assert_eq!(error["param"], "model");
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|message| message.contains("`two`"))
    );
}

#[tokio::test]
async fn chat_has_openais_shape() {
    let body = json!({
        "model": "two", "max_completion_tokens": 3, "temperature": 0,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
    });
    let body = server().post("/v1/chat/completions", body).await.json();
    assert_eq!(body["object"], "chat.completion");
    assert_eq!(
        body["choices"],
        json!([{"index": 0, "message": {"role": "assistant", "content": "ace", "refusal": null},
            "logprobs": null, "finish_reason": "length"}])
    );
    // <start>user:hi<end><start>: special tokens are one each.
    assert_eq!(body["usage"]["prompt_tokens"], 10);
    assert_eq!(body["usage"]["completion_tokens"], 3);
}

#[tokio::test]
async fn chat_without_a_template_is_refused_with_the_way_out() {
    let server = server_with(Options {
        chat: false,
        ..Options::default()
    });
    let body = json!({"model": BASE, "messages": [{"role": "user", "content": "x"}]});
    let answer = server.post("/v1/chat/completions", body).await;
    assert_eq!(answer.status, 400);
    assert!(answer.text.contains("/v1/completions"));
}

#[tokio::test]
async fn a_chat_stream_adds_up_to_the_whole_answer() {
    let server = server();
    let body = json!({
        "model": "two", "stream": true, "temperature": 0, "stream_options": {"include_usage": true},
        "messages": [{"role": "user", "content": "hi"}],
    });
    let answer = server.post("/v1/chat/completions", body).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "text/event-stream");
    assert_eq!(answer.header("x-multigraft-adapter-hash"), hash(2));
    let (chunks, done) = answer.chunks();
    assert!(done);
    assert_eq!(chunks[0]["object"], "chat.completion.chunk");
    assert_eq!(
        chunks[0]["choices"][0]["delta"],
        json!({"role": "assistant", "content": ""})
    );
    let text: String = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(text, "acegikmoqsuwy");
    let (usage, rest) = chunks.split_last().expect("chunks");
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(usage["usage"]["completion_tokens"], 14);
    assert!(
        rest.iter()
            .all(|chunk| chunk["usage"].is_null() && chunk["id"] == usage["id"])
    );
    let last = &rest.last().expect("a last chunk")["choices"][0];
    assert_eq!(
        (&last["delta"], &last["finish_reason"]),
        (&json!({}), &json!("stop"))
    );
}

#[tokio::test]
async fn a_completion_stream_without_usage_has_none() {
    let body = with(completion(BASE, "w"), json!({"stream": true}));
    let (chunks, done) = server().post("/v1/completions", body).await.chunks();
    assert!(done);
    assert!(chunks.iter().all(|chunk| chunk.get("usage").is_none()));
    let text: String = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["text"].as_str())
        .collect();
    assert_eq!(text, "xyz");
    assert_eq!(
        chunks.last().expect("chunks")["choices"][0]["finish_reason"],
        "stop"
    );
}

#[tokio::test]
async fn prompts_come_as_texts_and_as_tokens_and_in_lists() {
    let server = server();
    for (prompt, texts) in [
        (json!("w"), vec!["xyz"]),
        (json!(["w", "x"]), vec!["xyz", "yz"]),
        (json!([b'w']), vec!["xyz"]),
        (json!([[b'w'], [b'a', b'x']]), vec!["xyz", "yz"]),
    ] {
        let body = json!({"model": BASE, "prompt": prompt, "temperature": 0});
        let body = server.post("/v1/completions", body).await.json();
        let found: Vec<&str> = body["choices"]
            .as_array()
            .expect("choices")
            .iter()
            .filter_map(|choice| choice["text"].as_str())
            .collect();
        assert_eq!(found, texts, "{prompt}");
    }
    for prompt in [
        json!([]),
        json!([[]]),
        json!(["a", 3]),
        json!([300]),
        json!([-1]),
        json!({}),
        json!(""),
    ] {
        let answer = server
            .post("/v1/completions", json!({"model": BASE, "prompt": prompt}))
            .await;
        assert_eq!(answer.status, 400, "{prompt}");
        assert_eq!(answer.json()["error"]["param"], "prompt", "{prompt}");
    }
}

#[tokio::test]
async fn n_answers_are_numbered_prompt_by_prompt_and_the_prompt_is_counted_once() {
    let server = server();
    let body = json!({"model": BASE, "prompt": ["w", "xx"], "n": 2, "temperature": 0});
    let answer = server.post("/v1/completions", body.clone()).await.json();
    let choices = answer["choices"].as_array().expect("choices");
    let found: Vec<_> = choices
        .iter()
        .map(|choice| (&choice["index"], &choice["text"]))
        .collect();
    let expected = [
        (json!(0), json!("xyz")),
        (json!(1), json!("xyz")),
        (json!(2), json!("yz")),
        (json!(3), json!("yz")),
    ];
    assert_eq!(
        found,
        expected
            .iter()
            .map(|(index, text)| (index, text))
            .collect::<Vec<_>>()
    );
    assert_eq!(answer["usage"]["prompt_tokens"], 3);
    assert_eq!(answer["usage"]["completion_tokens"], 4 + 4 + 3 + 3);

    let body = with(
        body,
        json!({"stream": true, "stream_options": {"include_usage": true}}),
    );
    let (chunks, _) = server.post("/v1/completions", body).await.chunks();
    assert_eq!(chunks.last().expect("chunks")["usage"], answer["usage"]);
    for (index, text) in expected {
        let streamed: String = chunks
            .iter()
            .filter(|chunk| chunk["choices"][0]["index"] == index)
            .filter_map(|chunk| chunk["choices"][0]["text"].as_str())
            .collect();
        assert_eq!(json!(streamed), text);
    }
}

#[tokio::test]
async fn stop_strings_end_the_answer_and_are_not_in_it() {
    let server = server();
    for (extra, text, reason) in [
        (json!({"stop": "ef"}), "bcd", "stop"),
        (json!({"stop": ["zz", "d"]}), "bc", "stop"),
        (
            json!({"stop": "ef", "include_stop_str_in_output": true}),
            "bcdef",
            "stop",
        ),
        (json!({"stop_token_ids": [b'd']}), "bc", "stop"),
        (json!({"max_tokens": 2}), "bc", "length"),
    ] {
        let body = with(completion(BASE, "a"), extra);
        let choice = &server.post("/v1/completions", body.clone()).await.json()["choices"][0];
        assert_eq!(
            (&choice["text"], &choice["finish_reason"]),
            (&json!(text), &json!(reason))
        );
        let (chunks, _) = server
            .post("/v1/completions", with(body, json!({"stream": true})))
            .await
            .chunks();
        let streamed: String = chunks
            .iter()
            .filter_map(|chunk| chunk["choices"][0]["text"].as_str())
            .collect();
        assert_eq!(streamed, text);
    }
}

#[tokio::test]
async fn completion_logprobs_and_echo_cover_prompt_and_answer() {
    let body = with(
        completion(BASE, "ab"),
        json!({"max_tokens": 1, "logprobs": 2, "echo": true}),
    );
    let server = server();
    let choice = &server.post("/v1/completions", body.clone()).await.json()["choices"][0];
    assert_eq!(choice["text"], "abc");
    let logprobs = &choice["logprobs"];
    assert_eq!(logprobs["tokens"], json!(["a", "b", "c"]));
    assert_eq!(logprobs["text_offset"], json!([0, 1, 2]));
    assert_eq!(logprobs["token_logprobs"][0], Value::Null);
    assert!(
        logprobs["token_logprobs"][2]
            .as_f64()
            .is_some_and(|logprob| logprob > -0.01)
    );
    assert_eq!(logprobs["top_logprobs"][0], Value::Null);
    let top = logprobs["top_logprobs"][2].as_object().expect("alternatives");
    assert_eq!(top.keys().collect::<Vec<_>>(), ["c", "!"]);

    let (chunks, _) = server
        .post("/v1/completions", with(body, json!({"stream": true})))
        .await
        .chunks();
    let tokens: Vec<&Value> = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["logprobs"]["tokens"].as_array())
        .flatten()
        .collect();
    assert_eq!(tokens, ["a", "b", "c"]);
    assert_eq!(chunks[0]["choices"][0]["text"], "ab");
    assert_eq!(chunks[1]["choices"][0]["logprobs"]["text_offset"], json!([2]));
}

#[tokio::test]
async fn a_prompt_can_be_scored_without_generating() {
    let body = with(
        completion(BASE, "abx"),
        json!({"max_tokens": 0, "logprobs": 0, "echo": true}),
    );
    let answer = server().post("/v1/completions", body).await.json();
    let choice = &answer["choices"][0];
    assert_eq!(choice["text"], "abx");
    let logprobs = choice["logprobs"]["token_logprobs"].as_array().expect("a list");
    assert_eq!(logprobs.len(), 3);
    assert!(logprobs[1].as_f64().is_some_and(|logprob| logprob > -0.1));
    assert!(logprobs[2].as_f64().is_some_and(|logprob| logprob < -20.0));
    assert_eq!(answer["usage"]["completion_tokens"], 0);
}

#[tokio::test]
async fn chat_logprobs_have_tokens_bytes_and_alternatives() {
    let body = json!({
        "model": BASE, "max_tokens": 1, "temperature": 0, "logprobs": true, "top_logprobs": 2,
        "messages": [{"role": "user", "content": "x"}],
    });
    let server = server();
    let answer = server.post("/v1/chat/completions", body.clone()).await.json();
    let content = &answer["choices"][0]["logprobs"]["content"];
    assert_eq!(content.as_array().map(Vec::len), Some(1));
    assert_eq!(content[0]["token"], "a");
    assert_eq!(content[0]["bytes"], json!([97]));
    assert_eq!(content[0]["top_logprobs"][1]["token"], "!");
    let (chunks, _) = server
        .post("/v1/chat/completions", with(body, json!({"stream": true})))
        .await
        .chunks();
    assert_eq!(&chunks[1]["choices"][0]["logprobs"]["content"], content);
}

#[tokio::test]
async fn what_cannot_be_done_is_400_and_names_the_field() {
    let server = server();
    for (extra, field) in [
        (json!({"tools": [{"type": "function"}]}), "tools"),
        (
            json!({"response_format": {"type": "json_schema"}}),
            "response_format.json_schema",
        ),
        (json!({"suffix": "x"}), "suffix"),
        (json!({"temperature": -1}), "temperature"),
        (json!({"top_p": 1.5}), "top_p"),
        (json!({"min_p": 2}), "min_p"),
        (json!({"presence_penalty": 3}), "presence_penalty"),
        (json!({"frequency_penalty": -3}), "frequency_penalty"),
        (json!({"repetition_penalty": 0}), "repetition_penalty"),
        (json!({"logit_bias": {"99999": 1}}), "logit_bias"),
        (json!({"logprobs": 21}), "logprobs"),
        (json!({"max_tokens": 5000}), "max_tokens"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"max_tokens": "many"}), "max_tokens"),
        (json!({"stream": "yes"}), "stream"),
        (json!({"top_logprobs": 2}), "top_logprobs"),
        (json!({"unheard_of": 1}), "unheard_of"),
    ] {
        let answer = server
            .post("/v1/completions", with(completion(BASE, "a"), extra.clone()))
            .await;
        assert_eq!(answer.status, 400, "{extra}: {}", answer.text);
        let error = &answer.json()["error"];
        assert_eq!(error["param"], field, "{error}");
        assert_eq!(error["type"], "BadRequestError");
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|message| message.contains(field)),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_prompt_that_fills_the_context_is_refused() {
    let server = server_with(Options {
        context: 32,
        ..Options::default()
    });
    for path in ["/v1/completions", "/v1/chat/completions"] {
        let long = "a".repeat(32);
        let body = match path {
            "/v1/completions" => completion(BASE, &long),
            _ => json!({"model": BASE, "messages": [{"role": "user", "content": long}]}),
        };
        let answer = server.post(path, body).await;
        assert_eq!(answer.status, 400, "{}", answer.text);
    }
    // Without `max_tokens` an answer goes on to the end of the context.
    let body = with(completion(BASE, "a"), json!({"ignore_eos": true}));
    let answer = server.post("/v1/completions", body).await.json();
    assert_eq!(answer["usage"]["total_tokens"], 32);
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
}

#[tokio::test]
async fn too_many_answers_are_refused_before_any_is_made() {
    let server = server_with(Options {
        limits: Limits {
            choices: 4,
            ..Limits::default()
        },
        ..Options::default()
    });
    let body = json!({"model": BASE, "prompt": ["a", "b", "c"], "n": 2});
    let answer = server.post("/v1/completions", body).await;
    assert_eq!(answer.status, 400);
    assert_eq!(server.engine.stats().finished, 0);
}

#[tokio::test]
async fn a_full_queue_is_429_with_a_time_to_come_back() {
    // The backend never computes a step, so nothing leaves the queue for good.
    let (_open, gate) = std::sync::mpsc::channel();
    let server = server_with(Options {
        engine: EngineOptions {
            max_running: 1,
            max_waiting: 2,
            ..EngineOptions::default()
        },
        gate: Some(gate),
        ..Options::default()
    });
    let answer = server
        .post("/v1/completions", with(completion(BASE, "a"), json!({"n": 8})))
        .await;
    assert_eq!(answer.status, 429);
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(answer.json()["error"]["type"], "RateLimitError");
}

#[tokio::test]
async fn usage_says_what_was_cached_for_the_same_salt() {
    let server = server();
    let cached = async |salt: Value| {
        let prompt = "abcdefghijklmnopqrstuvwxyabcdefghijklmno";
        let asked = json!({"model": "two", "prompt": prompt, "max_tokens": 2, "cache_salt": salt});
        let whole = server.post("/v1/completions", asked.clone()).await.json();
        let streaming = json!({"stream": true, "stream_options": {"include_usage": true}});
        let chunks = server
            .post("/v1/completions", with(asked, streaming))
            .await
            .chunks()
            .0;
        let cached = |usage: &Value| {
            usage["prompt_tokens_details"]["cached_tokens"]
                .as_u64()
                .expect("a number")
        };
        (
            cached(&whole["usage"]),
            cached(&chunks.last().expect("chunks")["usage"]),
        )
    };
    for salt in [Value::Null, json!("a"), json!("b")] {
        assert_eq!(cached(salt.clone()).await, (0, 32), "{salt}");
        assert_eq!(cached(salt).await, (32, 32));
    }
    let stats = server.get("/stats").await.json();
    assert_eq!(stats["cached_tokens"], 3 * 3 * 32);
}

#[tokio::test]
async fn models_list_the_base_and_its_adapters_with_their_parent() {
    let server = server();
    let list = server.get("/v1/models").await.json();
    assert_eq!(list["object"], "list");
    let models = list["data"].as_array().expect("a list");
    let ids: Vec<_> = models
        .iter()
        .map(|model| model["id"].as_str().expect("an id"))
        .collect();
    assert_eq!(ids[0], BASE);
    assert_eq!(ids.len(), 3);
    assert_eq!(models[0]["parent"], Value::Null);
    assert_eq!(models[0]["hash"], "base");
    for model in &models[1..] {
        assert_eq!(model["parent"], BASE);
        assert_eq!(model["object"], "model");
        assert_eq!(model["max_model_len"], 1024);
    }
    let one = server.get("/v1/models/team/three").await;
    assert_eq!(one.status, 200);
    assert_eq!(one.json()["id"], "team/three");
    assert_eq!(one.json()["hash"], hash(3));
    assert_eq!(server.get(&format!("/v1/models/{BASE}")).await.json()["id"], BASE);
    let none = server.get("/v1/models/nobody").await;
    assert_eq!(none.status, 404);
    assert_eq!(none.json()["error"]["type"], "NotFoundError");
}

#[tokio::test]
async fn calls_in_a_conversation_may_be_any_json_and_never_break_the_server() {
    let server = server();
    for calls in [
        json!(["x"]),
        json!([7, null]),
        json!([{"function": "f"}]),
        json!([{"function": {"arguments": "{"}}]),
        json!("x"),
    ] {
        let messages = json!([{"role": "assistant", "content": "a", "tool_calls": calls}, {"role": "user", "content": "b"}]);
        let body = json!({"model": "alphabet", "messages": messages, "max_tokens": 1});
        let answer = server.post("/v1/chat/completions", body).await;
        assert!(
            [200, 400].contains(&answer.status.as_u16()),
            "{calls}: {}",
            answer.text
        );
    }
}

#[tokio::test]
async fn what_looks_like_a_call_in_json_that_was_asked_for_is_text() {
    let server = server();
    let tool = json!({"type": "function", "function": {"name": "f"}});
    let call = "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>";
    let body = json!({"model": "alphabet", "messages": [{"role": "user", "content": "a"}], "tools": [tool],
        "guided_choice": [call], "max_tokens": 200});
    let answer = server.post("/v1/chat/completions", body).await.json();
    let choice = &answer["choices"][0];
    assert_eq!(choice["message"]["content"], call);
    assert_eq!(choice["finish_reason"], "stop");
    assert_eq!(choice["message"]["tool_calls"], Value::Null);
}

//! The fields that vLLM adds to OpenAI's dialect, and `best_of`.

use serde_json::{Value, json};

use crate::support::{BASE, END, Options, Server, server, server_with};

fn with(mut body: Value, extra: Value) -> Value {
    let fields = extra.as_object().expect("an object").clone();
    body.as_object_mut().expect("an object").extend(fields);
    body
}

async fn complete(server: &Server, prompt: &str, extra: Value) -> Value {
    let body = with(json!({"model": BASE, "prompt": prompt, "temperature": 0}), extra);
    let answer = server.post("/v1/completions", body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

async fn chat(server: &Server, extra: Value) -> Value {
    let body = json!({"model": BASE, "temperature": 0, "max_tokens": 3, "messages": [{"role": "user", "content": "hi"}]});
    let answer = server.post("/v1/chat/completions", with(body, extra)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

fn texts(answer: &Value) -> Vec<&str> {
    let choices = answer["choices"].as_array().expect("choices");
    choices
        .iter()
        .filter_map(|choice| choice["text"].as_str())
        .collect()
}

#[tokio::test]
async fn the_best_of_several_answers_are_those_of_the_highest_mean_logprob() {
    let server = server();
    // At every token `!` is nearly as likely as the next letter.
    let bias = json!({"33": 9});
    let hot = json!({"temperature": 2, "seed": 5, "max_tokens": 6, "prompt": ["a", "m"], "logit_bias": bias});
    let all = complete(
        &server,
        "",
        with(hot.clone(), json!({"n": 6, "logprobs": 0, "top_p": 0.999})),
    )
    .await;
    let mean = |choice: &Value| {
        let logprobs = choice["logprobs"]["token_logprobs"].as_array().expect("a list");
        logprobs.iter().filter_map(Value::as_f64).sum::<f64>() / logprobs.len() as f64
    };
    let mut expected = Vec::new();
    for its in all["choices"].as_array().expect("choices").chunks(6) {
        let mut its: Vec<&Value> = its.iter().collect();
        its.sort_by(|a, b| mean(b).total_cmp(&mean(a)));
        assert!(mean(its[0]) > mean(its[5]), "they differ: {its:?}");
        expected.extend(its[..2].iter().map(|choice| choice["text"].clone()));
    }
    let best = json!({"n": 2, "best_of": 6, "top_p": 0.999});
    let best = complete(&server, "", with(hot, best)).await;
    assert_eq!(json!(texts(&best)), json!(expected));
    let choices = best["choices"].as_array().expect("choices");
    assert!(choices.iter().all(|choice| choice["logprobs"].is_null()));
    let indices: Vec<&Value> = choices.iter().map(|choice| &choice["index"]).collect();
    assert_eq!(indices, [0, 1, 2, 3]);
    // All that was made is paid for.
    assert_eq!(best["usage"], all["usage"]);
}

#[tokio::test]
async fn a_best_of_that_cannot_be_is_refused() {
    let server = server();
    for extra in [
        json!({"best_of": 1, "n": 2}),
        json!({"best_of": 2, "stream": true}),
        json!({"best_of": 0}),
        json!({"best_of": 1000}),
    ] {
        let body = with(json!({"model": BASE, "prompt": "a"}), extra.clone());
        let answer = server.post("/v1/completions", body).await;
        assert_eq!(answer.status, 400, "{extra}");
        assert_eq!(answer.json()["error"]["param"], "best_of", "{extra}");
    }
    // As many as are returned: nothing is to be chosen.
    let body = json!({"model": BASE, "prompt": "w", "best_of": 1, "stream": true});
    assert_eq!(server.post("/v1/completions", body).await.status, 200);
    let messages = json!([{"role": "user", "content": "x"}]);
    let body = json!({"model": BASE, "messages": messages, "best_of": 2});
    let answer = server.post("/v1/chat/completions", body).await;
    assert_eq!(answer.json()["error"]["param"], "best_of");
}

#[tokio::test]
async fn an_answer_has_its_least_length() {
    let server = server();
    // After z comes the end; that it cannot be leaves `!`, after which the alphabet begins again.
    let extra = json!({"min_tokens": 6, "max_tokens": 9});
    let answer = complete(&server, "w", extra).await;
    assert_eq!(texts(&answer), ["xyz!abcde"]);
    let extra = json!({"min_tokens": 3, "stop_token_ids": [b'y', b'b'], "ignore_eos": true});
    let answer = complete(&server, "w", extra).await;
    assert_eq!(texts(&answer), ["x!a"], "y may not be chosen, b ends it");
    assert_eq!(answer["choices"][0]["stop_reason"], u32::from(b'b'));
    let extra = json!({"min_tokens": 3, "stop": ["x", "a"], "ignore_eos": true, "max_tokens": 9});
    let answer = complete(&server, "w", extra).await;
    assert_eq!(answer["choices"][0]["stop_reason"], "a");
    let extra = json!({"min_tokens": 6, "guided_choice": ["no"]});
    assert_eq!(texts(&complete(&server, "w", extra).await), ["no"]);
    let body = json!({"model": BASE, "prompt": "a", "min_tokens": 4, "max_tokens": 3});
    let answer = server.post("/v1/completions", body).await;
    assert_eq!(answer.json()["error"]["param"], "min_tokens");
}

#[tokio::test]
async fn a_prompts_tokens_come_with_their_logprobs_and_ranks() {
    let server = server();
    let answer = complete(
        &server,
        "abx",
        json!({"prompt_logprobs": 1, "max_tokens": 1, "n": 2}),
    )
    .await;
    for choice in answer["choices"].as_array().expect("choices") {
        assert_eq!(choice["logprobs"], Value::Null);
        let scores = choice["prompt_logprobs"].as_array().expect("a list");
        assert_eq!(scores.len(), 3);
        assert_eq!(scores[0], Value::Null);
        let b = &scores[1]["98"];
        assert_eq!((&b["rank"], &b["decoded_token"]), (&json!(1), &json!("b")));
        assert!(b["logprob"].as_f64().is_some_and(|logprob| logprob > -0.01));
        assert_eq!(scores[1].as_object().map(serde_json::Map::len), Some(1));
        // c and ! are likelier; of the others, which are equal, 118 have a lower id.
        assert_eq!(scores[2]["120"]["rank"], 121);
        assert_eq!(scores[2]["99"]["rank"], 1);
        let ids: Vec<&String> = scores[2].as_object().expect("a map").keys().collect();
        assert_eq!(ids, ["120", "99"], "the token that is there comes first");
    }
    // Beside an echo with more alternatives, and without an answer.
    let extra = json!({"prompt_logprobs": 0, "echo": true, "logprobs": 2, "max_tokens": 0});
    let choice = &complete(&server, "ab", extra).await["choices"][0];
    assert_eq!(
        choice["prompt_logprobs"][1].as_object().map(serde_json::Map::len),
        Some(1)
    );
    let top = choice["logprobs"]["top_logprobs"][1].as_object();
    assert_eq!(top.map(serde_json::Map::len), Some(2));
    let answer = chat(&server, json!({"prompt_logprobs": 0, "n": 2})).await;
    assert_eq!(answer["prompt_logprobs"].as_array().map(Vec::len), Some(10));
}

#[tokio::test]
async fn special_tokens_are_shown_if_they_are_not_to_be_skipped() {
    let server = server();
    let bias = json!({"256": 100});
    for (skip, text) in [(true, ""), (false, "<start><start>")] {
        let extra = json!({"logit_bias": bias, "skip_special_tokens": skip, "max_tokens": 2});
        assert_eq!(texts(&complete(&server, "a", extra).await), [text]);
    }
    let extra = json!({"skip_special_tokens": false, "include_stop_str_in_output": true});
    assert_eq!(texts(&complete(&server, "w", extra).await), ["xyz<end>"]);
    let extra = json!({"skip_special_tokens": false, "spaces_between_special_tokens": false});
    assert_eq!(texts(&complete(&server, "w", extra).await), ["xyz"]);
}

#[tokio::test]
async fn token_ids_are_told_whole_and_streamed() {
    let server = server();
    let asked = json!({"return_token_ids": true, "max_tokens": 9});
    let choice = &complete(&server, "wx", asked.clone()).await["choices"][0];
    assert_eq!(choice["prompt_token_ids"], json!([b'w', b'x']));
    assert_eq!(choice["token_ids"], json!([b'y', b'z', END]));
    let body = json!({"model": BASE, "prompt": "wx", "temperature": 0, "stream": true});
    let (chunks, _) = server.post("/v1/completions", with(body, asked)).await.chunks();
    let prompts: Vec<&Value> = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0].get("prompt_token_ids"))
        .collect();
    assert_eq!(prompts, [&choice["prompt_token_ids"]]);
    let ids = |chunks: &[Value]| {
        let ids = chunks
            .iter()
            .filter_map(|chunk| chunk["choices"][0]["token_ids"].as_array().cloned());
        ids.flatten().collect::<Vec<Value>>()
    };
    assert_eq!(json!(ids(&chunks)), choice["token_ids"]);

    let asked = json!({"return_token_ids": true, "stop": ["bc"]});
    let answer = chat(&server, asked.clone()).await;
    assert_eq!(answer["choices"][0]["token_ids"], json!([b'a', b'b', b'c']));
    assert_eq!(answer["prompt_token_ids"].as_array().map(Vec::len), Some(10));
    let body = json!({"model": BASE, "messages": [{"role": "user", "content": "hi"}], "temperature": 0, "stream": true});
    let (chunks, _) = server
        .post("/v1/chat/completions", with(body, asked))
        .await
        .chunks();
    assert_eq!(chunks[0]["prompt_token_ids"], answer["prompt_token_ids"]);
    assert!(
        chunks[1..]
            .iter()
            .all(|chunk| chunk.get("prompt_token_ids").is_none())
    );
    assert_eq!(json!(ids(&chunks)), answer["choices"][0]["token_ids"]);
    let last = &chunks.last().expect("chunks")["choices"][0];
    assert_eq!(last["stop_reason"], "bc");
}

#[tokio::test]
async fn tokens_are_named_by_their_ids_on_request() {
    let server = server();
    let asked = json!({"return_tokens_as_token_ids": true, "logprobs": 1, "max_tokens": 1});
    let answer = complete(&server, "a", asked).await;
    let logprobs = &answer["choices"][0]["logprobs"];
    assert_eq!(logprobs["tokens"], json!(["token_id:98"]));
    assert!(logprobs["top_logprobs"][0]["token_id:98"].is_number());
    let asked = json!({"return_tokens_as_token_ids": true, "logprobs": true, "top_logprobs": 1});
    let answer = chat(&server, asked).await;
    let first = &answer["choices"][0]["logprobs"]["content"][0];
    assert_eq!(first["token"], "token_id:97");
    assert_eq!(first["top_logprobs"][0]["token"], "token_id:97");
    assert_eq!(first["bytes"], json!([97]));
}

#[tokio::test]
async fn a_prompt_is_cut_to_what_is_asked_for_or_fits() {
    let server = server_with(Options {
        context: 32,
        ..Options::default()
    });
    for (asked, tokens) in [
        (json!({"truncate_prompt_tokens": 3}), 3),
        (json!({"truncate_prompt_tokens": -1, "max_tokens": 2}), 30),
        (
            json!({"truncate_prompt_tokens": -1, "max_completion_tokens": 4}),
            28,
        ),
        (json!({"truncate_prompt_tokens": -1}), 31),
    ] {
        let answer = complete(&server, &"w".repeat(50), asked.clone()).await;
        assert_eq!(answer["usage"]["prompt_tokens"], tokens, "{asked}");
    }
    let asked = json!({"truncate_prompt_tokens": 2, "echo": true, "max_tokens": 1});
    assert_eq!(texts(&complete(&server, "abcd", asked).await), ["cde"]);
    let asked =
        json!({"truncate_prompt_tokens": 2, "truncation_side": "right", "echo": true, "max_tokens": 1});
    assert_eq!(texts(&complete(&server, "abcd", asked).await), ["abc"]);
    let asked = json!({"truncate_prompt_tokens": 4});
    assert_eq!(chat(&server, asked).await["usage"]["prompt_tokens"], 4);
}

#[tokio::test]
async fn a_last_message_is_gone_on_with() {
    let server = server();
    let messages = json!([{"role": "user", "content": "go"}, {"role": "assistant", "content": "abc"}]);
    let asked = json!({"messages": messages, "continue_final_message": true, "add_generation_prompt": false});
    let answer = chat(&server, asked.clone()).await;
    assert_eq!(answer["choices"][0]["message"]["content"], "def");
    let tokenized = server.post("/chat_tokenize", asked).await.json();
    assert_eq!(
        tokenized["templated_text"],
        "<start>user:go<end><start>assistant:abc"
    );
    for (messages, extra) in [
        (json!([{"role": "assistant", "content": ""}]), json!({})),
        (messages, json!({"add_generation_prompt": true})),
    ] {
        let body = json!({"model": BASE, "messages": messages, "continue_final_message": true});
        let answer = server.post("/v1/chat/completions", with(body, extra)).await;
        assert_eq!(answer.status, 400, "{}", answer.text);
    }
}

#[tokio::test]
async fn every_chunk_has_the_usage_so_far_on_request() {
    let server = server();
    let options = json!({"include_usage": true, "continuous_usage_stats": true});
    let messages = json!([{"role": "user", "content": "hi"}]);
    for (path, prompt) in [
        ("/v1/completions", json!({"prompt": ["w", "xx"]})),
        ("/v1/chat/completions", json!({"messages": messages})),
    ] {
        let asked = json!({"model": BASE, "temperature": 0, "n": 2, "max_tokens": 4, "stream": true, "stream_options": options});
        let (chunks, _) = server.post(path, with(prompt, asked)).await.chunks();
        let usage = |chunk: &Value, name: &str| chunk["usage"][name].as_u64().expect("a number");
        let tokens: Vec<u64> = chunks
            .iter()
            .map(|chunk| usage(chunk, "completion_tokens"))
            .collect();
        assert!(tokens.is_sorted(), "{tokens:?}");
        let last = chunks.last().expect("chunks");
        assert_eq!(last["choices"], json!([]));
        for chunk in &chunks {
            assert_eq!(
                usage(chunk, "prompt_tokens"),
                usage(last, "prompt_tokens"),
                "{path}"
            );
            let both = usage(chunk, "prompt_tokens") + usage(chunk, "completion_tokens");
            assert_eq!(usage(chunk, "total_tokens"), both);
        }
        let before = &chunks[chunks.len() - 2];
        assert_eq!(
            usage(before, "completion_tokens"),
            usage(last, "completion_tokens")
        );
    }
}

#[tokio::test]
async fn a_constraint_that_takes_too_much_work_in_the_middle_is_the_requests_mistake() {
    let server = server();
    // The bias keeps the answer within it, deeper and deeper.
    let mut body = json!({"model": BASE, "prompt": "!", "max_tokens": 900, "logit_bias": {"97": 100},
        "guided_regex": "((a{1,100}){1,100}){1,100}"});
    let refused = server.post("/v1/completions", body.clone()).await;
    assert_eq!(refused.status, 400, "{}", refused.text);
    assert!(refused.text.contains("took too much work"), "{}", refused.text);
    body["stream"] = json!(true);
    let (chunks, done) = server.post("/v1/completions", body).await.chunks();
    assert!(done);
    assert_eq!(chunks.last().unwrap()["error"]["code"], 400);
}

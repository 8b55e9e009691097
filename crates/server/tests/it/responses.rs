//! OpenAI's Responses API, as its clients see it.

use std::{sync::mpsc, time::Duration};

use serde_json::{Value, json};

use crate::support::{Answer, BASE, Options, hash, server, server_with};

/// The types and payloads of a stream, whose numbers go up by one.
fn events(answer: &Answer) -> Vec<Value> {
    let named = answer
        .text
        .lines()
        .filter_map(|line| line.strip_prefix("event: "));
    let (events, done) = answer.chunks();
    assert!(!done, "a stream of responses has no end mark");
    assert_eq!(
        named.collect::<Vec<_>>(),
        events
            .iter()
            .filter_map(|event| event["type"].as_str())
            .collect::<Vec<_>>()
    );
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], number, "{event}");
    }
    events
}

fn types(events: &[Value]) -> Vec<&str> {
    let mut types: Vec<&str> = events.iter().filter_map(|event| event["type"].as_str()).collect();
    types.dedup();
    types
}

#[tokio::test]
async fn a_response_has_openais_shape_and_says_who_made_it() {
    let body = json!({"model": "two", "input": "c", "max_output_tokens": 40, "metadata": {"a": "b"}, "temperature": 0});
    let answer = server().post("/v1/responses", body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.header("x-multigraft-adapter-hash"), hash(2));
    let mut body = answer.json();
    assert!(body["id"].as_str().is_some_and(|id| id.starts_with("resp_")));
    assert!(
        body["output"][0]["id"]
            .as_str()
            .is_some_and(|id| id.starts_with("msg_"))
    );
    for free in ["/id", "/created_at", "/output/0/id"] {
        *body.pointer_mut(free).expect("there") = Value::Null;
    }
    assert_eq!(
        body,
        json!({
            "id": null, "object": "response", "created_at": null, "model": "two", "status": "completed", "error": null,
            "incomplete_details": null, "instructions": null, "max_output_tokens": 40, "metadata": {"a": "b"},
            "parallel_tool_calls": true, "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [],
            "temperature": 0.0, "top_p": 1.0, "store": false, "background": false, "truncation": "disabled", "user": null,
            "output": [{"type": "message", "id": null, "role": "assistant", "status": "completed", "content": [
                {"type": "output_text", "text": "acegikmoqsuwy", "annotations": [], "logprobs": []}
            ]}],
            "usage": {"input_tokens": 9, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 14,
                "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 23}
        })
    );
}

#[tokio::test]
async fn a_stream_has_all_events_in_their_order_and_ends_in_the_whole() {
    let server = server();
    let body = |stream: bool| json!({"model": BASE, "input": "c", "max_output_tokens": 3, "stream": stream});
    let whole = server.post("/v1/responses", body(false)).await.json();
    assert_eq!(whole["status"], "incomplete");
    assert_eq!(
        whole["incomplete_details"],
        json!({"reason": "max_output_tokens"})
    );
    assert_eq!(whole["output"][0]["status"], "incomplete");
    let answer = server.post("/v1/responses", body(true)).await;
    let events = events(&answer);
    assert_eq!(
        types(&events),
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.incomplete",
        ]
    );
    let deltas: String = events
        .iter()
        .filter_map(|event| event["delta"].as_str())
        .collect();
    assert_eq!(deltas, "abc");
    let last = &events[events.len() - 1]["response"];
    assert_eq!(last["output"][0]["content"], whole["output"][0]["content"]);
    assert_eq!(last["id"], events[0]["response"]["id"]);
    assert_eq!(events[0]["response"]["status"], "in_progress");
    assert_eq!(events[0]["response"]["output"], json!([]));
}

#[tokio::test]
async fn a_call_is_an_item_of_its_own() {
    let server = server();
    let parameters = json!({"type": "object", "properties": {"x": {"const": 7}}, "required": ["x"], "additionalProperties": false});
    let body = |stream: bool| {
        json!({"model": BASE, "input": "c", "stream": stream, "temperature": 0,
            "tools": [{"type": "function", "name": "f", "parameters": parameters}],
            "tool_choice": {"type": "function", "name": "f"}})
    };
    let whole = server.post("/v1/responses", body(false)).await.json();
    let [call] = whole["output"].as_array().expect("a list").as_slice() else {
        panic!("one item: {whole}");
    };
    assert_eq!(
        (&call["type"], &call["name"]),
        (&json!("function_call"), &json!("f"))
    );
    let arguments: Value = serde_json::from_str(call["arguments"].as_str().expect("text")).expect("JSON");
    assert_eq!(arguments, json!({"x": 7}));
    let answer = server.post("/v1/responses", body(true)).await;
    let events = events(&answer);
    assert_eq!(
        types(&events),
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    let deltas: String = events
        .iter()
        .filter_map(|event| event["delta"].as_str())
        .collect();
    assert_eq!(call["arguments"], deltas);

    // The result goes back with the call's id, and what was said before is a conversation.
    let input = json!([{"role": "user", "content": "c"}, call,
        {"type": "function_call_output", "call_id": call["call_id"], "output": "8"}]);
    let answer = server
        .post(
            "/v1/responses",
            json!({"model": BASE, "input": input, "max_output_tokens": 2}),
        )
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json()["output"][0]["content"][0]["text"], "ab");
}

#[tokio::test]
async fn complaints_name_the_fields_of_a_response() {
    let server = server();
    for (extra, field, said) in [
        (
            json!({"max_output_tokens": 0}),
            "max_output_tokens",
            "`max_output_tokens`",
        ),
        (
            json!({"max_output_tokens": 5000}),
            "max_output_tokens",
            "`max_output_tokens`",
        ),
        (
            json!({"text": {"format": {"type": "json_schema", "name": "n"}}}),
            "text.format.schema",
            "`text.format.schema`",
        ),
        (
            json!({"text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "strin"}}}}),
            "text.format",
            "`text.format`",
        ),
        (
            json!({"tools": [{"type": "function", "name": "a b"}]}),
            "tools[0].name",
            "`tools[0].name`",
        ),
        (json!({"tool_choice": "required"}), "tool_choice", "no `tools`"),
        (json!({"temperature": 3}), "temperature", "`temperature`"),
        (json!({"unheard_of": 1}), "unheard_of", "`unheard_of`"),
        (json!({"store": true}), "store", "keeps no responses"),
        (
            json!({"previous_response_id": "resp_1"}),
            "previous_response_id",
            "whole conversation",
        ),
        (json!({"background": true}), "background", "`background`"),
    ] {
        let mut body = json!({"model": BASE, "input": "c"});
        let fields = extra.as_object().expect("an object").clone();
        body.as_object_mut().expect("an object").extend(fields);
        let answer = server.post("/v1/responses", body).await;
        assert_eq!(answer.status, 400, "{extra}: {}", answer.text);
        let error = &answer.json()["error"];
        assert_eq!(error["param"], field, "{error}");
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|message| message.contains(said)),
            "{error}"
        );
    }
    let unknown = server
        .post("/v1/responses", json!({"model": "nobody", "input": "c"}))
        .await;
    assert_eq!(unknown.status, 404);
}

#[tokio::test]
async fn a_stream_that_breaks_off_says_that_it_failed() {
    let (step, gate) = mpsc::channel();
    let server = server_with(Options {
        gate: Some(gate),
        ..Options::default()
    });
    let engine = server.engine.clone();
    let asked = tokio::spawn(async move {
        server
            .post(
                "/v1/responses",
                json!({"model": BASE, "input": "c", "stream": true, "ignore_eos": true, "max_output_tokens": 900}),
            )
            .await
    });
    // It has far more steps before it than are let go until the engine is told to end.
    step.send(()).expect("a step");
    while engine.stats().steps == 0 {
        tokio::task::yield_now().await;
    }
    let ending = std::thread::spawn(move || engine.abort());
    while !asked.is_finished() {
        let _ = step.send(());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let answer = asked.await.expect("an answer");
    ending.join().expect("ended");
    let events = events(&answer);
    let last = &events[events.len() - 1];
    assert_eq!(last["type"], "response.failed", "{last}");
    assert_eq!(last["response"]["status"], "failed");
    assert_eq!(last["response"]["error"]["code"], "server_error");
}

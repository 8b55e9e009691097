//! Requests whose time is over, and steps that do not end.

use std::{sync::mpsc, time::Duration};

use axum::http::Request;
use multigraft_server::Limits;
use serde_json::{Value, json};

use crate::support::{Answer, BASE, Options, Server, post, server, server_with};

/// A server whose steps each wait for a word.
fn gated(limits: Limits) -> (Server, mpsc::Sender<()>) {
    let (step, gate) = mpsc::channel();
    let server = server_with(Options {
        gate: Some(gate),
        limits,
        ..Options::default()
    });
    (server, step)
}

async fn within(server: &Server, seconds: &str, path: &str, body: Value) -> Answer {
    let mut request: Request<_> = post(path, &body);
    let headers = request.headers_mut();
    headers.insert("x-request-timeout", seconds.parse().expect("a header"));
    server.send(request).await
}

/// Until the engine holds nothing more of anybody.
async fn idle(server: &Server) {
    loop {
        let stats = server.engine.stats();
        if stats.running + stats.waiting + stats.blocks_used == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_request_whose_time_is_over_is_504_in_its_dialect_and_leaves_nothing() {
    let (server, step) = gated(Limits::default());
    let chat = json!({"model": BASE, "messages": [{"role": "user", "content": "a"}]});
    for (path, body) in [
        ("/v1/completions", json!({"model": BASE, "prompt": "a", "n": 2})),
        ("/v1/chat/completions", chat),
        ("/v1/embeddings", json!({"model": BASE, "input": "a"})),
        ("/v1/responses", json!({"model": BASE, "input": "a"})),
    ] {
        let late = within(&server, "0.05", path, body).await;
        assert_eq!(late.status, 504, "{path}: {}", late.text);
        assert_eq!(late.header("x-should-retry"), "false");
        let error = &late.json()["error"];
        assert_eq!(error["type"], "TimeoutError");
        let message = error["message"].as_str().unwrap();
        assert!(
            message.contains("0.05 s") && message.contains("x-request-timeout"),
            "{message}"
        );
    }
    for path in ["/generate", "/"] {
        let late = within(&server, "0.05", path, json!({"inputs": "a"})).await;
        assert_eq!(
            (late.status.as_u16(), &late.json()["error_type"]),
            (504, &json!("timeout"))
        );
    }
    // Every step goes on; what nobody waits for any more takes no more than the one that it was in.
    drop(step);
    idle(&server).await;
    assert_eq!(server.engine.stats().finished, 0);
}

#[tokio::test]
async fn a_stream_whose_time_is_over_ends_with_an_error_after_what_there_was() {
    let (server, step) = gated(Limits::default());
    // The prompt, and two letters.
    for _ in 0..3 {
        step.send(()).unwrap();
    }
    let body = json!({"model": BASE, "prompt": "a", "stream": true});
    let late = within(&server, "0.3", "/v1/completions", body).await;
    assert_eq!(late.status, 200);
    let (chunks, done) = late.chunks();
    assert!(done);
    let (last, before) = chunks.split_last().unwrap();
    assert_eq!(last["error"]["code"], 504);
    let text: String = before
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["text"].as_str())
        .collect();
    assert_eq!(text, "bcd");
    step.send(()).unwrap();
    let late = within(&server, "0.05", "/generate_stream", json!({"inputs": "a"})).await;
    let (chunks, _) = late.chunks();
    assert_eq!(chunks.last().unwrap()["error_type"], "timeout", "{}", late.text);
    drop(step);
    idle(&server).await;
}

#[tokio::test]
async fn time_in_the_queue_and_for_an_adapter_counts() {
    let folder = tempfile::tempdir().unwrap();
    let source = crate::support::write_adapter(&folder.path().join("new"), 1);
    let (load, gate) = mpsc::channel();
    let server = server_with(Options {
        allowed: vec![multigraft_sources::AllowedSource::Folder(
            folder.path().to_owned(),
        )],
        load_gate: Some(gate),
        ..Options::default()
    });
    let body = json!({"model": source, "prompt": "a"});
    let late = within(&server, "0.05", "/v1/completions", body.clone()).await;
    assert_eq!(late.status, 504, "{}", late.text);
    // The load goes on for the next.
    load.send(()).unwrap();
    assert_eq!(server.post("/v1/completions", body).await.status, 200);
}

#[tokio::test]
async fn the_server_bounds_what_requests_may_ask_for_but_not_the_background() {
    let (server, step) = gated(Limits {
        request_time: Some(Duration::from_millis(50)),
        ..Limits::default()
    });
    let body = json!({"model": BASE, "prompt": "a"});
    for late in [
        server.post("/v1/completions", body.clone()).await,
        within(&server, "100", "/v1/completions", body).await,
    ] {
        assert_eq!(late.status, 504);
        assert!(late.text.contains("0.05 s"), "{}", late.text);
    }
    drop(step);
}

#[tokio::test]
async fn a_time_that_is_none_is_refused_before_anything_is_computed() {
    let server = server();
    let body = json!({"model": BASE, "prompt": "a"});
    let refused = within(&server, "soon", "/v1/completions", body).await;
    assert_eq!(refused.status, 400);
    assert_eq!(refused.json()["error"]["param"], "x-request-timeout");
    let refused = within(&server, "-1", "/generate", json!({"inputs": "a"})).await;
    assert_eq!(refused.status, 422);
    assert_eq!(server.engine.stats().steps, 0);
    let body = json!({"model": BASE, "prompt": "w"});
    let done = within(&server, "60.5", "/v1/completions", body).await;
    assert_eq!(done.json()["choices"][0]["text"], "xyz");
}

#[tokio::test]
async fn a_step_that_does_not_end_makes_the_server_unready_until_it_does() {
    let (server, step) = gated(Limits {
        step_time: Duration::from_millis(20),
        ..Limits::default()
    });
    assert_eq!(server.get("/ready").await.status, 200);
    let asking = server.post("/v1/completions", json!({"model": BASE, "prompt": "w"}));
    let watching = async {
        let refused = loop {
            let answer = server.get("/ready").await;
            if answer.status == 503 {
                break answer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        assert!(refused.text.contains("does not end"), "{}", refused.text);
        assert!(
            server
                .get("/metrics")
                .await
                .text
                .contains("multigraft_step_stuck 1")
        );
        // It lives: a restart would lose what may yet come.
        assert_eq!(server.get("/health").await.status, 200);
        let under_way = server.engine.current_step().unwrap();
        assert_eq!(
            (under_way.sequences, under_way.rows, under_way.adapters),
            (1, 1, 0)
        );
        drop(step);
    };
    let (answered, ()) = tokio::join!(asking, watching);
    assert_eq!(answered.json()["choices"][0]["text"], "xyz");
    while server.engine.current_step().is_some() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(server.get("/ready").await.status, 200);
    assert!(
        server
            .get("/metrics")
            .await
            .text
            .contains("multigraft_step_stuck 0")
    );
}

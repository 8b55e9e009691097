//! What becomes of adapters, as events.

use std::sync::mpsc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::{Method, Request, header};
use futures_util::StreamExt as _;
use multigraft_sources::AllowedSource;
use serde_json::{Value, json};
use tokio::time::timeout;
use tower::ServiceExt as _;

use crate::support::{Options, Server, server_with, write_adapter};

/// A reader of `/v1/adapters/events`.
struct Events {
    body: BodyDataStream,
    text: String,
}

impl Events {
    async fn of(server: &Server) -> Self {
        let request = Request::get("/v1/adapters/events").header(header::ACCEPT, "text/event-stream");
        let request = request.body(Body::empty()).unwrap();
        let response = server.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
        Self {
            body: response.into_body().into_data_stream(),
            text: String::new(),
        }
    }

    async fn next(&mut self) -> Value {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.text = rest;
                match event.strip_prefix("data: ") {
                    Some(json) => return serde_json::from_str(json).unwrap(),
                    // A comment that keeps the connection alive.
                    None => continue,
                }
            }
            let bytes = timeout(Duration::from_secs(20), self.body.next()).await.unwrap();
            self.text
                .push_str(std::str::from_utf8(&bytes.unwrap().unwrap()).unwrap());
        }
    }

    /// Reads until an adapter is in a state.
    async fn until(&mut self, name: &str, state: &str) -> Value {
        loop {
            let event = self.next().await;
            if event["name"] == name && event["state"] == state {
                return event;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_hear_what_becomes_of_adapters_and_slow_ones_where_it_ended() {
    let dir = tempfile::tempdir().unwrap();
    let (load_gate, words) = mpsc::channel();
    let server = server_with(Options {
        allowed: vec![AllowedSource::Folder(dir.path().to_owned())],
        load_gate: Some(words),
        ..Options::default()
    });
    let (good, bad) = (write_adapter(&dir.path().join("good"), 1), dir.path().join("bad"));
    write_adapter(&bad, 2);
    std::fs::write(bad.join("adapter_model.safetensors"), "nonsense").unwrap();
    let (mut reader, mut slow) = (Events::of(&server).await, Events::of(&server).await);

    let adding = {
        let (server, body) = (server.clone(), json!({"name": "new", "source": good}));
        tokio::spawn(async move { server.post("/v1/adapters", body).await })
    };
    let loading = reader.until("new", "loading").await;
    assert_eq!(
        (&loading["hash"], &loading["bytes_done"]),
        (&Value::Null, &Value::Null)
    );
    // Who comes now hears of what is under way, and of nothing else.
    let mut late = Events::of(&server).await;
    assert_eq!(late.next().await, loading);
    load_gate.send(()).unwrap();
    assert_eq!(adding.await.unwrap().status, 201);
    let resident = reader.until("new", "resident").await;
    assert_eq!(resident["hash"].as_str().unwrap().len(), 64);
    assert_eq!(late.until("new", "resident").await, resident);

    // Who adds an adapter may have its events for an answer.
    for (name, source, status, end) in [
        (
            "same",
            good.as_str(),
            200,
            "event: added\ndata: {\"object\":\"adapter\",\"name\":\"same\"",
        ),
        (
            "none",
            "/none",
            200,
            "event: error\ndata: {\"error\":{\"message\":",
        ),
        ("", good.as_str(), 400, "{\"error\":"),
    ] {
        let request = Request::post("/v1/adapters")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "text/event-stream")
            .body(Body::from(json!({"name": name, "source": source, "pinned": true, "replace": name.is_empty().then_some(3)}).to_string()));
        let answer = server.send(request.unwrap()).await;
        assert_eq!(answer.status, status, "{}", answer.text);
        let last = answer.text.trim_end().rsplit("\n\n").next().unwrap();
        assert!(last.starts_with(end), "{}", answer.text);
    }
    reader.until("same", "resident").await;

    let refused = json!({"name": "broken", "source": bad});
    assert_eq!(server.post("/v1/adapters", refused).await.status, 400);
    let failed = reader.until("broken", "failed").await;
    assert!(
        failed["error"].as_str().unwrap().contains("adapter_model"),
        "{failed}"
    );

    let request = Request::builder().method(Method::DELETE).uri("/v1/adapters/new");
    server.send(request.body(Body::empty()).unwrap()).await;
    reader.until("new", "removed").await;
    // Who read nothing until now is told where it ended: of `new`, that came and went, there is
    // nothing to say.
    slow.until("broken", "failed").await;
}

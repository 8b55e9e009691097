//! Removing an adapter with its requests: they hear of it, and what they held is free when the
//! answer comes.

use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request};
use multigraft_sources::AllowedSource;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::support::{Answer, BASE, Options, Server, server_with, write_adapter};

/// A server that has the adapters `one`, `twin` of the same files, and `other`. Its steps wait for
/// words.
async fn busy(dir: &tempfile::TempDir) -> (Server, Sender<()>) {
    let (gate, words) = mpsc::channel();
    let server = server_with(Options {
        allowed: vec![AllowedSource::Folder(dir.path().to_owned())],
        gate: Some(words),
        ..Options::default()
    });
    let one = write_adapter(&dir.path().join("one"), 1);
    let other = write_adapter(&dir.path().join("other"), 2);
    for (name, source) in [("one", &one), ("twin", &one), ("other", &other)] {
        let added = server
            .post("/v1/adapters", json!({"name": name, "source": source}))
            .await;
        assert_eq!(added.status, 201, "{}", added.text);
    }
    (server, gate)
}

fn send(server: &Server, path: &'static str, body: Value) -> JoinHandle<Answer> {
    let server = server.clone();
    tokio::spawn(async move { server.post(path, body).await })
}

fn completion(model: &str) -> Value {
    json!({"model": model, "prompt": "a", "max_tokens": 900, "ignore_eos": true})
}

async fn delete(server: &Server, path: &str) -> Answer {
    let request = Request::builder().method(Method::DELETE).uri(path);
    server.send(request.body(Body::empty()).unwrap()).await
}

async fn until(condition: impl Fn() -> bool) {
    for _ in 0..20_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("it does not come to that");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_end_with_the_name_that_they_asked_for_and_no_others_do() {
    let dir = tempfile::tempdir().unwrap();
    let (server, gate) = busy(&dir).await;
    let mut stream = completion("one");
    stream["stream"] = true.into();
    let parts = json!([{"id": "one", "weight": 0.5}, {"id": "other", "weight": 1.0}]);
    let mut merged = completion(BASE);
    merged["adapters"] = parts;
    let tgi = json!({"inputs": "a", "parameters": {"adapter_id": "one", "max_new_tokens": 900, "ignore_eos_token": true}});
    let ended = [
        send(&server, "/v1/completions", completion("one")),
        send(&server, "/v1/completions", stream),
        send(&server, "/v1/completions", merged),
        send(&server, "/generate", tgi),
    ];
    let others = [
        send(&server, "/v1/completions", completion("twin")),
        send(&server, "/v1/completions", completion("other")),
    ];
    until(|| {
        let all = ended.iter().chain(&others);
        all.for_each(|request| assert!(!request.is_finished(), "{:?}", server.engine.stats()));
        gate.send(()).unwrap();
        server.engine.stats().running == 6
    })
    .await;
    let deleted = {
        let server = server.clone();
        tokio::spawn(async move {
            let deleted = delete(&server, "/v1/adapters/one?now=true").await;
            (
                deleted,
                server.engine.stats(),
                server.get("/v1/adapters").await.json(),
            )
        })
    };
    until(|| {
        gate.send(()).unwrap();
        deleted.is_finished()
    })
    .await;
    let (deleted, stats, listed) = deleted.await.unwrap();
    assert_eq!(deleted.status, 204, "{}", deleted.text);
    assert_eq!((stats.running + stats.waiting, stats.cancelled), (2, 4));
    // `twin`, `other`, and what `twin` and `other` are merged to.
    assert_eq!(listed["memory"]["bytes"], 3 * 16);
    drop(gate);

    let [plain, stream, merged, tgi] = ended;
    for answer in [plain, merged] {
        let answer = answer.await.unwrap();
        let error = &answer.json()["error"];
        assert_eq!((answer.status.as_u16(), &error["code"]), (410, &json!(410)));
        assert!(
            error["message"].as_str().unwrap().contains("`one` was removed"),
            "{error}"
        );
    }
    let tgi = tgi.await.unwrap();
    assert_eq!(
        (tgi.status.as_u16(), &tgi.json()["error_type"]),
        (410, &json!("gone"))
    );
    let stream = stream.await.unwrap();
    assert_eq!(stream.status, 200);
    let last: Vec<&str> = stream
        .text
        .split("\n\n")
        .filter(|event| !event.is_empty())
        .collect();
    let [.., error, done] = last.as_slice() else {
        panic!("{}", stream.text)
    };
    assert!(
        error.contains("`one` was removed") && error.contains("410"),
        "{error}"
    );
    assert_eq!(*done, "data: [DONE]");
    for other in others {
        let answer = other.await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(answer.json()["usage"]["completion_tokens"], 900);
    }
    assert_eq!(delete(&server, "/v1/adapters/twin?now=true").await.status, 204);
    assert_eq!(server.registry.memory().0, 16, "a part of the merged one is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_wait_for_a_load_end_too() {
    let dir = tempfile::tempdir().unwrap();
    let (load_gate, words) = mpsc::channel();
    let server = server_with(Options {
        allowed: vec![AllowedSource::Folder(dir.path().to_owned())],
        load_gate: Some(words),
        ..Options::default()
    });
    let source = write_adapter(&dir.path().join("new"), 1);
    let adding = send(&server, "/v1/adapters", json!({"name": "new", "source": source}));
    until(|| server.registry.contains("new")).await;
    let waiting = send(&server, "/v1/completions", completion("new"));
    until(|| {
        let listed = server.registry.listed("new");
        listed.is_some_and(|listed| listed.requests > 0)
    })
    .await;
    assert_eq!(delete(&server, "/v1/adapters/new?now=true").await.status, 204);
    assert_eq!(waiting.await.unwrap().status, 410);
    assert_eq!(adding.await.unwrap().status, 410);
    drop(load_gate);
}

#[tokio::test]
async fn what_is_no_way_to_remove_is_refused_and_removes_nothing() {
    let server = crate::support::server();
    for query in ["now=perhaps", "soon=true"] {
        let path = format!("/v1/adapters/two?{query}");
        assert_eq!(delete(&server, &path).await.status, 400, "{query}");
    }
    assert_eq!(delete(&server, "/v1/adapters/none?now=true").await.status, 404);
    assert!(server.registry.contains("two"));
    assert_eq!(delete(&server, "/v1/adapters/two?now=true").await.status, 204);
}

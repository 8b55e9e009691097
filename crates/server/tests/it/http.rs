//! What holds for all routes: errors in the dialect's shape, limits, and clients that hang up.

use std::{future::poll_fn, time::Duration};

use axum::{
    body::{Body, Bytes, HttpBody as _},
    http::{Method, Request, header},
};
use multigraft_server::Limits;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::support::{BASE, Options, Server, post, server, server_with};

#[tokio::test]
async fn unknown_routes_and_methods_are_json_in_the_dialect_of_the_path() {
    let server = server();
    let answer = server.get("/v1/nothing").await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.json()["error"]["type"], "NotFoundError");
    let answer = server.get("/nothing").await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.json()["error_type"], "not_found");
    let answer = server.get("/v1/completions").await;
    assert_eq!(answer.status, 405);
    assert_eq!(answer.header("allow"), "POST");
    assert!(
        answer.json()["error"]["message"]
            .as_str()
            .is_some_and(|message| message.contains("POST"))
    );
    let request = Request::delete("/info").body(Body::empty()).expect("a request");
    let answer = server.send(request).await;
    assert_eq!(answer.status, 405);
    assert_eq!(answer.json()["error_type"], "method_not_allowed");
}

#[tokio::test]
async fn bodies_that_are_no_json_are_refused_as_json() {
    let server = server();
    let send = async |path: &str, content_type: Option<&str>, body: &'static [u8]| {
        let mut request = Request::builder().method(Method::POST).uri(path);
        if let Some(content_type) = content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        let request = request.body(Body::from(body)).expect("a request");
        server.send(request).await
    };
    for body in [&b""[..], b"{", b"[]", b"\xff\xfe", b"{\"model\":\"x\"} trailing"] {
        let answer = send("/v1/completions", Some("application/json"), body).await;
        assert_eq!(answer.status, 400, "{body:?}");
        assert_eq!(answer.json()["error"]["type"], "BadRequestError");
        let answer = send("/generate", Some("application/json"), body).await;
        assert_eq!(answer.status, 422, "{body:?}");
        assert_eq!(answer.json()["error_type"], "validation");
    }
    for content_type in [None, Some("text/plain")] {
        let answer = send("/generate", content_type, b"{}").await;
        assert_eq!(answer.status, 415);
        assert!(
            answer.json()["error"]
                .as_str()
                .is_some_and(|message| message.contains("application/json"))
        );
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_413() {
    let server = server_with(Options {
        limits: Limits {
            body_bytes: 100,
            ..Limits::default()
        },
        ..Options::default()
    });
    let long = "a".repeat(200);
    let answer = server
        .post("/v1/completions", json!({"model": BASE, "prompt": long}))
        .await;
    assert_eq!(answer.status, 413);
    assert!(
        answer.json()["error"]["message"]
            .as_str()
            .is_some_and(|message| message.contains("100"))
    );
    assert_eq!(
        server.post("/generate", json!({"inputs": long})).await.json()["error_type"],
        "validation"
    );
}

#[tokio::test]
async fn health_and_stats_answer() {
    let server = server();
    assert_eq!(server.get("/health").await.status, 200);
    server.post("/generate", json!({"inputs": "w"})).await;
    // The figures are those after the step, a moment after the answer.
    until(|| server.engine.stats().finished == 1).await;
    let stats = server.get("/stats").await.json();
    assert_eq!(stats["finished"], 1);
    assert_eq!(stats["running"], 0);
    server.engine.clone().shutdown();
    assert_eq!(
        server.get("/health").await.status,
        503,
        "nothing is answered any more"
    );
    assert_eq!(server.get("/ping").await.status, 503);
}

#[tokio::test]
async fn who_stops_is_not_ready_but_lives() {
    let server = server();
    assert_eq!(server.get("/ready").await.status, 200);
    let (stop, stopping) = tokio::sync::watch::channel(false);
    let stopped = Server {
        router: server.router.clone().layer(axum::Extension(stopping)),
        ..server
    };
    assert_eq!(stopped.get("/ready").await.status, 200);
    stop.send(true).expect("somebody listens");
    let answer = stopped.get("/ready").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["reason"], "the server is shutting down");
    assert_eq!(stopped.get("/health").await.status, 200);
    let answer = stopped.post("/generate", json!({"inputs": "w"})).await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("connection"), "close");
    assert_eq!(answer.json()["error_type"], "overloaded");
    stopped.engine.clone().shutdown();
    assert_eq!(stopped.get("/ready").await.status, 503);
}

#[tokio::test]
async fn what_platforms_ask_a_container_is_answered() {
    let server = server();
    assert_eq!(server.get("/ping").await.status, 200);
    assert_eq!(server.post("/ping", json!({})).await.status, 200);
    let version = server.get("/version").await;
    assert_eq!(version.status, 200);
    assert_eq!(version.json(), json!({"version": env!("CARGO_PKG_VERSION")}));

    let asked = json!({"inputs": "w", "parameters": {"max_new_tokens": 4, "adapter_id": "two"}});
    let whole = server.post("/invocations", asked.clone()).await;
    assert_eq!(whole.status, 200);
    assert_eq!(whole.json(), server.post("/", asked).await.json());
    let refused = server.post("/invocations", json!({"inputs": 7})).await;
    assert_eq!(refused.status, 422);
    assert!(
        refused.json()["error_type"].is_string(),
        "an error of TGI's shape"
    );
}

/// A request that goes on until its client hangs up.
fn endless(path: &str, stream: bool) -> Value {
    match path {
        "/generate_stream" => json!({"inputs": "a", "parameters": {"ignore_eos_token": true,
            "max_new_tokens": 60_000}}),
        _ => {
            json!({"model": BASE, "prompt": "a", "ignore_eos": true, "max_tokens": 60_000, "stream": stream})
        }
    }
}

async fn until(what: impl Fn() -> bool) {
    let waiting = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting)
        .await
        .expect("it should happen in the end");
}

fn big_server() -> Server {
    server_with(Options {
        context: 65_000,
        ..Options::default()
    })
}

#[tokio::test]
async fn hanging_up_in_the_middle_of_a_stream_frees_the_slot() {
    for path in ["/v1/completions", "/generate_stream"] {
        let server = big_server();
        let request = post(path, &endless(path, true));
        let response = server.router.clone().oneshot(request).await.expect("infallible");
        assert_eq!(response.status(), 200);
        let mut body = Box::pin(response.into_body());
        let frame = poll_fn(|context| body.as_mut().poll_frame(context)).await;
        let data: Option<Bytes> = frame
            .and_then(Result::ok)
            .and_then(|frame| frame.into_data().ok());
        assert!(data.is_some_and(|data| data.starts_with(b"data: ")));
        assert_eq!(server.engine.stats().cancelled, 0);
        drop(body);
        until(|| server.engine.stats().cancelled == 1).await;
        let stats = server.engine.stats();
        assert_eq!((stats.running, stats.blocks_used, stats.finished), (0, 0, 0));
    }
}

#[tokio::test]
async fn hanging_up_before_a_whole_answer_frees_the_slot() {
    let server = big_server();
    let request = post("/v1/completions", &endless("/v1/completions", false));
    let handler = tokio::spawn(server.router.clone().oneshot(request));
    until(|| server.engine.stats().running == 1).await;
    handler.abort();
    until(|| server.engine.stats().cancelled == 1).await;
    assert_eq!(server.engine.stats().running, 0);
}

#[tokio::test]
async fn an_engine_that_stops_ends_requests_in_an_error() {
    let server = big_server();
    let request = post("/v1/completions", &endless("/v1/completions", true));
    let response = server.router.clone().oneshot(request).await.expect("infallible");
    until(|| server.engine.stats().running == 1).await;
    let engine = server.engine.clone();
    tokio::task::spawn_blocking(move || engine.abort())
        .await
        .expect("aborted");
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX)
        .await
        .expect("a whole body");
    let text = String::from_utf8(bytes.to_vec()).expect("text");
    assert!(text.contains("\"error\""), "{text}");
    assert!(text.trim_end().ends_with("data: [DONE]"), "{text}");
    let answer = server
        .post("/v1/completions", json!({"model": BASE, "prompt": "a"}))
        .await;
    assert_eq!(answer.status, 503);
    assert_eq!(
        server.post("/generate", json!({"inputs": "a"})).await.json()["error_type"],
        "overloaded"
    );
}

#[tokio::test]
async fn every_answer_has_an_id_and_that_of_the_request_if_it_is_one() {
    let server = server();
    let ask = async |id: Option<&'static [u8]>, path: &str| {
        let mut request = Request::get(path).body(Body::empty()).unwrap();
        if let Some(id) = id {
            let id = header::HeaderValue::from_bytes(id).unwrap();
            request.headers_mut().insert("x-request-id", id);
        }
        server.send(request).await.header("x-request-id").to_owned()
    };
    for path in ["/health", "/v1/models", "/nothing"] {
        assert_eq!(ask(Some(b"trace-7"), path).await, "trace-7");
        let made = ask(None, path).await;
        assert!(made.starts_with("req_"), "{made}");
        assert_ne!(made, ask(None, path).await);
        for wrong in [b"two words".as_slice(), b"", b"\xff"] {
            assert!(ask(Some(wrong), path).await.starts_with("req_"));
        }
    }
}

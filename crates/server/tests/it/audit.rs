//! The log of management: every change that is asked for is a line, done or refused, and nothing
//! else is.

use std::{
    fs,
    net::SocketAddr,
    sync::{Arc, mpsc},
    time::Duration,
};

use axum::{
    body::Body,
    extract::ConnectInfo,
    http::{Method, Request, header},
};
use multigraft_access::{AUDIT_FILE, Access, Grants, KeyLimits, NewKey, Role, Store};
use multigraft_sources::AllowedSource;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::support::{Answer, Options, Server, server_with, write_adapter};

/// A server with the keys `boss`, an admin's, and `user`, which may use everything, and a folder of
/// sources.
struct Audited {
    server: Server,
    boss: String,
    user: String,
    folder: tempfile::TempDir,
    source: String,
}

fn audited(load_gate: Option<mpsc::Receiver<()>>) -> Audited {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let add = |name: &str, role| {
        let new = NewKey {
            name: name.to_owned(),
            role,
            tenant: None,
            grants: Grants::all(),
            limits: KeyLimits::default(),
            expires: None,
        };
        store.add(&new).unwrap().1.reveal().to_owned()
    };
    let (boss, user) = (add("boss", Role::Admin), add("user", Role::Use));
    let sources = folder.path().join("sources");
    let source = write_adapter(&sources.join("new"), 1);
    let server = server_with(Options {
        access: Some(Arc::new(Access::new(store).unwrap())),
        allowed: vec![AllowedSource::Folder(sources), AllowedSource::Upload],
        load_gate,
        ..Options::default()
    });
    Audited {
        server,
        boss,
        user,
        folder,
        source,
    }
}

impl Audited {
    fn request(&self, key: &str, method: Method, path: &str, body: &str) -> Request<Body> {
        Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {key}"))
            .header(header::CONTENT_TYPE, "application/json")
            .header("x-request-id", "r-1")
            .extension(ConnectInfo(SocketAddr::from(([192, 0, 2, 1], 9))))
            .body(Body::from(body.to_owned()))
            .unwrap()
    }

    async fn send(&self, key: &str, method: Method, path: &str, body: Value) -> Answer {
        let body = body.to_string();
        self.server.send(self.request(key, method, path, &body)).await
    }

    /// All lines.
    fn text(&self) -> String {
        fs::read_to_string(self.folder.path().join(AUDIT_FILE)).unwrap_or_default()
    }

    fn lines(&self) -> Vec<Value> {
        let text = self.text();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The last line's key, action, object, outcome.
    fn last(&self) -> [String; 4] {
        let line = self.lines().pop().unwrap();
        ["name", "action", "what", "outcome"].map(|field| line[field].as_str().unwrap_or_default().to_owned())
    }

    /// Waits for the line number `number`.
    async fn line(&self, number: usize) -> Value {
        for _ in 0..3000 {
            if let Some(line) = self.lines().into_iter().nth(number - 1) {
                return line;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("there is no line {number}: {}", self.text());
    }
}

#[tokio::test]
async fn every_change_by_every_route_is_one_line() {
    let audited = audited(None);
    let source = audited.source.clone();
    let add = |name: &str| json!({"name": name, "source": source});
    let lora = |name: &str| json!({"lora_name": name, "lora_path": source});
    let (post, patch, delete) = (Method::POST, Method::PATCH, Method::DELETE);
    let steps = [
        (&post, "/v1/adapters", add("x/y"), "adapter.add", "x/y", 201),
        (&post, "/v1/adapters", add("x/y"), "adapter.add", "x/y", 400),
        (
            &patch,
            "/v1/adapters/x/y",
            json!({"pinned": true}),
            "adapter.change",
            "x/y",
            200,
        ),
        (
            &patch,
            "/v1/adapters/x/y",
            json!({"active": "previous"}),
            "adapter.change",
            "x/y",
            400,
        ),
        (
            &patch,
            "/v1/adapters/none",
            json!({"pinned": true}),
            "adapter.change",
            "none",
            404,
        ),
        (
            &delete,
            "/v1/adapters/x/y?now=true",
            json!({}),
            "adapter.remove",
            "x/y",
            204,
        ),
        (
            &delete,
            "/v1/adapters/x%2Fy",
            json!({}),
            "adapter.remove",
            "x/y",
            404,
        ),
        (&post, "/v1/load_lora_adapter", lora("v"), "adapter.add", "v", 200),
        (
            &post,
            "/v1/unload_lora_adapter",
            json!({"lora_name": "v"}),
            "adapter.remove",
            "v",
            200,
        ),
        (&post, "/load_lora_adapter", lora("s"), "adapter.add", "s", 200),
        (&post, "/load_lora_adapter", lora("s"), "adapter.add", "s", 400),
        (
            &post,
            "/unload_lora_adapter",
            json!({"lora_name": "s"}),
            "adapter.remove",
            "s",
            200,
        ),
        (
            &post,
            "/v1/adapters/u/p/upload",
            json!({}),
            "adapter.upload",
            "u/p",
            400,
        ),
        (&post, "/v1/keys", json!({"name": "k"}), "key.add", "k", 201),
        (&post, "/v1/keys", json!({"name": "k"}), "key.add", "k", 409),
        (
            &patch,
            "/v1/keys/k",
            json!({"role": "manage"}),
            "key.change",
            "k",
            200,
        ),
        (&post, "/v1/keys/k/rotate", json!({}), "key.rotate", "k", 200),
        (&delete, "/v1/keys/k", json!({}), "key.revoke", "k", 204),
        (&delete, "/v1/keys/none", json!({}), "key.revoke", "none", 404),
    ];
    for (number, (method, path, body, action, what, status)) in steps.into_iter().enumerate() {
        let answer = audited.send(&audited.boss, method.clone(), path, body).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text);
        let outcome = if answer.status.is_success() {
            "done"
        } else {
            "refused"
        };
        assert_eq!(audited.last(), ["boss", action, what, outcome], "{method} {path}");
        assert_eq!(audited.lines().len(), number + 1, "{method} {path}");
    }
    let refused = &audited.lines()[1];
    assert!(refused["error"].as_str().unwrap().contains("x/y"), "{refused}");
    assert_eq!(audited.lines()[2]["details"], json!({"pinned": true}));
    assert_eq!(audited.lines()[5]["details"], json!({"now": true}));
}

#[tokio::test]
async fn a_line_says_who_from_where_and_by_which_request() {
    let audited = audited(None);
    audited
        .send(&audited.user, Method::DELETE, "/v1/adapters/two", json!({}))
        .await;
    let line = audited.lines().remove(0);
    assert!(line["time"].as_str().unwrap().ends_with('Z'), "{line}");
    assert_eq!(line["key"].as_str().unwrap(), &audited.user[3..15]);
    let rest =
        ["by", "name", "remote", "request_id", "outcome", "error"].map(|field| line[field].as_str().unwrap());
    assert_eq!(
        rest,
        [
            "key",
            "user",
            "192.0.2.1:9",
            "r-1",
            "refused",
            "this key may use adapters, but not add or change them"
        ]
    );
}

#[tokio::test]
async fn what_changes_nothing_leaves_no_line() {
    let audited = audited(None);
    for path in [
        "/v1/adapters",
        "/v1/adapters/two",
        "/v1/keys",
        "/v1/keys/boss",
        "/v1/usage",
    ] {
        let answer = audited.send(&audited.boss, Method::GET, path, json!({})).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    }
    let body = json!({"model": "two", "prompt": "a", "max_tokens": 1});
    assert_eq!(
        audited
            .send(&audited.user, Method::POST, "/v1/completions", body)
            .await
            .status,
        200
    );
    // Nor can whoever has no key fill the disk.
    let answer = audited
        .send("mg-wrong", Method::DELETE, "/v1/adapters/two", json!({}))
        .await;
    assert_eq!(answer.status, 401);
    assert_eq!(audited.text(), "");
}

#[tokio::test]
async fn no_secret_and_no_text_of_prompts_is_written() {
    let audited = audited(None);
    let made = audited
        .send(&audited.boss, Method::POST, "/v1/keys", json!({"name": "k"}))
        .await;
    let rotated = audited
        .send(&audited.boss, Method::POST, "/v1/keys/k/rotate", json!({}))
        .await;
    let secrets = [made, rotated].map(|answer| answer.json()["secret"].as_str().unwrap().to_owned());
    audited
        .send(
            &audited.boss,
            Method::PATCH,
            "/v1/adapters/two",
            json!({"defaults": {"system": "be-secret", "temperature": 0}}),
        )
        .await;
    assert_eq!(
        audited.lines().pop().unwrap()["details"]["defaults"],
        json!(["system", "temperature"])
    );
    for body in [
        json!({"name": secrets[0], "source": "https://me:be-secret@host/x?sig=be-secret"}),
        json!({"name": "n", "source": "/x", "token": "be-secret"}),
        json!({"name": "n".repeat(100_000), "source": {"be": vec!["long"; 9999]}}),
    ] {
        let answer = audited
            .send(&audited.boss, Method::POST, "/v1/adapters", body)
            .await;
        assert!(answer.status.is_client_error(), "{}", answer.text);
    }
    let text = audited.text();
    for secret in [
        &secrets[0],
        &secrets[1],
        &audited.boss,
        &audited.user,
        "be-secret",
    ] {
        assert!(!text.contains(secret), "{text}");
    }
    assert!(text.lines().all(|line| line.len() < 3000), "{text}");
}

#[tokio::test]
async fn what_is_not_understood_is_refused_and_written_down() {
    let audited = audited(None);
    for body in ["", "{", "[]", "null", "\u{0}"] {
        let request = audited.request(&audited.boss, Method::PATCH, "/v1/adapters/two", body);
        assert_eq!(audited.server.send(request).await.status, 400, "{body}");
        assert_eq!(audited.last(), ["boss", "adapter.change", "two", "refused"]);
    }
    assert_eq!(audited.lines().len(), 5);
}

#[tokio::test]
async fn an_adapter_whose_client_waits_for_events_or_not_at_all_is_written_when_it_is_there() {
    let (load, gate) = mpsc::channel();
    let audited = audited(Some(gate));
    let body = json!({"name": "n", "source": audited.source}).to_string();
    let mut request = audited.request(&audited.boss, Method::POST, "/v1/adapters", &body);
    request
        .headers_mut()
        .insert(header::ACCEPT, "text/event-stream".parse().unwrap());
    let server = audited.server.clone();
    let streamed = tokio::spawn(async move { server.send(request).await });
    let body = json!({"name": "m", "source": audited.source}).to_string();
    let request = audited.request(&audited.boss, Method::POST, "/v1/adapters", &body);
    let mut abandoned = Box::pin(audited.server.router.clone().oneshot(request));
    // Begun, and given up.
    while audited.server.registry.statuses().len() < 4 {
        tokio::select! {
            _ = &mut abandoned => panic!("nothing is loaded yet"),
            () = tokio::time::sleep(Duration::from_millis(10)) => {}
        }
    }
    drop(abandoned);
    assert_eq!(audited.text(), "");
    for _ in 0..2 {
        load.send(()).unwrap();
    }
    let mut lines = [audited.line(1).await, audited.line(2).await].map(|line| {
        assert_eq!(
            (&line["action"], &line["outcome"]),
            (&json!("adapter.add"), &json!("done"))
        );
        line["what"].as_str().unwrap().to_owned()
    });
    lines.sort();
    assert_eq!(lines, ["m", "n"]);
    assert_eq!(streamed.await.unwrap().status, 200);
    assert_eq!(audited.lines().len(), 2);
}

#[tokio::test]
async fn without_keys_it_was_anybody() {
    let folder = tempfile::tempdir().unwrap();
    let server = server_with(Options {
        access: Some(Arc::new(
            Access::new(Store::open(folder.path()).unwrap()).unwrap(),
        )),
        ..Options::default()
    });
    let request = Request::delete("/v1/adapters/two").body(Body::empty()).unwrap();
    assert_eq!(server.send(request).await.status, 204);
    let text = fs::read_to_string(folder.path().join(AUDIT_FILE)).unwrap();
    let line: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&line["by"], &line["remote"]), (&json!("anybody"), &Value::Null));
}

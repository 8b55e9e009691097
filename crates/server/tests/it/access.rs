//! Who is let in, and what managers change of what is theirs. That nobody reaches what is others'
//! is in `isolation.rs`.

use std::{sync::Arc, time::SystemTime};

use axum::{
    body::Body,
    http::{Method, Request},
};
use multigraft_access::{Access, Admins, Grants, KeyLimits, NewKey, Role, Store};
use serde_json::json;

use crate::support::{BASE, Options, guarded::guarded, server, server_with, write_adapter};

#[tokio::test]
async fn without_a_valid_key_every_route_but_health_and_ping_is_a_401_in_its_dialect() {
    let guarded = guarded();
    let server = &guarded.server;
    assert_eq!(server.get("/health").await.status, 200);
    assert_eq!(server.get("/ping").await.status, 200);
    for path in [
        "/version",
        "/v1/models",
        "/v1/adapters",
        "/info",
        "/stats",
        "/metrics",
        "/v1/adapters/events",
        "/lora-adapters",
        "/nowhere",
        "/v1/models/two",
    ] {
        let answer = server.get(path).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("www-authenticate")),
            (401, "Bearer"),
            "{path}"
        );
    }
    for path in [
        "/v1/completions",
        "/v1/chat/completions",
        "/",
        "/generate",
        "/generate_stream",
        "/tokenize",
        "/chat_tokenize",
        "/v1/adapters",
        "/v1/adapters/new/upload",
        "/v1/load_lora_adapter",
        "/load_lora_adapter",
        "/v1/unload_lora_adapter",
        "/unload_lora_adapter",
    ] {
        assert_eq!(
            server
                .post(path, json!({"model": BASE, "prompt": "a"}))
                .await
                .status,
            401,
            "{path}"
        );
    }
    assert_eq!(
        server.get("/v1/models").await.json()["error"]["type"],
        "AuthenticationError"
    );
    assert_eq!(server.get("/info").await.json()["error_type"], "unauthorized");
    let good = guarded.secret("a").to_owned();
    let last = if good.ends_with('x') { "y" } else { "x" };
    let forged = format!("{}{last}", &good[..good.len() - 1]);
    for (header, value, status) in [
        ("authorization", format!("Bearer {good}"), 200),
        ("authorization", format!("bearer {good}"), 200),
        ("x-api-key", good.clone(), 200),
        ("authorization", good.clone(), 401),
        ("authorization", format!("Basic {good}"), 401),
        ("authorization", format!("Bearer {forged}"), 401),
        ("authorization", "Bearer ".to_owned(), 401),
        ("x-api-key", "mg-".to_owned(), 401),
    ] {
        let request = Request::get("/v1/models")
            .header(header, &value)
            .body(Body::empty());
        assert_eq!(
            server.send(request.unwrap()).await.status,
            status,
            "{header} {value}"
        );
    }
}

#[tokio::test]
async fn a_revoked_key_is_out_at_its_next_request() {
    let guarded = guarded();
    assert_eq!(guarded.get("a", "/v1/models").await.status, 200);
    guarded.access.store().revoke("a", Admins::MayEnd).unwrap();
    guarded.access.refresh().unwrap();
    assert_eq!(guarded.get("a", "/v1/models").await.status, 401);
}

#[tokio::test]
async fn without_keys_the_server_is_open_and_the_first_key_closes_it() {
    assert_eq!(server().get("/v1/models").await.status, 200);
    let folder = tempfile::tempdir().unwrap();
    let access = Arc::new(Access::new(Store::open(folder.path()).unwrap()).unwrap());
    let server = server_with(Options {
        access: Some(Arc::clone(&access)),
        ..Options::default()
    });
    assert_eq!(server.get("/v1/models").await.status, 200);
    let new = NewKey {
        name: "first".to_owned(),
        role: Role::Use,
        tenant: None,
        grants: Grants::all(),
        limits: KeyLimits::default(),
        expires: Some(SystemTime::UNIX_EPOCH),
    };
    access.store().add(&new).unwrap();
    access.refresh().unwrap();
    assert_eq!(server.get("/v1/models").await.status, 401);
}

#[tokio::test]
async fn a_manager_changes_what_it_added_and_nothing_else() {
    let guarded = guarded();
    let source = write_adapter(&guarded.folder.path().join("sources/team-m"), 1);
    let add = |name: &str| json!({"name": name, "source": source, "replace": true});
    assert_eq!(guarded.post("m", "/v1/adapters", add("team/m")).await.status, 201);
    for (key, status) in [("n", 403), ("m", 200), ("admin", 200)] {
        let path = "/v1/adapters/team/m";
        let pinned = guarded
            .send(key, Method::PATCH, path, json!({"pinned": false}))
            .await;
        assert_eq!(pinned.status, status, "{key}: {}", pinned.text);
        assert_eq!(
            guarded.post(key, "/v1/adapters", add("team/m")).await.status,
            status,
            "{key}"
        );
    }
    // Served from the start: nobody's.
    for (method, body) in [
        (Method::DELETE, json!({})),
        (Method::PATCH, json!({"pinned": false})),
    ] {
        assert_eq!(
            guarded
                .send("m", method, "/v1/adapters/team/three", body)
                .await
                .status,
            403
        );
    }
    // What an admin put there since is not the manager's any more.
    for (key, status) in [("n", 403), ("m", 403), ("admin", 204)] {
        let removed = guarded
            .send(key, Method::DELETE, "/v1/adapters/team/m", json!({}))
            .await;
        assert_eq!(removed.status, status, "{key}: {}", removed.text);
    }
    // An attempt that failed leaves no owner, and who removes what is its own frees the name.
    let missing = json!({"name": "team/m", "source": format!("{source}/missing")});
    assert_eq!(guarded.post("m", "/v1/adapters", missing).await.status, 404);
    assert_eq!(guarded.post("m", "/v1/adapters", add("team/m")).await.status, 201);
    let removed = guarded
        .send("m", Method::DELETE, "/v1/adapters/team/m", json!({}))
        .await;
    assert_eq!(removed.status, 204, "{}", removed.text);
    // The name is free again.
    assert_eq!(guarded.post("n", "/v1/adapters", add("team/m")).await.status, 201);
}

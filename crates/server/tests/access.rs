//! For each way in which a key could see, use, change or read from the cache what is not its own, a test that it cannot.
//!
//! What may not be used has to be answered as what is not there: bodies are compared after the one name was put in the
//! other's place.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{sync::Arc, time::SystemTime};

use axum::{
    body::Body,
    http::{Method, Request, header},
};
use multigraft_access::{Access, Admins, Grants, KeyLimits, NewKey, Role, Store};
use multigraft_adapters::AllowedSource;
use serde_json::{Value, json};
use support::{Answer, BASE, Options, Server, server, server_with, write_adapter};

/// A name of as many letters as `two`, which nothing has.
const NOBODY: &str = "owt";

/// A server with keys: `admin`; `a`, which may use `two`; `b`, which may use `team/*` and the base; managers `m` and `n` of
/// `team/*`, the base and what is in the folder of sources.
struct Guarded {
    server: Server,
    access: Arc<Access>,
    secrets: Vec<(&'static str, String)>,
    folder: tempfile::TempDir,
}

fn guarded() -> Guarded {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("data")).unwrap();
    let sources = folder.path().join("sources");
    std::fs::create_dir(&sources).unwrap();
    let own = format!("{}/team*", sources.canonicalize().unwrap().display());
    let mut secrets = Vec::new();
    for (name, role, grants) in [
        ("admin", Role::Admin, vec![]),
        ("a", Role::Use, vec!["two"]),
        ("b", Role::Use, vec!["team/*", "base"]),
        ("m", Role::Manage, vec!["team/*", "base", own.as_str()]),
        ("n", Role::Manage, vec!["team/*", "base", own.as_str()]),
    ] {
        let new = NewKey {
            name: name.to_owned(),
            role,
            tenant: None,
            grants: Grants::parse(&grants).unwrap(),
            limits: KeyLimits::default(),
            expires: None,
        };
        let (_, secret) = store.add(&new).unwrap();
        secrets.push((name, secret.reveal().to_owned()));
    }
    let access = Arc::new(Access::new(store).unwrap());
    let server = server_with(Options {
        access: Some(Arc::clone(&access)),
        allowed: vec![AllowedSource::Folder(sources)],
        ..Options::default()
    });
    Guarded {
        server,
        access,
        secrets,
        folder,
    }
}

impl Guarded {
    fn secret(&self, key: &str) -> &str {
        &self.secrets.iter().find(|(name, _)| *name == key).unwrap().1
    }

    async fn send(&self, key: &str, method: Method, path: &str, body: Value) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.secret(key)))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_string()));
        self.server.send(request.unwrap()).await
    }

    async fn get(&self, key: &str, path: &str) -> Answer {
        self.send(key, Method::GET, path, Value::Null).await
    }

    async fn post(&self, key: &str, path: &str, body: Value) -> Answer {
        self.send(key, Method::POST, path, body).await
    }

    /// Sends what names `NAME` once with `forbidden` in that place and once with a name that nothing has.
    async fn looks_like_nothing(&self, key: &str, method: Method, path: &str, body: Value, forbidden: &str) {
        let mut answers = Vec::new();
        for name in [forbidden, NOBODY] {
            let body = serde_json::from_str(&body.to_string().replace("NAME", name)).unwrap();
            let answer = self
                .send(key, method.clone(), &path.replace("NAME", name), body)
                .await;
            answers.push((answer.status, answer.text.replace(name, "NAME")));
        }
        assert_eq!(answers[0], answers[1], "{path} {body}");
        assert_eq!(answers[0].0, 404, "{path} {body}: {}", answers[0].1);
    }
}

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
async fn lists_show_what_a_key_may_use_and_nothing_else() {
    let guarded = guarded();
    for path in ["/v1/models", "/v1/adapters", "/info", "/lora-adapters"] {
        let (a, b) = (guarded.get("a", path).await, guarded.get("b", path).await);
        assert!(
            a.text.contains("two") && !a.text.contains("team/three"),
            "{path}: {}",
            a.text
        );
        assert!(
            b.text.contains("team/three") && !b.text.contains("two"),
            "{path}: {}",
            b.text
        );
        let admin = guarded.get("admin", path).await.text;
        assert!(
            admin.contains("two") && admin.contains("team/three"),
            "{path}: {admin}"
        );
    }
    let models = |answer: Answer| answer.json()["data"].as_array().unwrap().len();
    assert_eq!(models(guarded.get("a", "/v1/models").await), 1);
    assert_eq!(models(guarded.get("b", "/v1/models").await), 2);
}

#[tokio::test]
async fn errors_list_no_names_that_a_key_may_not_use() {
    let guarded = guarded();
    for body in [json!({"prompt": "a"}), json!({"model": "no", "prompt": "a"})] {
        let answer = guarded.post("a", "/v1/completions", body).await;
        assert!(
            answer.text.contains("two") && !answer.text.contains("team"),
            "{}",
            answer.text
        );
        assert!(!answer.text.contains(BASE), "{}", answer.text);
    }
}

#[tokio::test]
async fn a_name_that_a_key_may_not_use_is_answered_as_one_that_does_not_exist() {
    let guarded = guarded();
    let chat = json!([{"role": "user", "content": "a"}]);
    for (path, body) in [
        ("/v1/completions", json!({"model": "NAME", "prompt": "a"})),
        (
            "/v1/completions",
            json!({"adapters": [{"id": "NAME"}], "prompt": "a"}),
        ),
        (
            "/v1/completions",
            json!({"adapters": [{"id": "team/three"}, {"id": "NAME"}], "prompt": "a"}),
        ),
        (
            "/v1/completions",
            json!({"model": "NAME", "lora": [], "prompt": "a"}),
        ),
        ("/v1/chat/completions", json!({"model": "NAME", "messages": chat})),
        ("/chat_tokenize", json!({"model": "NAME", "messages": chat})),
        (
            "/generate",
            json!({"inputs": "a", "parameters": {"adapter_id": "NAME"}}),
        ),
        (
            "/generate_stream",
            json!({"inputs": "a", "parameters": {"adapter_id": "NAME"}}),
        ),
        ("/", json!({"inputs": "a", "parameters": {"adapter_id": "NAME"}})),
        (
            "/generate",
            json!({"inputs": "a", "parameters": {"adapters": [{"id": "NAME"}]}}),
        ),
        (
            "/generate",
            json!({"inputs": "a", "parameters": {"merged_adapters": {"ids": ["team/three", "NAME"]}}}),
        ),
        ("/v1/embeddings", json!({"model": "NAME", "input": "a"})),
        (
            "/embed",
            json!({"inputs": "a", "parameters": {"adapter_id": "NAME"}}),
        ),
    ] {
        guarded
            .looks_like_nothing("b", Method::POST, path, body, "two")
            .await;
    }
    for path in ["/v1/models/NAME", "/v1/adapters/NAME"] {
        guarded
            .looks_like_nothing("b", Method::GET, path, Value::Null, "two")
            .await;
    }
}

#[tokio::test]
async fn the_base_is_not_there_for_a_key_without_it_by_any_of_its_names() {
    let guarded = guarded();
    for name in [BASE, "tgi"] {
        let body = json!({"model": "NAME", "prompt": "a"});
        guarded
            .looks_like_nothing("a", Method::POST, "/v1/completions", body, name)
            .await;
        let body = json!({"inputs": "a", "parameters": {"adapter_id": "NAME"}});
        guarded
            .looks_like_nothing("a", Method::POST, "/generate", body, name)
            .await;
    }
    guarded
        .looks_like_nothing("a", Method::GET, "/v1/models/NAME", Value::Null, BASE)
        .await;
    for (path, body) in [
        ("/v1/completions", json!({"model": "", "prompt": "a"})),
        ("/v1/completions", json!({"lora": [], "prompt": "a"})),
        ("/generate", json!({"inputs": "a"})),
    ] {
        assert_eq!(
            guarded.post("a", path, body.clone()).await.status,
            404,
            "{path} {body}"
        );
    }
    let chosen = json!({"adapters": [{"id": "two"}], "prompt": "a", "max_tokens": 1});
    assert_eq!(guarded.post("a", "/v1/completions", chosen).await.status, 200);
}

#[tokio::test]
async fn numbers_of_adapters_count_those_that_a_key_may_use() {
    let guarded = guarded();
    let body = |id: u32| json!({"lora": [{"id": id, "scale": 1}], "prompt": "a", "max_tokens": 1});
    let first = guarded.post("b", "/v1/completions", body(0)).await;
    assert_eq!(first.header("x-multigraft-adapter"), "team/three");
    let second = guarded.post("b", "/v1/completions", body(1)).await;
    assert_eq!(second.status, 400);
    assert!(second.text.contains("lists 1 adapters"), "{}", second.text);
}

#[tokio::test]
async fn a_source_is_not_used_for_the_first_time_without_a_grant_for_its_name() {
    let guarded = guarded();
    let path = write_adapter(&guarded.folder.path().join("sources/team-x"), 1);
    let body = json!({"model": path, "prompt": "a", "max_tokens": 1});
    assert_eq!(
        guarded.post("b", "/v1/completions", body.clone()).await.status,
        404
    );
    let listed = guarded.get("admin", "/v1/models").await.text;
    assert!(!listed.contains("team-x"), "{listed}");
    assert_eq!(
        guarded.post("m", "/v1/completions", body.clone()).await.status,
        200
    );
    // It is there now, but not for others.
    assert_eq!(guarded.post("b", "/v1/completions", body).await.status, 404);
}

#[tokio::test]
async fn one_tenants_prefixes_are_not_found_by_anothers_even_with_the_same_cache_salt() {
    let guarded = guarded();
    let body = json!({"model": "team/three", "prompt": "a".repeat(100), "max_tokens": 1, "cache_salt": "x"});
    let cached = async |key: &str| {
        let answer = guarded.post(key, "/v1/completions", body.clone()).await;
        answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"]
            .as_u64()
            .unwrap_or(0)
    };
    assert_eq!(cached("b").await, 0);
    assert!(cached("b").await > 0);
    assert_eq!(cached("m").await, 0);
    assert_eq!(cached("admin").await, 0);
}

#[tokio::test]
async fn prefixes_are_everybodys_only_under_an_adapter_that_an_admin_marked_as_shared() {
    let guarded = guarded();
    let mark = json!({"limits": {"shared_prefixes": true}});
    let answer = guarded
        .send("m", Method::PATCH, "/v1/adapters/team/three", mark.clone())
        .await;
    assert_eq!(answer.status, 403, "{}", answer.text);
    let answer = guarded
        .send("admin", Method::PATCH, "/v1/adapters/team/three", mark)
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let cached = async |key: &str, model: Value, salt: &str| {
        let mut body = json!({"prompt": "a".repeat(100), "max_tokens": 1, "cache_salt": salt});
        body.as_object_mut()
            .unwrap()
            .append(&mut model.as_object().unwrap().clone());
        let answer = guarded.post(key, "/v1/completions", body).await;
        let usage = &answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"];
        usage.as_u64().unwrap_or_else(|| panic!("{}", answer.text))
    };
    let shared = json!({"model": "team/three"});
    assert_eq!(cached("b", shared.clone(), "x").await, 0);
    assert!(cached("m", shared.clone(), "x").await > 0);
    // A salt still parts.
    assert_eq!(cached("m", shared.clone(), "y").await, 0);
    // Nor does it hold for others, which were not marked.
    assert_eq!(cached("a", json!({"model": "two"}), "x").await, 0);
    assert_eq!(cached("admin", json!({"model": "two"}), "x").await, 0);
}

#[tokio::test]
async fn how_others_use_an_adapter_and_the_server_is_for_admins() {
    let guarded = guarded();
    let body = json!({"model": "team/three", "prompt": "a", "max_tokens": 1});
    guarded.post("m", "/v1/completions", body).await;
    let adapter = guarded.get("b", "/v1/adapters/team/three").await.json();
    assert_eq!(
        (&adapter["requests"], &adapter["last_used"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(
        guarded.get("admin", "/v1/adapters/team/three").await.json()["requests"],
        1
    );
    for path in ["/stats", "/metrics"] {
        assert_eq!(guarded.get("b", path).await.status, 403, "{path}");
        assert_eq!(guarded.get("admin", path).await.status, 200, "{path}");
    }
    for takes in [json!({"limits": {"weight": 100}}), json!({"pinned": true})] {
        let own = guarded
            .send("m", Method::PATCH, "/v1/adapters/team/three", takes)
            .await;
        assert_eq!(own.status, 403, "it takes from others");
    }
}

#[tokio::test]
async fn a_key_for_use_changes_nothing_whether_or_not_it_exists() {
    let guarded = guarded();
    for name in ["team/three", "two", NOBODY] {
        for (method, path, body) in [
            (Method::DELETE, format!("/v1/adapters/{name}"), json!({})),
            (
                Method::PATCH,
                format!("/v1/adapters/{name}"),
                json!({"pinned": false}),
            ),
            (
                Method::POST,
                "/v1/adapters".to_owned(),
                json!({"name": name, "source": "/x"}),
            ),
            (
                Method::POST,
                "/v1/unload_lora_adapter".to_owned(),
                json!({"lora_name": name}),
            ),
            (
                Method::POST,
                "/v1/load_lora_adapter".to_owned(),
                json!({"lora_name": name, "lora_path": "/x", "load_inplace": true}),
            ),
        ] {
            assert_eq!(guarded.send("b", method, &path, body).await.status, 403, "{path}");
        }
    }
    assert_eq!(guarded.get("admin", "/v1/adapters/two").await.status, 200);
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

#[tokio::test]
async fn a_manager_does_not_learn_which_names_exist_outside_of_its_grants() {
    let guarded = guarded();
    let source = write_adapter(&guarded.folder.path().join("sources/team-m"), 1);
    guarded
        .looks_like_nothing("m", Method::DELETE, "/v1/adapters/NAME", json!({}), "two")
        .await;
    guarded
        .looks_like_nothing(
            "m",
            Method::PATCH,
            "/v1/adapters/NAME",
            json!({"pinned": false}),
            "two",
        )
        .await;
    guarded
        .looks_like_nothing(
            "m",
            Method::POST,
            "/v1/unload_lora_adapter",
            json!({"lora_name": "NAME"}),
            "two",
        )
        .await;
    for (path, body) in [
        ("/v1/adapters", json!({"name": "NAME", "source": source})),
        (
            "/v1/load_lora_adapter",
            json!({"lora_name": "NAME", "lora_path": source}),
        ),
        (
            "/load_lora_adapter",
            json!({"lora_name": "NAME", "lora_path": source}),
        ),
    ] {
        let mut answers = Vec::new();
        for name in ["two", NOBODY] {
            let body = serde_json::from_str(&body.to_string().replace("NAME", name)).unwrap();
            let answer = guarded.post("m", path, body).await;
            assert!(answer.status.is_client_error(), "{path}: {}", answer.text);
            assert!(!answer.text.contains("/adapters/two"), "{path}: {}", answer.text);
            answers.push((answer.status, answer.text.replace(name, "NAME")));
        }
        assert_eq!(answers[0], answers[1], "{path}");
    }
}

#[tokio::test]
async fn a_manager_adds_nothing_from_where_its_grants_do_not_reach() {
    let guarded = guarded();
    let other = write_adapter(&guarded.folder.path().join("sources/other"), 1);
    let body = json!({"name": "team/stolen", "source": other});
    assert_eq!(guarded.post("m", "/v1/adapters", body.clone()).await.status, 403);
    assert_eq!(guarded.post("admin", "/v1/adapters", body).await.status, 201);
}

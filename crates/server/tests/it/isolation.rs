//! A key that may use one adapter cannot see, use, change, time or read from the cache anything of
//! another: a test for each way.
//!
//! What may not be used has to be answered as what is not there: bodies are compared after the one
//! name was put in the other's place.

use std::{fs, sync::mpsc, time::Duration};

use axum::{
    body::Body,
    http::{HeaderMap, Method, Request, header},
};
use futures_util::StreamExt as _;
use multigraft_access::{Grants, KeyLimits, NewKey, Role};
use multigraft_adapters::Residency;
use serde_json::{Value, json};
use tokio::time::timeout;
use tower::ServiceExt as _;

use crate::support::{
    Answer, BASE, Options,
    guarded::{NOBODY, guarded, guarded_with},
    write_adapter,
};

#[tokio::test]
async fn see_lists_hold_what_a_key_may_use_and_nothing_else() {
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
async fn see_errors_list_no_names_that_a_key_may_not_use() {
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
async fn see_how_others_use_an_adapter_and_the_server_is_for_admins() {
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
async fn use_by_any_name_in_any_dialect_is_answered_as_what_does_not_exist() {
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
async fn use_of_the_base_by_any_of_its_names_is_answered_as_what_does_not_exist() {
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
async fn use_by_number_counts_what_a_key_may_use() {
    let guarded = guarded();
    let body = |id: u32| json!({"lora": [{"id": id, "scale": 1}], "prompt": "a", "max_tokens": 1});
    let first = guarded.post("b", "/v1/completions", body(0)).await;
    assert_eq!(first.header("x-multigraft-adapter"), "team/three");
    let second = guarded.post("b", "/v1/completions", body(1)).await;
    assert_eq!(second.status, 400);
    assert!(second.text.contains("lists 1 adapters"), "{}", second.text);
}

#[tokio::test]
async fn use_of_a_source_for_the_first_time_wants_a_grant_for_its_name() {
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
async fn change_by_a_key_for_use_is_refused_whether_or_not_the_name_exists() {
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
async fn change_by_a_manager_does_not_tell_which_names_exist_outside_of_its_grants() {
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
async fn change_by_a_manager_adds_nothing_from_where_its_grants_do_not_reach() {
    let guarded = guarded();
    let other = write_adapter(&guarded.folder.path().join("sources/other"), 1);
    let body = json!({"name": "team/stolen", "source": other});
    assert_eq!(guarded.post("m", "/v1/adapters", body.clone()).await.status, 403);
    assert_eq!(guarded.post("admin", "/v1/adapters", body).await.status, 201);
}

#[tokio::test]
async fn cache_of_a_tenant_is_not_found_by_another_even_with_the_same_cache_salt() {
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
async fn cache_is_everybodys_only_under_an_adapter_that_an_admin_marked_as_shared() {
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

/// An answer's headers, but for the request's own id.
fn told(answer: &Answer) -> HeaderMap {
    let mut headers = answer.headers.clone();
    headers.remove("x-request-id");
    headers
}

#[tokio::test]
async fn see_events_are_of_what_a_key_may_use() {
    let guarded = guarded();
    let request = Request::get("/v1/adapters/events")
        .header(header::AUTHORIZATION, format!("Bearer {}", guarded.secret("b")))
        .header(header::ACCEPT, "text/event-stream")
        .body(Body::empty());
    let response = guarded.server.router.clone().oneshot(request.unwrap()).await;
    let mut events = response.unwrap().into_body().into_data_stream();
    // First what is not b's, then what is: the second arrives, and nothing of the first.
    for name in ["two", "team/three"] {
        let removed = guarded
            .send(
                "admin",
                Method::DELETE,
                &format!("/v1/adapters/{name}"),
                json!({}),
            )
            .await;
        assert_eq!(removed.status, 204);
    }
    let mut text = String::new();
    while !text.contains("team/three") {
        let next = timeout(Duration::from_secs(60), events.next()).await.unwrap();
        text.push_str(std::str::from_utf8(&next.unwrap().unwrap()).unwrap());
    }
    assert!(!text.contains("two"), "{text}");
}

#[tokio::test]
async fn see_metrics_figures_and_keys_are_admins_and_usage_is_ones_own() {
    let guarded = guarded();
    for (key, model) in [("a", "two"), ("b", "team/three")] {
        let body = json!({"model": model, "prompt": "a", "max_tokens": 1});
        assert_eq!(guarded.post(key, "/v1/completions", body).await.status, 200);
    }
    for key in ["a", "m"] {
        for path in ["/metrics", "/stats", "/v1/keys", "/v1/keys/b"] {
            let answer = guarded.get(key, path).await;
            assert_eq!(answer.status, 403, "{path}");
            assert!(!answer.text.contains("team/three"), "{path}: {}", answer.text);
        }
    }
    let own = guarded.get("a", "/v1/usage?by=key,tenant,adapter,hour").await;
    assert!(
        own.text.contains("two") && !own.text.contains("team/three"),
        "{}",
        own.text
    );
    assert_eq!(own.json()["data"].as_array().unwrap().len(), 1, "{}", own.text);
    let all = guarded.get("admin", "/v1/usage?by=adapter").await.text;
    assert!(all.contains("two") && all.contains("team/three"), "{all}");
}

#[tokio::test]
async fn see_headers_name_what_answered_and_never_what_was_refused() {
    let guarded = guarded();
    let body = |model: &str| json!({"model": model, "prompt": "a", "max_tokens": 1});
    let answer = guarded.post("b", "/v1/completions", body("team/three")).await;
    assert_eq!(answer.header("x-multigraft-adapter"), "team/three");
    let forbidden = guarded.post("b", "/v1/completions", body("two")).await;
    let nothing = guarded.post("b", "/v1/completions", body(NOBODY)).await;
    assert_eq!(told(&forbidden), told(&nothing));
}

#[tokio::test]
async fn use_by_the_fields_and_spellings_of_others_is_answered_as_what_does_not_exist() {
    let guarded = guarded();
    let chat = json!([{"role": "user", "content": "a"}]);
    let both = json!({"ids": ["NAME", "team/three"], "weights": [0.0, 1.0]});
    for (path, body) in [
        (
            "/invocations",
            json!({"inputs": "a", "parameters": {"adapter_id": "NAME"}}),
        ),
        (
            "/v1/completions",
            json!({"model": "NAME", "prompt": "a", "stream": true}),
        ),
        (
            "/v1/completions",
            json!({"model": "NAME", "prompt": "a", "adapter_scale": 0}),
        ),
        (
            "/v1/completions",
            json!({"model": "NAME", "prompt": ["a", "b"], "n": 2}),
        ),
        (
            "/v1/completions",
            json!({"model": format!("{BASE}:NAME"), "prompt": "a"}),
        ),
        ("/v1/completions", json!({"model": "hf://NAME", "prompt": "a"})),
        ("/v1/completions", json!({"model": "./NAME", "prompt": "a"})),
        (
            "/v1/completions",
            json!({"model": "/adapters/NAME", "prompt": "a"}),
        ),
        (
            "/v1/completions",
            json!({"adapters": [{"id": "team/three"}, {"id": "NAME", "weight": 0}], "prompt": "a"}),
        ),
        (
            "/v1/chat/completions",
            json!({"adapters": [{"id": "NAME", "weight": 0}], "messages": chat}),
        ),
        (
            "/generate",
            json!({"inputs": "a", "parameters": {"merged_adapters": both}}),
        ),
        (
            "/v1/embeddings",
            json!({"adapters": [{"id": "NAME"}], "input": "a"}),
        ),
    ] {
        guarded
            .looks_like_nothing("b", Method::POST, path, body, "two")
            .await;
    }
    // An adapter's hash is no name of it.
    let hash = crate::support::hash(2);
    let body = json!({"model": hash, "prompt": "a"});
    assert_eq!(guarded.post("b", "/v1/completions", body).await.status, 404);
    // Headers choose nothing.
    for header in ["x-multigraft-adapter", "adapter_id", "x-adapter-id", "x-model"] {
        let request = Request::post("/v1/completions")
            .header(header::AUTHORIZATION, format!("Bearer {}", guarded.secret("b")))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header, "two")
            .body(Body::from(
                json!({"model": "team/three", "prompt": "a", "max_tokens": 1}).to_string(),
            ));
        let answer = guarded.server.send(request.unwrap()).await;
        assert_eq!(answer.header("x-multigraft-adapter"), "team/three", "{header}");
    }
}

#[tokio::test]
async fn change_by_an_upload_over_it_does_not_tell_which_names_exist() {
    let guarded = guarded();
    for key in ["b", "m"] {
        let mut answers = Vec::new();
        for name in ["two", NOBODY] {
            for path in ["upload", "upload?replace=true"] {
                let body = json!({});
                let answer = guarded
                    .post(key, &format!("/v1/adapters/{name}/{path}"), body)
                    .await;
                answers.push((answer.status, answer.text.replace(name, "NAME")));
            }
        }
        assert_eq!(answers[0].0, 403, "{answers:?}");
        assert_eq!(answers[..2], answers[2..], "{key}");
    }
    let two = guarded.get("admin", "/v1/adapters/two").await.json();
    assert_eq!(two["hash"], crate::support::hash(2));
}

#[tokio::test]
async fn change_by_a_manager_does_not_tell_which_files_exist_outside_of_its_grants() {
    let guarded = guarded();
    let sources = guarded.folder.path().join("sources");
    write_adapter(&sources.join("other"), 1);
    write_adapter(&sources.join("other/inner"), 1);
    write_adapter(&sources.join("team-x"), 1);
    fs::create_dir(sources.join("empty")).unwrap();
    // An adapter with a file that leads out of what is allowed.
    write_adapter(&sources.join("leads"), 1);
    fs::remove_file(sources.join("leads/adapter_model.safetensors")).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink("/etc/hostname", sources.join("leads/adapter_model.safetensors")).unwrap();
    let sources = sources.canonicalize().unwrap();
    for (there, not_there) in [
        ("other", "owher"),
        ("empty", "emty2"),
        ("leads", "loads"),
        ("other/inner", "other/inter"),
        ("other/inner", "owher/inner"),
        ("other/adapter_config.json", "owher/adapter_config.json"),
        ("team-x/../other", "team-x/../owher"),
        ("../data/keys.sqlite", "../data/koys.sqlite"),
        ("/etc/hostname", "/etc/hostnome"),
    ] {
        for (path, field) in [
            ("/v1/adapters", ["name", "source"]),
            ("/v1/load_lora_adapter", ["lora_name", "lora_path"]),
            ("/load_lora_adapter", ["lora_name", "lora_path"]),
        ] {
            for name in ["team/new", "two", "team/three"] {
                let mut answers = Vec::new();
                for file in [there, not_there] {
                    let source = sources.join(file).display().to_string();
                    let body = json!({field[0]: name, field[1]: source});
                    let answer = guarded.post("m", path, body).await;
                    answers.push((answer.status, answer.text.replace(&source, "SOURCE")));
                }
                assert_eq!(answers[0], answers[1], "{path} {name} {there}");
                assert!(
                    answers[0].0.is_client_error(),
                    "{path} {name} {there}: {}",
                    answers[0].1
                );
            }
        }
        // Nor by a request.
        let mut answers = Vec::new();
        for file in [there, not_there] {
            let source = sources.join(file).display().to_string();
            let answer = guarded
                .post("m", "/v1/completions", json!({"model": source, "prompt": "a"}))
                .await;
            answers.push((answer.status, answer.text.replace(&source, "SOURCE")));
        }
        assert_eq!(answers[0], answers[1], "{there}");
    }
    // Within them it is told what is wrong.
    let missing = json!({"name": "team/new", "source": sources.join("team-y").display().to_string()});
    assert_eq!(guarded.post("m", "/v1/adapters", missing).await.status, 404);
    let there = json!({"name": "team/new", "source": sources.join("team-x").display().to_string()});
    assert_eq!(guarded.post("m", "/v1/adapters", there).await.status, 201);
}

#[tokio::test]
async fn time_a_forbidden_name_is_refused_before_anything_of_it_is_touched() {
    // Nothing is ever loaded: whoever waited for it would wait for long.
    let (_load, gate) = mpsc::channel();
    let guarded = guarded_with(Options {
        load_gate: Some(gate),
        ..Options::default()
    });
    let path = write_adapter(&guarded.folder.path().join("sources/other"), 1);
    let cold = multigraft_adapters::Source {
        name: "cold".to_owned(),
        at: multigraft_sources::Reference::Folder(path.into()),
    };
    guarded.server.registry.register(cold).unwrap();
    let touched = || {
        let listed = guarded.server.registry.listed("cold").unwrap();
        (
            listed.requests,
            listed.last_used,
            matches!(listed.residency, Residency::Cold),
        )
    };
    let ask = async |key: &str, name: &str| {
        let body = json!({"model": name, "prompt": "a", "max_tokens": 1});
        let asked = guarded.post(key, "/v1/completions", body);
        timeout(Duration::from_secs(20), asked).await.unwrap()
    };
    let (forbidden, nothing) = (ask("b", "cold").await, ask("b", "clod").await);
    assert_eq!(forbidden.status, 404);
    assert_eq!(
        forbidden.text.replace("cold", "NAME"),
        nothing.text.replace("clod", "NAME")
    );
    assert_eq!(told(&forbidden), told(&nothing));
    let removed = guarded
        .send("m", Method::DELETE, "/v1/adapters/cold", json!({}))
        .await;
    assert_eq!(removed.status, 404);
    assert_eq!(touched(), (0, None, true));
}

#[tokio::test]
async fn time_a_forbidden_name_takes_nothing_of_its_limits_and_hears_of_none() {
    let guarded = guarded();
    let limits = json!({"limits": {"requests_per_minute": 1}});
    let set = guarded
        .send("admin", Method::PATCH, "/v1/adapters/two", limits)
        .await;
    assert_eq!(set.status, 200, "{}", set.text);
    let body = json!({"model": "two", "prompt": "a", "max_tokens": 1});
    for _ in 0..3 {
        assert_eq!(
            guarded.post("b", "/v1/completions", body.clone()).await.status,
            404
        );
    }
    assert_eq!(
        guarded.post("a", "/v1/completions", body.clone()).await.status,
        200
    );
    assert_eq!(
        guarded.post("a", "/v1/completions", body.clone()).await.status,
        429
    );
    // Spent or not, it looks the same from outside.
    assert_eq!(guarded.post("b", "/v1/completions", body).await.status, 404);
}

#[tokio::test]
async fn cache_of_one_adapter_is_not_found_under_another_nor_under_another_salt() {
    let guarded = guarded();
    let store = guarded.access.store();
    let secret = |name: &str, tenant: &str| {
        let new = NewKey {
            name: name.to_owned(),
            role: Role::Use,
            tenant: Some(tenant.to_owned()),
            grants: Grants::all(),
            limits: KeyLimits::default(),
            expires: None,
        };
        store.add(&new).unwrap().1.reveal().to_owned()
    };
    let keys = [
        secret("c", "t"),
        secret("d", "t"),
        secret("e", "ts"),
        secret("f", "s"),
    ];
    guarded.access.refresh().unwrap();
    let cached = async |key: usize, model: &str, salt: Option<&str>| {
        let body = json!({"model": model, "prompt": "a".repeat(100), "max_tokens": 1, "cache_salt": salt});
        let request = Request::post("/v1/completions")
            .header(header::AUTHORIZATION, format!("Bearer {}", keys[key]))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_string()));
        let answer = guarded.server.send(request.unwrap()).await;
        let usage = &answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"];
        usage.as_u64().unwrap_or_else(|| panic!("{}", answer.text))
    };
    assert_eq!(cached(0, "two", Some("s")).await, 0);
    // Of the same tenant, with the same salt: its own.
    assert!(cached(1, "two", Some("s")).await > 0);
    // Another adapter, the base, another salt, none, and tenants that spell tenant and salt
    // otherwise.
    for (key, model, salt) in [
        (0, "team/three", Some("s")),
        (0, BASE, Some("s")),
        (0, "two", Some("S")),
        (0, "two", None),
        (2, "two", None),
        (3, "two", Some("t")),
        (3, "two", Some("s")),
    ] {
        assert_eq!(cached(key, model, salt).await, 0, "{key} {model} {salt:?}");
    }
}

#[tokio::test]
async fn cache_says_nothing_of_a_forbidden_adapter_whatever_was_computed_under_it() {
    let guarded = guarded();
    let body = |model: &str| json!({"model": model, "prompt": "a".repeat(100), "max_tokens": 1});
    let before = guarded.post("b", "/v1/completions", body("two")).await;
    for _ in 0..2 {
        assert_eq!(
            guarded.post("a", "/v1/completions", body("two")).await.status,
            200
        );
    }
    let after = guarded.post("b", "/v1/completions", body("two")).await;
    assert_eq!((before.status, before.text), (after.status, after.text));
    // What b may use was not computed by anybody yet, whatever a had computed.
    let own = guarded
        .post("b", "/v1/completions", body("team/three"))
        .await
        .json();
    assert_eq!(own["usage"]["prompt_tokens_details"]["cached_tokens"], 0, "{own}");
}

//! Adding, replacing and removing adapters over HTTP, in our own dialect and in those of vLLM,
//! SGLang and llama.cpp.

use std::sync::mpsc;
use std::time::Duration;

use axum::http::Method;
use multigraft_server::Limits;
use multigraft_sources::AllowedSource;
use serde_json::{Value, json};

use crate::support::{Answer, BASE, Options, Server, hash, send, server, server_with, write_adapter};

/// A server that allows one folder.
fn allowing(dir: &tempfile::TempDir) -> Server {
    server_with(Options {
        allowed: vec![AllowedSource::Folder(dir.path().to_owned())],
        ..Options::default()
    })
}

async fn complete(server: &Server, model: &str) -> Answer {
    let body = json!({"model": model, "prompt": "a", "max_tokens": 1});
    server.post("/v1/completions", body).await
}

#[tokio::test]
async fn vllms_routes_add_and_remove_an_adapter() {
    let dir = tempfile::tempdir().unwrap();
    let path = write_adapter(&dir.path().join("new"), 1);
    let server = allowing(&dir);
    assert_eq!(complete(&server, "new").await.status, 404);
    let load = json!({"lora_name": "new", "lora_path": path});
    let loaded = server.post("/v1/load_lora_adapter", load.clone()).await;
    assert_eq!(
        (loaded.status.as_u16(), loaded.text.as_str()),
        (200, "Success: LoRA adapter 'new' added successfully.")
    );
    let answer = complete(&server, "new").await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("x-multigraft-adapter")),
        (200, "new")
    );
    let models = server.get("/v1/models").await.json();
    let model = models["data"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(
        (&model["id"], &model["root"], &model["parent"]),
        (&json!("new"), &json!(path), &json!(BASE))
    );
    assert_eq!(model["hash"], answer.header("x-multigraft-adapter-hash"));

    let again = server.post("/v1/load_lora_adapter", load).await;
    assert_eq!(
        (again.status.as_u16(), &again.json()["error"]["type"]),
        (400, &json!("InvalidUserInput"))
    );
    let missing = server
        .post("/v1/load_lora_adapter", json!({"lora_name": "x"}))
        .await;
    assert_eq!(
        missing.json()["error"]["message"],
        "Both 'lora_name' and 'lora_path' must be provided."
    );
    let nowhere = json!({"lora_name": "x", "lora_path": dir.path().join("none").display().to_string()});
    let nowhere = server.post("/v1/load_lora_adapter", nowhere).await;
    assert_eq!(
        (nowhere.status.as_u16(), &nowhere.json()["error"]["type"]),
        (404, &json!("NotFoundError"))
    );

    let unload = json!({"lora_name": "new"});
    let gone = server.post("/v1/unload_lora_adapter", unload.clone()).await;
    assert_eq!(
        (gone.status.as_u16(), gone.text.as_str()),
        (200, "Success: LoRA adapter 'new' removed successfully.")
    );
    assert_eq!(complete(&server, "new").await.status, 404);
    let twice = server.post("/v1/unload_lora_adapter", unload).await;
    assert_eq!(twice.status, 404);
    assert_eq!(
        twice.json()["error"]["message"],
        "The lora adapter 'new' cannot be found."
    );
    let base = server
        .post("/v1/unload_lora_adapter", json!({"lora_name": BASE}))
        .await;
    assert_eq!(base.status, 400);
}

#[tokio::test]
async fn loading_in_place_replaces_and_answers_say_which_version_they_are_of() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (
        write_adapter(&dir.path().join("one"), 1),
        write_adapter(&dir.path().join("two"), 2),
    );
    let server = allowing(&dir);
    let load = |path: &str| json!({"lora_name": "a", "lora_path": path, "load_inplace": true});
    assert_eq!(server.post("/v1/load_lora_adapter", load(&one)).await.status, 200);
    let first = complete(&server, "a")
        .await
        .header("x-multigraft-adapter-hash")
        .to_owned();
    assert_eq!(server.post("/v1/load_lora_adapter", load(&two)).await.status, 200);
    let second = complete(&server, "a")
        .await
        .header("x-multigraft-adapter-hash")
        .to_owned();
    assert_ne!(first, second);

    let shown = server.get("/v1/adapters/a").await.json();
    assert_eq!(
        (&shown["state"], &shown["hash"]),
        (&json!("resident"), &json!(second))
    );
    let versions: Vec<(&Value, &Value)> = shown["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| (&v["hash"], &v["active"]))
        .collect();
    assert_eq!(
        versions,
        [(&json!(first), &json!(false)), (&json!(second), &json!(true))]
    );

    let back = send(
        &server,
        Method::PATCH,
        "/v1/adapters/a",
        json!({"active": "previous"}),
    )
    .await;
    assert_eq!((back.status.as_u16(), &back.json()["hash"]), (200, &json!(first)));
    assert_eq!(
        complete(&server, "a").await.header("x-multigraft-adapter-hash"),
        first
    );
    let forward = send(
        &server,
        Method::PATCH,
        "/v1/adapters/a",
        json!({"active": second, "pinned": true}),
    )
    .await;
    assert_eq!(
        (&forward.json()["hash"], &forward.json()["pinned"]),
        (&json!(second), &json!(true))
    );
    let wrong = send(
        &server,
        Method::PATCH,
        "/v1/adapters/a",
        json!({"active": "yesterday"}),
    )
    .await;
    assert_eq!(
        (wrong.status.as_u16(), &wrong.json()["error"]["param"]),
        (400, &json!("active"))
    );
    let none = send(
        &server,
        Method::PATCH,
        "/v1/adapters/a",
        json!({"active": hash(9)}),
    )
    .await;
    assert_eq!(none.status, 400);
    assert_eq!(
        send(&server, Method::PATCH, "/v1/adapters/b", json!({"pinned": true}))
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn our_own_routes_add_show_and_remove() {
    let dir = tempfile::tempdir().unwrap();
    let path = write_adapter(&dir.path().join("new"), 1);
    let server = allowing(&dir);
    let add = json!({"name": "team/new", "source": path, "pinned": true});
    let added = server.post("/v1/adapters", add.clone()).await;
    assert_eq!(added.status, 201);
    let added = added.json();
    assert_eq!(
        (&added["name"], &added["state"], &added["pinned"]),
        (&json!("team/new"), &json!("resident"), &json!(true))
    );
    assert_eq!(
        (&added["bytes"], &added["info"]["ranks"]),
        (&json!(16), &json!([1, 1]))
    );
    let taken = server.post("/v1/adapters", add).await;
    assert_eq!(taken.status, 400);
    let listed = server.get("/v1/adapters").await.json();
    let names: Vec<&Value> = listed["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|adapter| &adapter["name"])
        .collect();
    assert_eq!(names, ["two", "team/three", "team/new"]);
    assert_eq!(
        listed["memory"],
        json!({"bytes": 16, "limit": null, "budget": null})
    );
    assert_eq!(
        send(&server, Method::DELETE, "/v1/adapters/team/new", json!({}))
            .await
            .status,
        204
    );
    assert_eq!(server.get("/v1/adapters/team/new").await.status, 404);
    let nameless = server.post("/v1/adapters", json!({"source": path})).await;
    assert_eq!(nameless.json()["error"]["message"], "`name` is missing");
    assert_eq!(
        send(&server, Method::PUT, "/v1/adapters", json!({}))
            .await
            .header("allow"),
        "GET,HEAD,POST"
    );
}

#[tokio::test]
async fn sglangs_routes_answer_with_what_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let path = write_adapter(&dir.path().join("new"), 1);
    let server = allowing(&dir);
    let load = json!({"lora_name": "new", "lora_path": path, "pinned": true});
    let loaded = server.post("/load_lora_adapter", load.clone()).await;
    assert_eq!(loaded.status, 200);
    let loaded = loaded.json();
    assert_eq!(
        (&loaded["success"], &loaded["error_message"]),
        (&json!(true), &Value::Null)
    );
    assert_eq!(loaded["loaded_adapters"]["new"], path);
    assert_eq!(server.get("/v1/adapters/new").await.json()["pinned"], true);
    let again = server.post("/load_lora_adapter", load).await;
    assert_eq!(
        (again.status.as_u16(), &again.json()["success"]),
        (400, &json!(false))
    );
    let gone = server
        .post("/unload_lora_adapter", json!({"lora_name": "new"}))
        .await;
    assert_eq!(
        (gone.status.as_u16(), gone.json()["loaded_adapters"].get("new")),
        (200, None)
    );
    let gone = server
        .post("/unload_lora_adapter", json!({"lora_name": "new"}))
        .await;
    assert_eq!(
        (gone.status.as_u16(), &gone.json()["success"]),
        (400, &json!(false))
    );
}

#[tokio::test]
async fn llama_cpps_list_has_every_adapter_and_its_global_scales_are_refused() {
    let server = server();
    let listed = server.get("/lora-adapters").await.json();
    assert_eq!(
        listed[0],
        json!({"id": 0, "path": "/adapters/two", "scale": 0.0, "name": "two"})
    );
    assert_eq!(listed.as_array().unwrap().len(), 2);
    let set = server
        .post("/lora-adapters", json!([{"id": 0, "scale": 1.0}]))
        .await;
    assert_eq!(set.status, 400);
    assert!(
        set.text.contains("chooses its adapter by its name"),
        "{}",
        set.text
    );
}

#[tokio::test]
async fn adapters_come_from_allowed_folders_alone() {
    let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = write_adapter(&outside.path().join("new"), 1);
    let server = allowing(&dir);
    let escape = format!(
        "{}/../{}/new",
        dir.path().display(),
        outside.path().file_name().unwrap().display()
    );
    for source in [path.as_str(), &escape, "/etc", "/no/such/folder"] {
        let refused = server
            .post("/v1/adapters", json!({"name": "new", "source": source}))
            .await;
        assert_eq!(
            (refused.status.as_u16(), &refused.json()["error"]["type"]),
            (403, &json!("PermissionDeniedError")),
            "{source}"
        );
        assert!(refused.text.contains("--allow-source"), "{}", refused.text);
    }
    assert_eq!(complete(&server, "new").await.status, 404);
}

#[tokio::test]
async fn an_adapter_that_does_not_fit_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let path = write_adapter(&dir.path().join("new"), 1);
    std::fs::write(dir.path().join("new/adapter_model.safetensors"), b"12345678").unwrap();
    let server = allowing(&dir);
    let refused = server
        .post("/v1/adapters", json!({"name": "new", "source": path}))
        .await;
    assert_eq!(
        (refused.status.as_u16(), &refused.json()["error"]["type"]),
        (400, &json!("InvalidUserInput"))
    );
    assert!(
        refused.text.contains("adapter_model.safetensors"),
        "{}",
        refused.text
    );
    assert_eq!(complete(&server, "new").await.status, 404);
}

/// A server that adds from `dir`, and loads when it is told to; requests wait so long for that.
fn gated(dir: &tempfile::TempDir, load_wait: Duration) -> (Server, mpsc::Sender<()>) {
    let (open, gate) = mpsc::channel();
    let server = server_with(Options {
        allowed: vec![AllowedSource::Folder(dir.path().to_owned())],
        load_gate: Some(gate),
        limits: Limits {
            load_wait,
            ..Limits::default()
        },
        ..Options::default()
    });
    (server, open)
}

#[tokio::test]
async fn requests_wait_for_their_adapter_but_not_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let path = write_adapter(&dir.path().join("new"), 1);
    let (server, open) = gated(&dir, Duration::from_millis(50));
    let add = server.post("/v1/adapters", json!({"name": "new", "source": path}));
    let asks = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let late = complete(&server, "new").await;
        assert_eq!((late.status.as_u16(), late.header("retry-after")), (503, "1"));
        assert!(late.text.contains("still being loaded"), "{}", late.text);
        // Nobody else waits.
        assert_eq!(complete(&server, "two").await.status, 200);
        assert_eq!(server.get("/v1/adapters/new").await.json()["state"], "loading");
        let wait = complete(&server, "new");
        open.send(()).unwrap();
        assert_eq!(wait.await.status, 200);
    };
    let (added, ()) = tokio::join!(add, asks);
    assert_eq!(added.status, 201);
}

#[tokio::test]
async fn defaults_are_checked_kept_and_used_where_a_request_says_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = write_adapter(&dir.path().join("new"), 1);
    let server = allowing(&dir);
    let add = json!({"name": "a", "source": path, "defaults": {"max_tokens": 1, "temperature": 0}});
    assert_eq!(server.post("/v1/adapters", add).await.status, 201);
    let length = async |body: Value| {
        let answer = server.post("/v1/completions", body).await;
        answer.json()["usage"]["completion_tokens"].clone()
    };
    assert_eq!(length(json!({"model": "a", "prompt": "a"})).await, 1);
    assert_eq!(
        length(json!({"model": "a", "prompt": "a", "max_tokens": 2})).await,
        2
    );
    assert_ne!(length(json!({"model": "two", "prompt": "a"})).await, 1);
    let parameters = json!({"adapter_id": "a", "details": true});
    let answer = server
        .post("/generate", json!({"inputs": "a", "parameters": parameters}))
        .await;
    assert_eq!(answer.json()["details"]["generated_tokens"], 1, "{}", answer.text);
    for (defaults, reason) in [
        (json!({"temperature": 9}), "temperature"),
        (json!({"top_p": 1.5}), "top_p"),
        (json!({"colour": 1}), "`defaults.colour` has no default"),
        (json!({"max_tokens": 1_u64 << 40}), "max_tokens"),
        (json!({"stop": [""]}), "stop"),
        (json!({"chat_template": "{% if %}"}), "defaults.chat_template"),
        (json!({"system": 1}), "defaults.system"),
        (json!("x"), "an object"),
    ] {
        let answer = send(
            &server,
            Method::PATCH,
            "/v1/adapters/a",
            json!({"defaults": defaults}),
        )
        .await;
        assert_eq!(answer.status, 400, "{}", answer.text);
        assert!(answer.text.contains(reason), "{reason}: {}", answer.text);
    }
    let shown = server.get("/v1/adapters/a").await.json();
    assert_eq!(shown["defaults"], json!({"max_tokens": 1, "temperature": 0}));
    let cleared = send(&server, Method::PATCH, "/v1/adapters/a", json!({"defaults": {}})).await;
    assert_eq!(cleared.json()["defaults"], Value::Null);
}

#[tokio::test]
async fn an_adapter_has_no_more_than_its_limits_allow_and_others_do_not_notice() {
    let server = server();
    let set = async |limits: Value| {
        let body = json!({"limits": limits});
        send(&server, Method::PATCH, "/v1/adapters/two", body).await
    };
    let usual = json!({"weight": 1.0, "requests_per_minute": null, "tokens_per_minute": null, "concurrent_requests": null, "shared_prefixes": false});
    assert_eq!(server.get("/v1/adapters/two").await.json()["limits"], usual);

    let changed = set(json!({"weight": 2, "requests_per_minute": 2})).await;
    assert_eq!(
        changed.json()["limits"]["requests_per_minute"],
        2,
        "{}",
        changed.text
    );
    for status in [200, 200, 429] {
        assert_eq!(complete(&server, "two").await.status, status);
    }
    let refused = complete(&server, "two").await;
    assert_eq!(refused.json()["error"]["type"], "RateLimitError");
    assert!(
        refused
            .text
            .contains("Rate limit of adapter `two` reached (2 requests per minute)"),
        "{}",
        refused.text
    );
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=30).contains(&wait), "{wait} s");
    assert_eq!(
        complete(&server, "team/three").await.status,
        200,
        "another adapter"
    );
    // Nor do they become more by naming it with others.
    let several = json!({"model": "alphabet", "prompt": "a", "adapters": [{"id": "two"}]});
    assert_eq!(server.post("/v1/completions", several).await.status, 429);
    let tgi = json!({"inputs": "a", "parameters": {"adapter_id": "two"}});
    assert_eq!(server.post("/generate", tgi).await.status, 429);

    // Answers count too: the next request waits until they are paid for.
    assert_eq!(set(json!({"tokens_per_minute": 5})).await.status, 200);
    let long = json!({"model": "two", "prompt": "a", "max_tokens": 20, "ignore_eos": true});
    assert_eq!(server.post("/v1/completions", long).await.status, 200);
    let refused = complete(&server, "two").await;
    assert_eq!(refused.status, 429);
    assert!(refused.text.contains("(5 tokens per minute)"), "{}", refused.text);

    // What makes no sense is refused, and nothing has changed.
    for (limits, reason) in [
        (json!({"weight": 0}), "weight"),
        (json!({"weight": -1}), "weight"),
        (json!({"requests_per_minute": 0}), "limits"),
        (json!({"requests": 3}), "requests"),
        (json!(7), "an object"),
    ] {
        let refused = set(limits).await;
        assert_eq!(refused.status, 400, "{}", refused.text);
        assert!(refused.text.contains(reason), "{}", refused.text);
    }
    assert_eq!(
        server.get("/v1/adapters/two").await.json()["limits"]["tokens_per_minute"],
        5
    );
    assert_eq!(set(json!({})).await.json()["limits"], usual);
    assert_eq!(complete(&server, "two").await.status, 200);
}

#[tokio::test]
async fn an_adapter_has_no_more_requests_at_once_than_it_may() {
    let (open, gate) = mpsc::channel();
    let server = server_with(Options {
        gate: Some(gate),
        ..Options::default()
    });
    let body = json!({"limits": {"concurrent_requests": 1}});
    assert_eq!(
        send(&server, Method::PATCH, "/v1/adapters/two", body)
            .await
            .status,
        200
    );
    let first = complete(&server, "two");
    let others = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let refused = complete(&server, "two").await;
        assert_eq!(
            (refused.status.as_u16(), refused.header("retry-after")),
            (429, "1")
        );
        assert!(
            refused
                .text
                .contains("Concurrency limit of adapter `two` reached (concurrent requests: 1)"),
            "{}",
            refused.text
        );
        drop(open);
    };
    let (first, ()) = tokio::join!(first, others);
    assert_eq!(first.status, 200);
    assert_eq!(complete(&server, "two").await.status, 200, "the first has ended");
}

#[tokio::test]
async fn a_request_that_waits_for_its_adapter_has_a_place_among_those_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = write_adapter(&dir.path().join("new"), 1);
    let (server, open) = gated(&dir, Limits::default().load_wait);
    let add = json!({"name": "new", "source": path, "limits": {"concurrent_requests": 1}});
    let add = server.post("/v1/adapters", add);
    let asks = async {
        while server.get("/v1/adapters/new").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let waiting = complete(&server, "new");
        let others = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let refused = complete(&server, "new").await;
            assert_eq!(refused.status, 429, "{}", refused.text);
            assert!(
                refused
                    .text
                    .contains("Concurrency limit of adapter `new` reached (concurrent requests: 1)"),
                "{}",
                refused.text
            );
            open.send(()).unwrap();
        };
        let (waited, ()) = tokio::join!(waiting, others);
        assert_eq!(waited.status, 200);
        assert_eq!(complete(&server, "new").await.status, 200, "the first has ended");
    };
    let (added, ()) = tokio::join!(add, asks);
    assert_eq!(added.status, 201, "{}", added.text);
}

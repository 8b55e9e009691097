//! What is counted of requests, and who sees it.

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use axum::{body::Body, http::Request};
use multigraft_access::{Access, Grants, KeyLimits, NewKey, Role, Store};
use multigraft_engine::EngineOptions;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::support::{Answer, BASE, Options, Server, server, server_with};

/// A server with an admin's key `boss`, and `a` and `b` of the tenant `t`.
struct Counted {
    server: Server,
    secrets: Vec<String>,
    _folder: tempfile::TempDir,
}

const KEYS: [&str; 3] = ["boss", "a", "b"];

fn counted(options: Options) -> Counted {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let secrets = KEYS.map(|name| {
        let new = NewKey {
            name: name.to_owned(),
            role: if name == "boss" { Role::Admin } else { Role::Use },
            tenant: Some("t".to_owned()),
            grants: Grants::all(),
            limits: KeyLimits::default(),
            expires: None,
        };
        store.add(&new).unwrap().1.reveal().to_owned()
    });
    Counted {
        server: server_with(Options {
            access: Some(Arc::new(Access::new(store).unwrap())),
            ..options
        }),
        secrets: secrets.to_vec(),
        _folder: folder,
    }
}

impl Counted {
    fn request(&self, key: &str, path: &str, body: Option<&Value>) -> Request<Body> {
        let secret = &self.secrets[KEYS.iter().position(|name| *name == key).unwrap()];
        Request::builder()
            .method(if body.is_some() { "POST" } else { "GET" })
            .uri(path)
            .header("authorization", format!("Bearer {secret}"))
            .header("content-type", "application/json")
            .body(body.map_or_else(Body::empty, |body| Body::from(body.to_string())))
            .unwrap()
    }

    async fn complete(&self, key: &str, body: Value) -> Answer {
        self.server
            .send(self.request(key, "/v1/completions", Some(&body)))
            .await
    }

    async fn usage(&self, key: &str, query: &str) -> Vec<Value> {
        let answer = self
            .server
            .send(self.request(key, &format!("/v1/usage{query}"), None))
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()["data"].as_array().unwrap().clone()
    }
}

/// A row's requests, prompt tokens, cached ones, generated ones, errors, refusals.
fn counts(row: &Value) -> [u64; 6] {
    [
        "requests",
        "prompt_tokens",
        "cached_prompt_tokens",
        "generated_tokens",
        "errors",
        "refused",
    ]
    .map(|name| row[name].as_u64().unwrap_or_else(|| panic!("{row}")))
}

#[tokio::test]
async fn tokens_are_counted_for_the_key_and_the_adapter_and_as_the_answers_say() {
    let counted = counted(Options::default());
    let prompt = "a".repeat(40);
    let body = |model: &str| json!({"model": model, "prompt": prompt, "max_tokens": 3, "ignore_eos": true});
    let mut told = [0; 3];
    for _ in 0..2 {
        let usage = counted.complete("a", body("two")).await.json()["usage"].clone();
        told[0] += usage["prompt_tokens"].as_u64().unwrap();
        told[1] += usage["prompt_tokens_details"]["cached_tokens"]
            .as_u64()
            .unwrap_or(0);
        told[2] += usage["completion_tokens"].as_u64().unwrap();
    }
    counted.complete("b", body("two")).await;
    counted.complete("b", body(BASE)).await;
    let [prompts, cached, generated] = told;
    assert!(cached >= 32 && generated == 6, "{told:?}");

    let rows = counted.usage("boss", "?by=key,adapter,hour").await;
    let found = rows.iter().map(|row| {
        (
            row["key_name"].as_str().unwrap(),
            row["adapter"].as_str().unwrap(),
        )
    });
    let mut found: Vec<_> = found.collect();
    found.sort_unstable();
    assert_eq!(found, [("a", "two"), ("b", BASE), ("b", "two")]);
    let own = rows.iter().find(|row| row["key_name"] == "a").unwrap();
    assert_eq!(counts(own), [2, prompts, cached, generated, 0, 0]);
    assert_eq!(own["start"].as_u64().unwrap() % 3600, 0);

    // Others see what is their key's, and only that.
    let rows = counted.usage("a", "?by=key,tenant,adapter").await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(
        (&rows[0]["key_name"], &rows[0]["tenant"]),
        (&json!("a"), &json!("t"))
    );
    let rows = counted.usage("boss", "?by=tenant").await;
    assert_eq!((rows.len(), counts(&rows[0])[0]), (1, 4));
    assert!(
        rows[0].get("key").is_none() && rows[0].get("adapter").is_none(),
        "{rows:?}"
    );
}

#[tokio::test]
async fn a_prompt_counts_once_for_each_choice_and_a_request_once() {
    let counted = counted(Options::default());
    let body = json!({"model": "two", "prompt": "aa", "max_tokens": 2, "n": 3, "ignore_eos": true});
    assert_eq!(counted.complete("a", body).await.status, 200);
    assert_eq!(counts(&counted.usage("a", "").await[0]), [1, 6, 0, 6, 0, 0]);
    let several = json!({"adapters": [{"id": "two"}, {"id": "team/three"}], "prompt": "a", "max_tokens": 1});
    counted.complete("b", several).await;
    let rows = counted.usage("b", "?by=adapter").await;
    assert!(rows.len() <= 1, "{rows:?}");
}

#[tokio::test]
async fn a_stream_that_is_cut_off_counts_what_was_made() {
    let (step, gate) = mpsc::channel();
    let counted = counted(Options {
        gate: Some(gate),
        ..Options::default()
    });
    let body =
        json!({"model": "two", "prompt": "aaa", "max_tokens": 500, "ignore_eos": true, "stream": true});
    let request = counted.request("a", "/v1/completions", Some(&body));
    let response = counted.server.router.clone().oneshot(request).await.unwrap();
    // The prompt's step gives the first token, each other one more.
    for _ in 0..4 {
        step.send(()).unwrap();
    }
    while counted.server.engine.stats().generated_tokens < 4 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(response);
    // Whatever the engine still has to do until it looks.
    let generated = loop {
        let _ = step.send(());
        if let Some(row) = counted.usage("a", "").await.first() {
            let [requests, prompt, _, generated, errors, refused] = counts(row);
            assert_eq!([requests, prompt, errors, refused], [1, 3, 0, 0]);
            break generated;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert!((4..500).contains(&generated), "{generated}");
}

#[tokio::test]
async fn what_is_refused_is_counted_and_what_nobody_registered_is_not() {
    // The engine computes nothing meanwhile, so that there is never room for all choices.
    let (gate, gated) = mpsc::channel();
    let counted = counted(Options {
        gate: Some(gated),
        engine: EngineOptions {
            max_running: 1,
            max_waiting: 1,
            ..EngineOptions::default()
        },
        ..Options::default()
    });
    let body = json!({"model": "two", "prompt": "a", "max_tokens": 1, "n": 9});
    assert_eq!(counted.complete("a", body).await.status, 429);
    drop(gate);
    for name in ["none", "", "x/y"] {
        let body = json!({"model": format!("{name}?"), "prompt": "a"});
        assert_eq!(counted.complete("a", body).await.status, 404);
    }
    // It is counted when the engine has let go of the choices that it had taken.
    let rows = loop {
        let rows = counted.usage("boss", "?by=adapter,key").await;
        if !rows.is_empty() {
            break rows;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(
        (&rows[0]["adapter"], counts(&rows[0])),
        (&json!("two"), [0, 0, 0, 0, 0, 1])
    );
}

#[tokio::test]
async fn without_keys_there_is_usage_of_adapters_and_without_a_data_folder_there_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let server_of = server_with(Options {
        access: Some(Arc::new(
            Access::new(Store::open(folder.path()).unwrap()).unwrap(),
        )),
        ..Options::default()
    });
    let body = json!({"model": "two", "prompt": "a", "max_tokens": 1});
    assert_eq!(server_of.post("/v1/completions", body).await.status, 200);
    let rows = server_of.get("/v1/usage?by=adapter,key").await.json()["data"].clone();
    assert_eq!(counts(&rows[0]), [1, 1, 0, 1, 0, 0]);
    assert_eq!(
        (&rows[0]["adapter"], &rows[0]["key"]),
        (&json!("two"), &Value::Null)
    );
    let answer = server().get("/v1/usage").await;
    assert_eq!(answer.status, 404);
    assert!(answer.text.contains("--data"), "{}", answer.text);
}

#[tokio::test]
async fn a_wrong_question_is_refused_by_name() {
    let counted = counted(Options::default());
    for (query, says) in [
        ("?by=week", "`by`"),
        ("?by=hour,day", "more than one"),
        ("?from=yesterday", "`from`"),
        ("?to=-1", "`to`"),
        ("?until=5", "until"),
    ] {
        let answer = counted
            .server
            .send(counted.request("boss", &format!("/v1/usage{query}"), None))
            .await;
        assert_eq!(answer.status, 400, "{query}: {}", answer.text);
        assert!(answer.text.contains(says), "{query}: {}", answer.text);
    }
    assert!(
        counted
            .usage("boss", "?from=2020-01-01&to=2020-02-01")
            .await
            .is_empty()
    );
}

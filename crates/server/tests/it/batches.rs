//! Files and batches, as OpenAI's clients see them.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, mpsc},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    body::Body,
    http::{Method, Request, header},
};
use multigraft_access::{Access, Admins, Grants, KeyLimits, NewKey, Role};
use multigraft_batches::{FileLimits, NewBatch, Purpose, Store, StoredFile};
use multigraft_engine::EngineOptions;
use multigraft_server::Limits;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Answer, BASE, Options, Server, server, server_with};

/// A client of a server, with a key or without.
struct Client<'a> {
    server: &'a Server,
    secret: Option<&'a str>,
}

fn client(server: &Server) -> Client<'_> {
    Client { server, secret: None }
}

impl Client<'_> {
    async fn send(&self, method: Method, path: &str, kind: &str, body: Body) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(secret) = self.secret {
            request = request.header(header::AUTHORIZATION, format!("Bearer {secret}"));
        }
        let request = request.header(header::CONTENT_TYPE, kind).body(body);
        self.server.send(request.unwrap()).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, "text/plain", Body::empty()).await
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        let body = Body::from(body.to_string());
        self.send(Method::POST, path, "application/json", body).await
    }

    async fn upload(&self, fields: &[(&str, &str)], text: &str) -> Answer {
        let mut form = String::new();
        for (name, value) in fields {
            form += &format!("--edge\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        }
        form += "--edge\r\nContent-Disposition: form-data; name=\"file\"; filename=\"lines.jsonl\"\r\n\r\n";
        form += &format!("{text}\r\n--edge--\r\n");
        let kind = "multipart/form-data; boundary=edge";
        self.send(Method::POST, "/v1/files", kind, Body::from(form)).await
    }

    /// The id of a file of these lines.
    async fn file(&self, lines: &[Value]) -> String {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let answer = self.upload(&[("purpose", "batch")], &text).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    async fn batch(&self, endpoint: &str, lines: &[Value]) -> String {
        let body = json!({"input_file_id": self.file(lines).await, "endpoint": endpoint, "completion_window": "24h",
            "metadata": {"job": "7"}});
        let answer = self.post("/v1/batches", body).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    /// The batch once it is as the condition wants it.
    async fn until(&self, id: &str, condition: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..12_000 {
            let batch = self.get(&format!("/v1/batches/{id}")).await.json();
            if condition(&batch) {
                return batch;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!(
            "it never came there: {}",
            self.get(&format!("/v1/batches/{id}")).await.text
        );
    }

    async fn ended(&self, id: &str) -> Value {
        let ends = ["completed", "failed", "expired", "cancelled"];
        self.until(id, |batch| ends.iter().any(|end| batch["status"] == *end))
            .await
    }

    /// The lines of the files of answers and of errors.
    async fn results(&self, batch: &Value) -> [Vec<Value>; 2] {
        let mut results = [Vec::new(), Vec::new()];
        for (lines, name) in results.iter_mut().zip(["output_file_id", "error_file_id"]) {
            if let Some(id) = batch[name].as_str() {
                let answer = self.get(&format!("/v1/files/{id}/content")).await;
                assert_eq!(answer.status, 200);
                lines.extend(
                    answer
                        .text
                        .lines()
                        .map(|line| serde_json::from_str::<Value>(line).unwrap()),
                );
            }
        }
        results
    }
}

fn keeping(options: Options) -> (Server, TempDir) {
    let data = tempfile::tempdir().unwrap();
    let server = server_with(Options {
        batches: Some(data.path().to_owned()),
        ..options
    });
    (server, data)
}

fn line(id: &str, url: &str, body: Value) -> Value {
    json!({"custom_id": id, "method": "POST", "url": url, "body": body})
}

/// So many completions, called `1`, `2`, …
fn completions(count: usize) -> Vec<Value> {
    let body = json!({"model": BASE, "prompt": "w"});
    (1..=count)
        .map(|id| line(&id.to_string(), "/v1/completions", body.clone()))
        .collect()
}

/// One sequence at a time, each step of which waits for a word.
fn gated() -> (Options, mpsc::Sender<()>) {
    let (step, gate) = mpsc::channel();
    let options = Options {
        gate: Some(gate),
        engine: EngineOptions {
            max_running: 1,
            ..EngineOptions::default()
        },
        ..Options::default()
    };
    (options, step)
}

/// The steps of a completion: three tokens and the end.
const STEPS: usize = 4;

#[tokio::test]
async fn a_batch_whose_file_has_vanished_fails_and_says_so() {
    let (server, data) = keeping(Options::default());
    let client = client(&server);
    let file = client.file(&completions(1)).await;
    std::fs::remove_file(data.path().join("files").join(&file)).unwrap();
    let body = json!({"input_file_id": file, "endpoint": "/v1/completions", "completion_window": "24h"});
    let begun = client.post("/v1/batches", body).await;
    assert_eq!(begun.status, 200, "{}", begun.text);
    let batch = client.ended(begun.json()["id"].as_str().unwrap()).await;
    assert_eq!(batch["status"], "failed");
    let error = &batch["errors"]["data"][0];
    assert_eq!(
        (&error["code"], &error["line"]),
        (&json!("file_not_found"), &Value::Null)
    );
    assert!(
        error["message"].as_str().unwrap().contains("upload it again"),
        "{error}"
    );
}

#[tokio::test]
async fn a_batch_answers_every_line_as_its_route_does() {
    let (server, _data) = keeping(Options::default());
    let client = client(&server);
    let chat = json!({"model": BASE, "messages": [{"role": "user", "content": "c"}], "max_tokens": 2});
    let cases = [
        (
            "/v1/completions",
            json!({"model": "two", "prompt": "w"}),
            "/choices/0/text",
            json!("y"),
        ),
        (
            "/v1/chat/completions",
            chat,
            "/choices/0/message/content",
            json!("ab"),
        ),
        (
            "/v1/responses",
            json!({"model": BASE, "input": "c", "max_output_tokens": 2}),
            "/output/0/content/0/text",
            json!("ab"),
        ),
        (
            "/v1/embeddings",
            json!({"model": BASE, "input": "c"}),
            "/object",
            json!("list"),
        ),
    ];
    for (url, body, pointer, expected) in cases {
        let lines = [
            line("good", url, body.clone()),
            line("bad", url, json!({"model": "nobody"})),
            line("also good", url, body),
        ];
        let batch = client.ended(&client.batch(url, &lines).await).await;
        assert_eq!(batch["status"], "completed", "{batch}");
        assert_eq!(
            batch["request_counts"],
            json!({"total": 3, "completed": 2, "failed": 1})
        );
        assert_eq!(
            (&batch["object"], &batch["endpoint"]),
            (&json!("batch"), &json!(url))
        );
        assert_eq!(batch["metadata"], json!({"job": "7"}));
        for time in [
            "created_at",
            "in_progress_at",
            "finalizing_at",
            "completed_at",
            "expires_at",
        ] {
            assert!(batch[time].is_u64(), "{time}: {batch}");
        }
        let [output, errors] = client.results(&batch).await;
        let ids: Vec<&Value> = output.iter().map(|line| &line["custom_id"]).collect();
        assert_eq!(ids, ["good", "also good"]);
        for line in &output {
            assert_eq!(
                (&line["response"]["status_code"], &line["error"]),
                (&json!(200), &Value::Null)
            );
            assert_eq!(
                line["response"]["body"].pointer(pointer),
                Some(&expected),
                "{line}"
            );
        }
        let [error] = errors.as_slice() else {
            panic!("one: {errors:?}")
        };
        assert_eq!(
            (&error["custom_id"], &error["error"]),
            (&json!("bad"), &Value::Null)
        );
        assert!(
            [400, 404]
                .iter()
                .any(|status| error["response"]["status_code"] == *status),
            "{error}"
        );
        assert!(error["response"]["body"]["error"]["message"].is_string());
    }
}

#[tokio::test]
async fn a_file_that_is_no_batch_is_told_line_by_line() {
    let (server, _data) = keeping(Options::default());
    let client = client(&server);
    let mut lines = completions(2);
    lines.push(lines[0].clone());
    lines.push(line("3", "/v1/embeddings", json!({})));
    lines.push(line("4", "/v1/completions", json!({"stream": true})));
    lines.push(json!(7));
    let batch = client.ended(&client.batch("/v1/completions", &lines).await).await;
    assert_eq!(batch["status"], "failed");
    let errors = batch["errors"]["data"].as_array().unwrap();
    let told: Vec<(&str, u64)> = errors
        .iter()
        .map(|error| (error["code"].as_str().unwrap(), error["line"].as_u64().unwrap()))
        .collect();
    assert_eq!(
        told,
        [
            ("duplicate_custom_id", 3),
            ("mismatched_url", 4),
            ("invalid_request", 5),
            ("invalid_json_line", 6)
        ]
    );
    assert_eq!(server.engine.stats().finished, 0, "nothing was run");
}

#[tokio::test]
async fn a_cancelled_batch_keeps_what_was_done_and_accounts_for_the_rest() {
    let (options, step) = gated();
    let (server, _data) = keeping(options);
    let client = client(&server);
    let id = client.batch("/v1/completions", &completions(3)).await;
    // One line, and the first step of the next.
    for _ in 0..=STEPS {
        step.send(()).unwrap();
    }
    client
        .until(&id, |batch| batch["request_counts"]["completed"] == 1)
        .await;
    while server.engine.stats().background == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(server.engine.stats().running, 0, "they run in the background");
    let input = client.get(&format!("/v1/batches/{id}")).await.json()["input_file_id"].clone();
    let path = format!("/v1/files/{}", input.as_str().unwrap());
    let in_use = client
        .send(Method::DELETE, &path, "text/plain", Body::empty())
        .await;
    assert_eq!(in_use.status, 409, "{}", in_use.text);
    for _ in 0..2 {
        let cancel = client.post(&format!("/v1/batches/{id}/cancel"), json!({})).await;
        assert_eq!(cancel.status, 200, "{}", cancel.text);
    }
    let batch = client.ended(&id).await;
    assert_eq!(batch["status"], "cancelled");
    assert_eq!(
        batch["request_counts"],
        json!({"total": 3, "completed": 1, "failed": 2})
    );
    let [output, errors] = client.results(&batch).await;
    assert_eq!(output[0]["custom_id"], "1");
    for (error, id) in errors.iter().zip(["2", "3"]) {
        assert_eq!(error["custom_id"], id);
        assert_eq!(
            (&error["response"], &error["error"]["code"]),
            (&Value::Null, &json!("batch_cancelled"))
        );
    }
    assert_eq!((output.len(), errors.len()), (1, 2));
    let gone = client
        .send(Method::DELETE, &path, "text/plain", Body::empty())
        .await;
    assert_eq!(gone.json()["deleted"], true);
    assert_eq!(client.get(&path).await.status, 404);
    drop(step);
    let done = client.batch("/v1/completions", &completions(1)).await;
    client.ended(&done).await;
    let late = client
        .post(&format!("/v1/batches/{done}/cancel"), json!({}))
        .await;
    assert_eq!(late.status, 409, "{}", late.text);
}

#[tokio::test]
async fn a_batch_goes_on_where_the_last_process_ended() {
    let (options, step) = gated();
    let (server, data) = keeping(options);
    let id = {
        let client = client(&server);
        let id = client.batch("/v1/completions", &completions(5)).await;
        for _ in 0..2 * STEPS {
            step.send(()).unwrap();
        }
        client
            .until(&id, |batch| batch["request_counts"]["completed"] == 2)
            .await;
        id
    };
    drop(server);
    let next = server_with(Options {
        batches: Some(data.path().to_owned()),
        ..Options::default()
    });
    let client = client(&next);
    let batch = client.ended(&id).await;
    assert_eq!(
        batch["request_counts"],
        json!({"total": 5, "completed": 5, "failed": 0})
    );
    assert_eq!(next.engine.stats().finished, 3, "what was done is not done again");
    let [output, errors] = client.results(&batch).await;
    let ids: Vec<&Value> = output.iter().map(|line| &line["custom_id"]).collect();
    assert_eq!(ids, ["1", "2", "3", "4", "5"]);
    assert!(errors.is_empty());
    // Until here the first engine has stood still.
    drop(step);
}

#[tokio::test]
async fn who_waits_is_answered_before_the_batch_goes_on() {
    let (options, step) = gated();
    let (server, _data) = keeping(options);
    let client = client(&server);
    let id = client.batch("/v1/completions", &completions(2)).await;
    // The first line is in the middle of its answer.
    step.send(()).unwrap();
    while server.engine.stats().steps == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let asking = server.clone();
    let asked = tokio::spawn(async move {
        let body = json!({"model": BASE, "prompt": "w"});
        asking.post("/v1/completions", body).await.json()
    });
    while server.engine.stats().waiting == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The step under way, and those of the one who waits.
    for _ in 0..=STEPS {
        step.send(()).unwrap();
    }
    assert_eq!(asked.await.unwrap()["choices"][0]["text"], "xyz");
    let batch = client.get(&format!("/v1/batches/{id}")).await.json();
    assert_eq!(batch["request_counts"]["completed"], 0, "{batch}");
    drop(step);
    let batch = client.ended(&id).await;
    let [output, _] = client.results(&batch).await;
    for line in output {
        assert_eq!(
            line["response"]["body"]["choices"][0]["text"], "xyz",
            "whatever came between"
        );
    }
}

#[tokio::test]
async fn tenants_do_not_see_each_other_and_a_key_that_is_gone_ends_its_lines() {
    let keys = tempfile::tempdir().unwrap();
    let store = multigraft_access::Store::open(keys.path()).unwrap();
    let mut secrets = Vec::new();
    for name in ["acme", "other"] {
        let new = NewKey {
            name: name.to_owned(),
            role: Role::Use,
            tenant: None,
            grants: Grants::parse(&["two"]).unwrap(),
            limits: KeyLimits::default(),
            expires: None,
        };
        secrets.push(store.add(&new).unwrap().1.reveal().to_owned());
    }
    let access = Arc::new(Access::new(store).unwrap());
    let (options, step) = gated();
    let (server, data) = keeping(Options {
        access: Some(Arc::clone(&access)),
        ..options
    });
    let of = |secret| Client {
        server: &server,
        secret: Some(secret),
    };
    let (acme, other) = (of(secrets[0].as_str()), of(secrets[1].as_str()));
    let body = |model: &str| json!({"model": model, "prompt": "w"});
    let lines = [
        line("1", "/v1/completions", body("two")),
        line("2", "/v1/completions", body("two")),
        line("3", "/v1/completions", body("two")),
    ];
    let id = acme.batch("/v1/completions", &lines).await;
    let file = acme.get(&format!("/v1/batches/{id}")).await.json()["input_file_id"]
        .as_str()
        .unwrap()
        .to_owned();
    for path in [
        format!("/v1/files/{file}"),
        format!("/v1/files/{file}/content"),
        format!("/v1/batches/{id}"),
    ] {
        assert_eq!(acme.get(&path).await.status, 200, "{path}");
        assert_eq!(other.get(&path).await.status, 404, "{path}");
    }
    for list in ["/v1/files", "/v1/batches"] {
        assert_eq!(acme.get(list).await.json()["data"].as_array().unwrap().len(), 1);
        assert_eq!(other.get(list).await.json()["data"], json!([]));
    }
    let cancel = other.post(&format!("/v1/batches/{id}/cancel"), json!({})).await;
    assert_eq!(cancel.status, 404);
    let path = format!("/v1/files/{file}");
    let remove = other
        .send(Method::DELETE, &path, "text/plain", Body::empty())
        .await;
    assert_eq!(remove.status, 404);
    let theirs = json!({"input_file_id": file, "endpoint": "/v1/completions", "completion_window": "24h"});
    assert_eq!(other.post("/v1/batches", theirs).await.status, 404);

    // The first line is in the middle of its answer.
    step.send(()).unwrap();
    while server.engine.stats().steps == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let hidden = [line("1", "/v1/completions", body("team/three"))];
    let hidden = acme.batch("/v1/completions", &hidden).await;
    access.store().revoke("acme", Admins::MayEnd).unwrap();
    access.refresh().unwrap();
    assert_eq!(acme.get("/v1/batches").await.status, 401);
    // Nobody can ask for them any more.
    let store = Store::open(data.path()).unwrap();
    drop(step);
    let ended = async |id: &str| loop {
        let batch = store.batch(id).unwrap().unwrap();
        if batch.status.is_final() {
            let errors = std::fs::read_to_string(store.content(batch.errors.as_deref().unwrap())).unwrap();
            let errors: Vec<Value> = errors
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect();
            return (batch.counts, errors);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let (counts, errors) = ended(&id).await;
    assert_eq!((counts.completed, counts.failed), (1, 2));
    for error in errors {
        assert_eq!(error["error"]["code"], "invalid_api_key", "{error}");
    }
    let (counts, _) = ended(&hidden).await;
    assert_eq!((counts.completed, counts.failed), (0, 1));
}

#[tokio::test]
async fn a_batch_whose_time_is_over_accounts_for_every_line() {
    let data = tempfile::tempdir().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    stored(data.path(), &completions(2), now - 100, now - 1);
    let server = server_with(Options {
        batches: Some(data.path().to_owned()),
        ..Options::default()
    });
    let client = client(&server);
    let batch = client.ended("batch_1").await;
    assert_eq!(batch["status"], "expired");
    assert_eq!(
        batch["request_counts"],
        json!({"total": 2, "completed": 0, "failed": 2})
    );
    let [output, errors] = client.results(&batch).await;
    assert!(output.is_empty());
    let codes: Vec<&Value> = errors.iter().map(|line| &line["error"]["code"]).collect();
    assert_eq!(codes, ["batch_expired", "batch_expired"]);
}

/// Leaves a batch behind as a process would that ended right after it was begun.
fn stored(data: &Path, lines: &[Value], created: u64, expires: u64) {
    let store = Store::open(data).unwrap();
    let written = store.begin_file().unwrap();
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    std::fs::write(written.path(), &text).unwrap();
    let file = StoredFile {
        id: "file-1".to_owned(),
        tenant: None,
        name: "lines.jsonl".to_owned(),
        purpose: Purpose::Batch,
        bytes: text.len() as u64,
        created,
        expires: None,
    };
    let much = FileLimits {
        bytes: 1 << 20,
        files: 9,
    };
    store.keep(written, &file, much).unwrap();
    let batch = NewBatch {
        id: "batch_1".to_owned(),
        tenant: None,
        key: None,
        endpoint: "/v1/completions".to_owned(),
        input: "file-1".to_owned(),
        created,
        expires,
        metadata: BTreeMap::new(),
        keep_output: None,
    };
    assert!(store.begin(&batch, 9).unwrap());
}

#[tokio::test]
async fn files_are_bounded_listed_and_refused_with_a_reason() {
    let (server, _data) = keeping(Options {
        limits: Limits {
            file_bytes: 1000,
            stored_bytes: 1500,
            ..Limits::default()
        },
        ..Options::default()
    });
    let client = client(&server);
    let expires = [
        ("purpose", "batch"),
        ("expires_after[anchor]", "created_at"),
        ("expires_after[seconds]", "3600"),
    ];
    let file = client.upload(&expires, &"x".repeat(700)).await.json();
    assert_eq!(
        (
            &file["object"],
            &file["bytes"],
            &file["filename"],
            &file["purpose"],
            &file["status"]
        ),
        (
            &json!("file"),
            &json!(700),
            &json!("lines.jsonl"),
            &json!("batch"),
            &json!("processed")
        )
    );
    let lasts = file["expires_at"].as_u64().unwrap() - file["created_at"].as_u64().unwrap();
    assert_eq!(lasts, 3600);
    let content = format!("/v1/files/{}/content", file["id"].as_str().unwrap());
    let content = client.get(&content).await;
    assert_eq!(
        (content.text.as_str(), content.header("content-length")),
        ("x".repeat(700).as_str(), "700")
    );
    let second = client.upload(&[("purpose", "batch")], "z").await.json();
    assert_eq!(second["expires_at"], Value::Null);
    for (query, ids, has_more) in [
        ("", vec![&second["id"], &file["id"]], false),
        ("?limit=1", vec![&second["id"]], true),
        (
            "?order=asc&purpose=batch",
            vec![&file["id"], &second["id"]],
            false,
        ),
        ("?purpose=batch_output", vec![], false),
    ] {
        let list = client.get(&format!("/v1/files{query}")).await.json();
        let found: Vec<&Value> = list["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|file| &file["id"])
            .collect();
        assert_eq!((found, &list["has_more"]), (ids, &json!(has_more)), "{query}");
    }
    let after = format!("/v1/files?after={}", second["id"].as_str().unwrap());
    assert_eq!(client.get(&after).await.json()["data"][0]["id"], file["id"]);

    let kilobyte = "x".repeat(1001);
    for (fields, text, status) in [
        (vec![("purpose", "batch")], kilobyte.as_str(), 413),
        (vec![("purpose", "batch")], &kilobyte[..900], 409),
        (vec![("purpose", "fine-tune")], "x", 400),
        (vec![], "x", 400),
        (
            vec![("purpose", "batch"), ("expires_after[seconds]", "3600")],
            "x",
            400,
        ),
        (
            vec![
                ("purpose", "batch"),
                ("expires_after[anchor]", "created_at"),
                ("expires_after[seconds]", "1"),
            ],
            "x",
            400,
        ),
        (vec![("purpose", "batch"), ("colour", "red")], "x", 400),
    ] {
        let answer = client.upload(&fields, text).await;
        assert_eq!(answer.status, status, "{fields:?}: {}", answer.text);
        assert!(answer.json()["error"]["message"].is_string());
    }
    let input = second["id"].clone();
    for (change, field) in [
        (json!({"endpoint": "/v1/models"}), "endpoint"),
        (json!({"completion_window": "1h"}), "completion_window"),
        (json!({"metadata": {"a": 1}}), "metadata"),
        (json!({"input_file_id": null}), "input_file_id"),
        (
            json!({"output_expires_after": {"anchor": "created_at"}}),
            "output_expires_after",
        ),
        (json!({"x": 1}), "x"),
    ] {
        let mut body =
            json!({"input_file_id": input, "endpoint": "/v1/completions", "completion_window": "24h"});
        body.as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        let answer = client.post("/v1/batches", body).await;
        assert_eq!(answer.status, 400, "{}", answer.text);
        assert_eq!(answer.json()["error"]["param"], field, "{}", answer.text);
    }
    for path in [
        "/v1/files/file-9",
        "/v1/files/..%2Fbatches.sqlite/content",
        "/v1/batches/batch_9",
    ] {
        assert_eq!(client.get(path).await.status, 404, "{path}");
    }
    assert_eq!(client.get("/v1/batches?limit=0").await.status, 400);
    assert_eq!(client.get("/v1/batches?after=batch_9").await.status, 400);
}

#[tokio::test]
async fn without_a_place_for_them_the_routes_say_so() {
    let server = server();
    for path in [
        "/v1/files",
        "/v1/files/x",
        "/v1/files/x/content",
        "/v1/batches",
        "/v1/batches/x",
    ] {
        let answer = server.get(path).await;
        assert_eq!(answer.status, 403, "{path}");
        assert!(answer.text.contains("--data"), "{}", answer.text);
    }
}

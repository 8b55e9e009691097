//! Adapters whose files clients send.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, header};
use futures_util::stream;
use multigraft_adapters::Lookup;
use multigraft_sources::AllowedSource;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::support::{Answer, Options, Server, server_with, write_adapter};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

/// A server that takes uploads, and its data folder.
fn taking(options: Options) -> (Server, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let server = server_with(Options {
        allowed: vec![AllowedSource::Upload],
        data: Some(dir.path().join("data")),
        ..options
    });
    (server, dir)
}

/// What is in the folder of stored files.
fn kept(dir: &TempDir) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.path().join("data/adapters")).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// The two files of an adapter.
fn files(dir: &Path, alpha: u32) -> Vec<(&'static str, Vec<u8>)> {
    let folder = dir.join(format!("sent-{alpha}"));
    write_adapter(&folder, alpha);
    let file = |name| (name, fs::read(folder.join(name)).unwrap());
    vec![file(CONFIG), file(WEIGHTS)]
}

fn body(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, bytes) in files {
        let head =
            format!("--edge\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n");
        body.extend(head.into_bytes());
        body.extend(bytes);
        body.extend(b"\r\n");
    }
    body.extend(b"--edge--\r\n");
    body
}

fn request(path: &str, body: Body) -> Request<Body> {
    Request::post(format!("/v1/adapters/{path}"))
        .header(header::CONTENT_TYPE, "multipart/form-data; boundary=edge")
        .body(body)
        .unwrap()
}

async fn send(server: &Server, path: &str, files: &[(&str, Vec<u8>)]) -> Answer {
    server.send(request(path, Body::from(body(files)))).await
}

async fn ask(server: &Server, model: &str) -> Answer {
    let body = json!({"model": model, "prompt": "w", "max_tokens": 1});
    server.post("/v1/completions", body).await
}

fn message(answer: &Answer) -> String {
    answer.json()["error"]["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_upload_is_served_replaced_and_rolled_back() {
    let (server, dir) = taking(Options::default());
    let mut first = files(dir.path(), 1);
    first.push(("README.md", b"a card".to_vec()));
    let added = send(&server, "team/new/upload?pinned=true", &first).await;
    assert_eq!(added.status, 201, "{}", added.text);
    let adapter = added.json();
    assert_eq!(adapter["name"], "team/new");
    assert_eq!(
        (&adapter["source"], &adapter["added_by"]),
        (&json!("upload"), &json!("http"))
    );
    assert_eq!(
        (&adapter["state"], &adapter["pinned"]),
        (&json!("resident"), &json!(true))
    );
    assert_eq!(ask(&server, "team/new").await.status, 200);
    // What was sent is gone, what is stored is there.
    let stored = |adapter: &Value| {
        dir.path()
            .join("data/adapters")
            .join(adapter["hash"].as_str().unwrap())
    };
    assert_eq!(kept(&dir), [stored(&adapter)]);

    let second = files(dir.path(), 2);
    let taken = send(&server, "team/new/upload", &second).await;
    assert_eq!(taken.status, 409, "{}", taken.text);
    assert!(message(&taken).contains("replace=true"), "{}", taken.text);
    let replaced = send(&server, "team/new/upload?replace=true", &second).await;
    assert_eq!(replaced.status, 200, "{}", replaced.text);
    assert_ne!(replaced.json()["hash"], adapter["hash"]);
    assert_eq!(kept(&dir).len(), 2);

    server.registry.activate("team/new", None).unwrap();
    let back = match server.registry.get("team/new") {
        Lookup::Ready(entry) => entry,
        Lookup::Loading(waiting) => waiting.outcome().await.unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(json!(back.hash.to_string()), adapter["hash"]);
}

#[tokio::test]
async fn what_is_no_adapter_is_refused_by_name_and_leaves_nothing() {
    let (server, dir) = taking(Options::default());
    let good = files(dir.path(), 1);
    let (config, weights) = (good[0].clone(), good[1].clone());
    let nonsense = (WEIGHTS, b"nonsense".to_vec());
    let gguf = |name| (name, b"nonsense".to_vec());
    for (sent, says) in [
        (vec![], "`adapter_config.json` is missing"),
        (vec![config.clone()], "`adapter_model.safetensors` is missing"),
        (vec![weights.clone()], "`adapter_config.json` is missing"),
        (
            vec![config.clone(), ("adapter_model.bin", vec![0])],
            "`adapter_model.bin` is no file",
        ),
        (
            vec![config.clone(), ("../README.md", vec![0])],
            "`../README.md` is no file",
        ),
        (
            vec![config.clone(), config.clone()],
            "`adapter_config.json` was sent twice",
        ),
        (vec![gguf("a.gguf"), gguf("b.gguf")], "twice"),
        (vec![gguf("a.gguf"), config.clone()], "whole adapter"),
        (vec![gguf("../../a.gguf")], "upload"),
        (vec![config.clone(), nonsense], "upload/adapter_model.safetensors"),
    ] {
        let answer = send(&server, "new/upload", &sent).await;
        assert_eq!(answer.status, 400, "{}", answer.text);
        assert!(message(&answer).contains(says), "{says}: {}", answer.text);
        assert!(
            !answer.text.contains(&dir.path().display().to_string()),
            "{}",
            answer.text
        );
        assert!(!server.registry.contains("new"));
        assert_eq!(kept(&dir), [""; 0].map(PathBuf::from));
    }
    let no_file = "--edge\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\ny\r\n--edge--\r\n";
    for (path, body, status) in [
        ("new/upload", no_file.to_owned().into_bytes(), 400),
        ("new/upload", body(&good)[..200].to_vec(), 400),
        ("new/upload?replace=maybe", body(&good), 400),
        ("new/upload?and=more", body(&good), 400),
        ("tgi/upload", body(&good), 400),
        ("two/upload", body(&good), 400),
        ("new", body(&good), 405),
        ("upload", body(&good), 405),
    ] {
        let answer = server.send(request(path, Body::from(body))).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
        assert!(answer.json()["error"]["message"].is_string());
    }
    let json = server.post("/v1/adapters/new/upload", json!({})).await;
    assert!(message(&json).contains("multipart/form-data"), "{}", json.text);
    // Given otherwise than by this interface, so its versions are not kept.
    let two = send(&server, "two/upload?replace=true", &good).await;
    assert_eq!(two.status, 400, "{}", two.text);
    assert!(message(&two).contains("not kept"), "{}", two.text);
    assert_eq!(kept(&dir), [""; 0].map(PathBuf::from));
}

#[tokio::test]
async fn an_upload_beyond_the_limit_ends_where_the_limit_is() {
    let mut options = Options::default();
    options.limits.upload_bytes = 100_000;
    // Other routes keep their own.
    options.limits.body_bytes = 1000;
    let (server, dir) = taking(options);
    let mut sent = files(dir.path(), 1);
    sent.push(("README.md", vec![b'x'; 90_000]));
    assert_eq!(send(&server, "fits/upload", &sent).await.status, 201);
    sent.push(("reference.json", vec![b'x'; 10_000]));
    let answer = send(&server, "new/upload", &sent).await;
    assert_eq!(answer.status, 413, "{}", answer.text);
    assert!(message(&answer).contains("100000"), "{}", answer.text);
    assert!(!server.registry.contains("new"));
    assert_eq!(kept(&dir).len(), 1);
}

#[tokio::test]
async fn uploads_need_to_be_allowed_and_a_place_to_stay() {
    let dir = tempfile::tempdir().unwrap();
    let sent = files(dir.path(), 1);
    let closed = server_with(Options {
        allowed: vec![AllowedSource::Folder(dir.path().to_owned())],
        data: Some(dir.path().join("data")),
        ..Options::default()
    });
    let answer = send(&closed, "new/upload", &sent).await;
    assert_eq!(answer.status, 403, "{}", answer.text);
    assert!(
        message(&answer).contains("--allow-source upload"),
        "{}",
        answer.text
    );
    assert_eq!(kept(&dir), [""; 0].map(PathBuf::from));
    let nowhere = server_with(Options {
        allowed: vec![AllowedSource::Upload],
        ..Options::default()
    });
    let answer = send(&nowhere, "new/upload", &sent).await;
    assert_eq!(answer.status, 400, "{}", answer.text);
    assert!(message(&answer).contains("--data"), "{}", answer.text);
    // Nobody names an upload as a source.
    let named = json!({"name": "new", "source": "upload"});
    assert_eq!(nowhere.post("/v1/adapters", named).await.status, 403);
}

/// Waits until something is so.
async fn until(is_so: impl Fn() -> bool) {
    for _ in 0..1000 {
        if is_so() {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("it never was");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_leaves_nothing_or_a_whole_adapter() {
    let (load_gate, words) = mpsc::channel();
    let (server, dir) = taking(Options {
        load_gate: Some(words),
        ..Options::default()
    });
    let whole = body(&files(dir.path(), 1));
    // In the middle of the weights.
    let (begin, _) = whole.split_at(whole.len() - 60);
    let begun = stream::iter([Ok::<_, std::io::Error>(begin.to_vec())]);
    let endless = futures_util::StreamExt::chain(begun, stream::pending());
    let sending = {
        let (server, request) = (server.clone(), request("new/upload", Body::from_stream(endless)));
        tokio::spawn(async move { server.send(request).await })
    };
    until(|| kept(&dir).iter().any(|folder| folder.join(WEIGHTS).exists())).await;
    sending.abort();
    until(|| kept(&dir).is_empty()).await;
    assert!(!server.registry.contains("new"));
    let broken = stream::iter([Ok(begin.to_vec()), Err(std::io::Error::other("gone"))]);
    let answer = server
        .send(request("new/upload", Body::from_stream(broken)))
        .await;
    assert_eq!(answer.status, 400, "{}", answer.text);
    assert_eq!(kept(&dir), [""; 0].map(PathBuf::from));

    // All was sent: it is added, as by any other route, and its files stay as long as that takes.
    let sending = {
        let (server, request) = (server.clone(), request("new/upload", Body::from(whole)));
        tokio::spawn(async move { server.send(request).await })
    };
    until(|| kept(&dir).len() == 2).await;
    sending.abort();
    load_gate.send(()).unwrap();
    until(|| kept(&dir).len() == 1).await;
    assert!(matches!(server.registry.get("new"), Lookup::Ready(_)));
}

#[tokio::test]
async fn no_more_than_eight_arrive_at_once() {
    let (server, dir) = taking(Options::default());
    // Each has a folder as soon as its body is asked for, and then waits for more.
    let mut arriving: Vec<_> = (0..8)
        .map(|index| {
            let (asked, was_asked) = tokio::sync::oneshot::channel::<()>();
            let waiting = stream::once(async move {
                let _ = asked.send(());
                std::future::pending::<Result<Vec<u8>, std::io::Error>>().await
            });
            let request = request(&format!("a{index}/upload"), Body::from_stream(waiting));
            let server = server.clone();
            (tokio::spawn(async move { server.send(request).await }), was_asked)
        })
        .collect();
    for (_, was_asked) in &mut arriving {
        was_asked.await.unwrap();
    }
    let files = files(dir.path(), 2);
    let answer = send(&server, "one-more/upload", &files).await;
    assert_eq!(answer.status, 429, "{}", answer.text);
    assert_eq!(answer.header("retry-after"), "1");
    assert!(
        answer.text.contains("8 adapters are being uploaded"),
        "{}",
        answer.text
    );

    let (gone, _) = arriving.pop().unwrap();
    gone.abort();
    assert!(gone.await.is_err());
    let answer = send(&server, "one-more/upload", &files).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
}

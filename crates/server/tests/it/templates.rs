//! An adapter's own chat template, in every dialect that applies one, and which of several it is.

use std::{fs, path::Path, time::Duration};

use axum::{
    body::Body,
    http::{Method, Request, header},
};
use multigraft_adapters::{Residency, Source};
use multigraft_sources::{AllowedSource, Reference};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Answer, BASE, END, Options, Server, send, server_with, write_adapter};

/// Ends in a special token, whose text is the base's.
const OWN: &str = "{% for m in messages %}[{{ m.content }}]{% endfor %}{{ eos_token }}";
/// What it makes of a user's `hi`, and the tokens of that.
const SAID: &str = "[hi]<end>";
const TOKENS: [u32; 5] = [91, 104, 105, 93, END];

/// A server with an adapter `own` that has a template in its folder and that nobody has asked for
/// yet.
fn serving() -> (Server, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let server = server_with(Options {
        allowed: vec![
            AllowedSource::Folder(dir.path().to_owned()),
            AllowedSource::Upload,
        ],
        data: Some(dir.path().join("data")),
        batches: Some(dir.path().join("batches")),
        ..Options::default()
    });
    let folder = own(dir.path(), 1, OWN);
    let at = Reference::Folder(folder.into());
    let name = "own".to_owned();
    server.registry.register(Source { name, at }).unwrap();
    (server, dir)
}

/// Writes an adapter with a template; returns its folder.
fn own(dir: &Path, alpha: u32, template: &str) -> String {
    let folder = write_adapter(&dir.join("own"), alpha);
    fs::write(Path::new(&folder).join("chat_template.jinja"), template).unwrap();
    folder
}

fn chat(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1, "return_token_ids": true})
}

/// The text that a chat becomes for a model.
async fn templated(server: &Server, model: &str) -> String {
    let body = json!({"model": model, "messages": [{"role": "user", "content": "hi"}]});
    let answer = server.post("/chat_tokenize", body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()["templated_text"].as_str().unwrap().to_owned()
}

async fn add(server: &Server, body: Value) -> Answer {
    server.post("/v1/adapters", body).await
}

#[tokio::test]
async fn the_first_request_of_an_adapter_that_is_not_in_memory_has_its_template_in_every_dialect() {
    let generate = |path: &'static str| {
        let parameters = json!({"adapter_id": "own", "apply_chat_template": true, "decoder_input_details": true,
            "details": true, "max_new_tokens": 1});
        (path, json!({"inputs": "hi", "parameters": parameters}))
    };
    let mut streamed = chat("own");
    streamed["stream"] = true.into();
    let messages = chat("own")["messages"].clone();
    for (path, body) in [
        ("/v1/chat/completions", chat("own")),
        ("/v1/chat/completions", streamed),
        (
            "/v1/responses",
            json!({"model": "own", "input": "hi", "max_output_tokens": 1}),
        ),
        ("/chat_tokenize", json!({"model": "own", "messages": messages})),
        generate("/generate"),
        generate("/"),
    ] {
        let (server, _dir) = serving();
        let listed = server.registry.listed("own").unwrap();
        assert!(matches!(listed.residency, Residency::Cold));
        let answer = server.post(path, body.clone()).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        match path {
            "/v1/chat/completions" if body["stream"] == true => {
                let (chunks, _) = answer.chunks();
                assert_eq!(chunks[0]["prompt_token_ids"], json!(TOKENS));
            }
            "/v1/chat/completions" => assert_eq!(answer.json()["prompt_token_ids"], json!(TOKENS)),
            "/v1/responses" => assert_eq!(answer.json()["usage"]["input_tokens"], TOKENS.len()),
            "/chat_tokenize" => assert_eq!(answer.json()["templated_text"], SAID),
            _ => {
                let body = answer.json();
                let whole = body.get(0).unwrap_or(&body);
                let prefill = whole["details"]["prefill"].as_array().unwrap();
                let ids: Vec<&Value> = prefill.iter().map(|token| &token["id"]).collect();
                assert_eq!(json!(ids), json!(TOKENS), "{path}");
            }
        }
        // Nobody else's has changed.
        let base = "<start>user:hi<end><start>";
        assert_eq!(templated(&server, BASE).await, base);
        assert_eq!(templated(&server, "two").await, base);
    }
}

#[tokio::test]
async fn a_line_of_a_batch_has_it_too() {
    let (server, _dir) = serving();
    let line =
        json!({"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": chat("own")});
    let form = format!(
        "--edge\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--edge\r\n\
         Content-Disposition: form-data; name=\"file\"; filename=\"lines.jsonl\"\r\n\r\n{line}\n\r\n--edge--\r\n"
    );
    let file = Request::post("/v1/files")
        .header(header::CONTENT_TYPE, "multipart/form-data; boundary=edge")
        .body(Body::from(form));
    let file = server.send(file.unwrap()).await.json();
    let body =
        json!({"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"});
    let batch = server.post("/v1/batches", body).await.json();
    let path = format!("/v1/batches/{}", batch["id"].as_str().unwrap());
    let mut ended = batch;
    for _ in 0..12_000 {
        if ended["status"] == "completed" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        ended = server.get(&path).await.json();
    }
    let output = ended["output_file_id"].as_str().expect("an answer");
    let line = server.get(&format!("/v1/files/{output}/content")).await.json();
    assert_eq!(line["response"]["body"]["prompt_token_ids"], json!(TOKENS));
}

#[tokio::test]
async fn defaults_come_before_the_folder_and_the_folder_before_the_base() {
    let (server, _dir) = serving();
    assert_eq!(templated(&server, "own").await, SAID);
    let set = async |defaults: Value| {
        let body = json!({"defaults": defaults});
        let answer = send(&server, Method::PATCH, "/v1/adapters/own", body).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    };
    set(json!({"chat_template": "set: {{ messages[0].content }}"})).await;
    assert_eq!(templated(&server, "own").await, "set: hi");
    set(json!({"system": "be kind"})).await;
    assert_eq!(templated(&server, "own").await, "[be kind][hi]<end>");
    set(json!({})).await;
    assert_eq!(templated(&server, "own").await, SAID);
    // Requests bring none, and several adapters together have none of theirs.
    let mut body = chat("own");
    body["chat_template"] = "mine".into();
    assert_eq!(server.post("/v1/chat/completions", body).await.status, 400);
}

#[tokio::test]
async fn a_template_comes_and_goes_with_its_version() {
    let (server, dir) = serving();
    let add = async |template: &str| {
        let source = own(dir.path(), 2, template);
        add(&server, json!({"name": "a", "source": source, "replace": true})).await
    };
    let first = add("first").await.json();
    assert_eq!(first["info"]["chat_template"], "chat_template.jinja");
    assert_eq!(templated(&server, "a").await, "first");
    let second = add("second").await.json();
    assert_ne!(second["hash"], first["hash"]);
    assert_eq!(templated(&server, "a").await, "second");
    let broken = add("{% if %}").await;
    assert_eq!(broken.status, 400, "{}", broken.text);
    assert!(
        broken
            .text
            .contains("own/chat_template.jinja`: the chat template is not valid"),
        "{}",
        broken.text
    );
    assert_eq!(templated(&server, "a").await, "second");
    let back = send(
        &server,
        Method::PATCH,
        "/v1/adapters/a",
        json!({"active": "previous"}),
    )
    .await;
    assert_eq!(back.json()["hash"], first["hash"]);
    assert_eq!(templated(&server, "a").await, "first");
    // One that was registered before anybody looked at its files is not served without its
    // template.
    let unseen = server.post("/v1/chat/completions", chat("own")).await;
    assert_eq!(unseen.status, 503, "{}", unseen.text);
    let message = unseen.json()["error"]["message"].to_string();
    assert!(
        message.contains("`own`") && message.contains("chat_template.jinja"),
        "{message}"
    );
}

#[tokio::test]
async fn an_upload_brings_its_template() {
    let (server, dir) = serving();
    let folder = write_adapter(&dir.path().join("sent"), 3);
    let template = json!({"chat_template": "sent"}).to_string();
    let file = |name: &str| fs::read_to_string(Path::new(&folder).join(name)).unwrap_or_default();
    let send = async |template: &str| {
        let files = [
            ("adapter_config.json", file("adapter_config.json").into_bytes()),
            (
                "adapter_model.safetensors",
                fs::read(Path::new(&folder).join("adapter_model.safetensors")).unwrap(),
            ),
            ("tokenizer_config.json", template.as_bytes().to_vec()),
        ];
        let mut body = Vec::new();
        for (name, bytes) in files {
            body.extend(
                format!("--edge\r\nContent-Disposition: form-data; name=\"f\"; filename=\"{name}\"\r\n\r\n")
                    .into_bytes(),
            );
            body.extend(bytes);
            body.extend(b"\r\n");
        }
        body.extend(b"--edge--\r\n");
        let request = Request::post("/v1/adapters/sent/upload?replace=true")
            .header(header::CONTENT_TYPE, "multipart/form-data; boundary=edge")
            .body(Body::from(body));
        server.send(request.unwrap()).await
    };
    let added = send(&template).await;
    assert_eq!(added.status, 201, "{}", added.text);
    assert_eq!(added.json()["info"]["chat_template"], "tokenizer_config.json");
    assert_eq!(templated(&server, "sent").await, "sent");
    let broken = send(r#"{"chat_template": "{{"}"#).await;
    assert_eq!(broken.status, 400, "{}", broken.text);
    assert!(
        broken.text.contains("upload/tokenizer_config.json"),
        "{}",
        broken.text
    );
    assert_eq!(templated(&server, "sent").await, "sent");
}

#[tokio::test]
async fn tools_are_called_as_the_adapters_template_writes_calls() {
    // As Mistral's does; the base's knows no tools.
    let template = "{% if tools %}[AVAILABLE_TOOLS]{{ tools|tojson }}{% endif %}{% for m in messages %}\
        {% if m.tool_calls %}[TOOL_CALLS] [{% for c in m.tool_calls %}{{ c.function|tojson }}{% endfor %}]\
        {% else %}{{ m.content }}{% endif %}{% endfor %}";
    let (server, dir) = serving();
    let source = own(dir.path(), 4, template);
    assert_eq!(
        add(&server, json!({"name": "a", "source": source})).await.status,
        201
    );
    let coder = fs::read(multigraft_testing::fixtures().join("chat/coder-tools.json")).unwrap();
    let coder: Value = serde_json::from_slice(&coder).unwrap();
    let source = own(dir.path(), 5, coder["template"].as_str().unwrap());
    assert_eq!(
        add(&server, json!({"name": "coder", "source": source}))
            .await
            .status,
        201
    );
    for (model, begins) in [
        ("a", "[TOOL_CALLS]"),
        ("two", "<tool_call>"),
        (
            "coder",
            "<tool_call>\n<function=f>\n<parameter=way>\nnorth\n</parameter>",
        ),
    ] {
        let mut body = chat(model);
        body["max_tokens"] = 200.into();
        body["temperature"] = 0.into();
        body["tools"] = json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object",
            "properties": {"way": {"type": "string", "enum": ["north"]}}, "required": ["way"],
            "additionalProperties": false}}}]);
        body["tool_choice"] = "required".into();
        body["parallel_tool_calls"] = false.into();
        let answer = server.post("/v1/chat/completions", body.clone()).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let choice = &answer.json()["choices"][0];
        let called = &choice["message"]["tool_calls"][0]["function"];
        assert_eq!(called["name"], "f", "{}", answer.text);
        let arguments: Value = serde_json::from_str(called["arguments"].as_str().unwrap()).unwrap();
        assert_eq!(arguments, json!({"way": "north"}));
        body["stream"] = true.into();
        let (chunks, _) = server.post("/v1/chat/completions", body).await.chunks();
        let pieces = chunks.iter().filter_map(|chunk| {
            chunk
                .pointer("/choices/0/delta/tool_calls/0/function/arguments")?
                .as_str()
        });
        assert_eq!(pieces.collect::<String>(), called["arguments"].as_str().unwrap());
        let ids = choice["token_ids"].as_array().unwrap();
        let text: String = ids
            .iter()
            .filter_map(|id| char::from_u32(id.as_u64()? as u32))
            .collect();
        assert!(text.starts_with(begins), "{text}");
    }
}

#[tokio::test]
async fn an_adapter_can_be_chatted_with_where_its_base_cannot() {
    let dir = tempfile::tempdir().unwrap();
    let server = server_with(Options {
        allowed: vec![AllowedSource::Folder(dir.path().to_owned())],
        chat: false,
        ..Options::default()
    });
    let source = own(dir.path(), 5, OWN);
    assert_eq!(
        add(&server, json!({"name": "a", "source": source})).await.status,
        201
    );
    assert_eq!(server.post("/v1/chat/completions", chat("a")).await.status, 200);
    let refused = server.post("/v1/chat/completions", chat("two")).await;
    assert_eq!(refused.status, 400);
    assert!(refused.text.contains("no chat template"), "{}", refused.text);
}

//! The OpenAPI document against the server that it describes.

use axum::{body::Body, http::Request};
use serde_json::{Map, Value, json};

use crate::support::{BASE, Server, server};

async fn document(server: &Server) -> Value {
    let answer = server.get("/openapi.json").await;
    assert_eq!(answer.status, 200);
    answer.json()
}

#[tokio::test]
async fn the_operations_that_describe_a_time_limit_are_those_that_refuse_a_wrong_one() {
    let server = server();
    let document = document(&server).await;
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let describes_it = parameters
                .into_iter()
                .any(|parameter| parameter["name"] == "x-request-timeout");
            let at = path.replace("{name}", "x").replace("{id}", "x");
            let request = Request::builder()
                .method(method.to_uppercase().as_str())
                .uri(&at)
                .header("x-request-timeout", "soon");
            let answer = server.send(request.body(Body::empty()).expect("a request")).await;
            let refuses_it = answer.text.contains("x-request-timeout");
            // The document itself names the header.
            let is_document = path == "/openapi.json";
            assert_eq!(refuses_it, describes_it || is_document, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn every_method_that_is_described_is_answered_to() {
    let server = server();
    let document = document(&server).await;
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for method in methods.as_object().expect("methods").keys() {
            let at = path.replace("{name}", "x").replace("{id}", "x");
            let request = Request::builder().method(method.to_uppercase().as_str()).uri(&at);
            let answer = server.send(request.body(Body::empty()).expect("a request")).await;
            assert_ne!(answer.status, 405, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn other_methods_are_refused_with_the_list_of_described_ones() {
    let server = server();
    let document = document(&server).await;
    for (path, methods) in document["paths"].as_object().expect("paths") {
        let methods = methods.as_object().expect("methods").keys();
        let allowed = methods.map(|method| match method.as_str() {
            "get" => "GET,HEAD".to_owned(),
            method => method.to_uppercase(),
        });
        let allowed: Vec<String> = allowed.collect();
        let at = path.replace("{name}", "x").replace("{id}", "x");
        let request = Request::put(&at).body(Body::empty()).expect("a request");
        let answer = server.send(request).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("allow")),
            (405, allowed.join(",").as_str()),
            "{path}"
        );
    }
}

#[tokio::test]
async fn every_field_that_is_described_is_one_that_the_server_knows() {
    let server = server();
    let document = document(&server).await;
    let schemas = &document["components"]["schemas"];
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let body = &operation["requestBody"]["content"]["application/json"]["schema"]["$ref"];
            let Some(name) = body.as_str().and_then(|at| at.rsplit('/').next()) else {
                continue;
            };
            let schema = &schemas[name];
            for (field, value) in schema["properties"].as_object().expect("fields") {
                for body in bodies(schema, field, value) {
                    let at = path.replace("{name}", "x").replace("{id}", "x");
                    let request = Request::builder()
                        .method(method.to_uppercase().as_str())
                        .uri(&at)
                        .header("content-type", "application/json")
                        .body(Body::from(body.to_string()));
                    let answer = server.send(request.expect("a request")).await;
                    let text = answer.text.as_str();
                    assert!(
                        !text.contains("is not a field"),
                        "{method} {path}, {field}: {text}"
                    );
                }
            }
        }
    }
}

/// Bodies that would be right if the field were known: the field is the only thing that can be
/// wrong with them.
fn bodies(schema: &Value, field: &str, value: &Value) -> Vec<Value> {
    let mut body = Map::new();
    for required in schema["required"].as_array().into_iter().flatten() {
        let name = required.as_str().expect("a name");
        body.insert(name.to_owned(), example(name, &schema["properties"][name]));
    }
    if schema["properties"].get("model").is_some() {
        body.insert("model".to_owned(), json!(BASE));
    }
    let with = |value: Value| {
        let mut body = body.clone();
        body.entry(field).or_insert(value);
        Value::Object(body)
    };
    match value["properties"].as_object() {
        Some(inner) => inner
            .iter()
            .map(|(name, value)| with(json!({(name.as_str()): example(name, value)})))
            .collect(),
        None => vec![with(example(field, value))],
    }
}

/// A value of the type that is described first.
fn example(name: &str, schema: &Value) -> Value {
    let kind = schema["type"].as_str().or(schema["type"][0].as_str());
    match kind {
        _ if name == "messages" => json!([{"role": "user", "content": "a"}]),
        Some("string") => json!("a"),
        Some("integer") => json!(1),
        Some("number") => json!(0.5),
        Some("boolean") => json!(false),
        Some("array") => json!([]),
        Some("object") => json!({}),
        _ => schema["enum"].get(0).cloned().unwrap_or_else(|| json!("a")),
    }
}

#[tokio::test]
async fn the_page_needs_nothing_from_elsewhere() {
    let server = server();
    let answer = server.get("/docs").await;
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").starts_with("text/html"));
    assert!(
        answer
            .header("content-security-policy")
            .contains("default-src 'none'")
    );
    assert!(!answer.text.contains("http://") && !answer.text.contains("https://"));
}

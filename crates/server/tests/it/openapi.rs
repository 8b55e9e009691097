//! The OpenAPI document against the server that it describes.

use std::collections::BTreeSet;

use axum::{body::Body, http::Request};
use serde_json::{Map, Value, json};

use crate::support::{BASE, Server, server};

async fn document(server: &Server) -> Value {
    let answer = server.get("/openapi.json").await;
    assert_eq!(answer.status, 200);
    answer.json()
}

#[tokio::test]
async fn every_route_is_described_and_nothing_else_is() {
    let server = server();
    let document = document(&server).await;
    let described: BTreeSet<String> = document["paths"]
        .as_object()
        .expect("paths")
        .keys()
        .cloned()
        .collect();
    // `{*name}` is the router's way to say that a name may have slashes.
    let routes: BTreeSet<String> = include_str!("../../src/routes.rs")
        .split(".route(")
        .skip(1)
        .filter_map(|rest| rest.split('"').nth(1))
        .map(|path| path.replace("{*", "{"))
        .collect();
    assert_eq!(described, routes);
}

#[tokio::test]
async fn the_routes_that_take_a_time_are_those_that_the_model_answers() {
    let server = server();
    let document = document(&server).await;
    let paths = document["paths"].as_object().expect("paths");
    let timed = paths.iter().filter(|(_, methods)| {
        let parameters = methods["post"]["parameters"].as_array();
        parameters.is_some_and(|all| all.iter().any(|one| one["name"] == "x-request-timeout"))
    });
    let timed: BTreeSet<&str> = timed.map(|(path, _)| path.as_str()).collect();
    let answering = include_str!("../../src/routes.rs").split("fn answering").nth(1);
    let answering = answering.and_then(|rest| rest.split(".route_layer").next());
    let answering: BTreeSet<&str> = answering
        .expect("the routes")
        .split(".route(")
        .skip(1)
        .filter_map(|rest| rest.split('"').nth(1))
        .collect();
    assert_eq!(timed, answering);
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

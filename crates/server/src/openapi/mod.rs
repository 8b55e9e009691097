//! `GET /openapi.json`: the API as an OpenAPI 3.1 document, and `GET /docs`: a page that renders
//! the document.
//!
//! Schemas of answers are derived from the types of the answers, schemas of requests from the table
//! of fields ([`crate::contract::fields`]). [`operations`] renders the table of routes. Tests hold
//! the document to the server: the server knows every described field, and schemathesis tries the
//! whole document.

mod operations;
mod schemas;

use axum::{
    Json,
    extract::State,
    http::{HeaderName, header},
    response::Html,
};
use serde_json::{Map, Value, json};

use crate::contract::limits::Limits;

/// The page fetches only the document, so that it works without internet access.
const PAGE: &str = include_str!("docs.html");
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `GET /openapi.json`.
pub(crate) async fn openapi(State(limits): State<Limits>) -> Json<Value> {
    Json(document(&limits))
}

/// `GET /docs`.
pub(crate) async fn docs() -> ([(HeaderName, &'static str); 1], Html<&'static str>) {
    ([(header::CONTENT_SECURITY_POLICY, POLICY)], Html(PAGE))
}

fn document(limits: &Limits) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for operation in operations::all() {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        if let Some(path) = path.as_object_mut() {
            path.insert(operation.method, operation.value);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "multigraft",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "One base model and any number of LoRA adapters. A request names the adapter that answers it.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": schemas::all(limits),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, if the server has keys."},
                "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "The same key, in the header that Anthropic's and Azure's clients use."},
            },
        },
        // The empty object: a server without keys needs no authentication.
        "security": [{}, {"bearer": []}, {"x-api-key": []}],
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::{
        contract::{route::TimeLimit, routes::ROUTES},
        http::deadline,
    };

    #[test]
    fn every_route_is_described_and_nothing_else_is() {
        let document = document(&Limits::default());
        let described: Vec<&String> = document["paths"].as_object().expect("paths").keys().collect();
        // `{*name}` is the router's way to write that a name may hold slashes.
        let routes: Vec<String> = ROUTES.iter().map(|route| route.path.replace("{*", "{")).collect();
        assert_eq!(described, routes.iter().collect::<Vec<_>>());
    }

    #[test]
    fn the_routes_that_take_a_time_are_those_that_have_a_limit() {
        let document = document(&Limits::default());
        for route in ROUTES {
            let methods = &document["paths"][route.path.replace("{*", "{")];
            let parameters = methods["post"]["parameters"].as_array();
            let takes_a_time = parameters.is_some_and(|all| {
                all.iter()
                    .any(|parameter| parameter["name"] == deadline::HEADER.as_str())
            });
            assert_eq!(
                takes_a_time,
                route.time_limit == TimeLimit::Request,
                "{}",
                route.path
            );
        }
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_schema_is_used() {
        let document = document(&Limits::default());
        let text = document.to_string();
        let schemas = document["components"]["schemas"].as_object().expect("schemas");
        let mut used = HashSet::new();
        for part in text.split("#/components/schemas/").skip(1) {
            let name = part.split('"').next().expect("a name");
            assert!(schemas.contains_key(name), "there is no schema {name}");
            used.insert(name.to_owned());
        }
        for name in schemas.keys() {
            assert!(used.contains(name), "nothing uses the schema {name}");
        }
    }

    #[test]
    fn operations_have_names_of_their_own() {
        let document = document(&Limits::default());
        let mut names = HashSet::new();
        for (path, methods) in document["paths"].as_object().expect("paths") {
            for (method, operation) in methods.as_object().expect("methods") {
                let name = operation["operationId"].as_str().expect("a name");
                assert!(names.insert(name.to_owned()), "{name} is there twice");
                assert!(operation["summary"].is_string(), "{method} {path} says nothing");
            }
        }
    }
}

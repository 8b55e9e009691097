//! The operations of the OpenAPI document, rendered from the table of routes.

use serde_json::{Value, json};

use crate::{
    contract::{
        dialect::Dialect,
        route::{self, Content, Endpoint, RequestBody, Route, TimeLimit},
        routes::ROUTES,
    },
    http::deadline,
};

/// One method of one path.
pub(super) struct Operation {
    pub path: String,
    pub method: String,
    pub value: Value,
}

/// The errors of a dialect: status, description and name of the body's schema.
fn errors(dialect: Dialect) -> Vec<(u16, &'static str, &'static str)> {
    let (schema, invalid, failed) = match dialect {
        Dialect::OpenAi => ("Error", 400, 500),
        Dialect::Tgi => ("TgiError", 422, 424),
    };
    let meanings = [
        (400, "The request cannot be carried out; the message says why"),
        (401, "The API key is missing or invalid"),
        (
            403,
            "The key or the server's configuration does not allow the request",
        ),
        (
            404,
            "The model, adapter or key does not exist, or the caller may not use it",
        ),
        (405, "The path does not answer this method"),
        (409, "The name is taken, or the state does not allow the change"),
        (410, "The adapter was removed while the request ran"),
        (413, "The body is too large"),
        (415, "The body is not declared as JSON"),
        (
            429,
            "The queue is full, or a limit of the key or of the adapter is reached",
        ),
        (500, "An internal error"),
        (
            503,
            "The adapter cannot be loaded, or the server is shutting down",
        ),
        (504, "The request reached its time limit"),
        (failed, "The request was accepted and then failed"),
        (
            invalid,
            "A field is invalid; the message names the field and the accepted values",
        ),
    ];
    meanings.map(|(status, meaning)| (status, meaning, schema)).into()
}

/// Renders `operation`, the description of `endpoint`.
fn describe(route: &Route, endpoint: &Endpoint, operation: &route::Operation) -> Operation {
    let mut responses = serde_json::Map::new();
    for (status, description, schema) in errors(route.dialect) {
        let body = json!({"description": description, "content": json_of(&schema_ref(schema))});
        responses.insert(status.to_string(), body);
    }
    for (status, content) in operation.answers {
        let response = responses
            .entry(status.to_string())
            .or_insert_with(|| json!({"description": "Done"}));
        response["content"] = content_of(content);
    }
    let mut value = json!({
        "tags": [route.tag],
        "operationId": operation.id,
        "summary": operation.summary,
        "responses": responses,
    });
    let body = match operation.request {
        RequestBody::Nothing => None,
        RequestBody::Json(schema) => Some(json_of(&schema_ref(schema))),
        RequestBody::Form(schema) => Some(json!({"multipart/form-data": {"schema": schema_ref(schema)}})),
    };
    if let Some(content) = body {
        value["requestBody"] = json!({"required": true, "content": content});
    }
    // `{*name}` is the router's way to write that a name may hold slashes.
    let path = route.path.replace("{*", "{");
    let parameters = parameters(&path, route, operation);
    if !parameters.is_empty() {
        value["parameters"] = Value::Array(parameters);
    }
    Operation {
        path,
        method: endpoint.method.as_str().to_lowercase(),
        value,
    }
}

/// The parameters of `operation` in the path, the headers and the query.
fn parameters(path: &str, route: &Route, operation: &route::Operation) -> Vec<Value> {
    let names = path.split('{').skip(1).filter_map(|part| part.split('}').next());
    let mut parameters: Vec<Value> = names
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "minLength": 1}}))
        .collect();
    if route.time_limit == TimeLimit::Request {
        parameters.push(json!({"name": deadline::HEADER.as_str(), "in": "header",
            "description": "Time limit of the request, in seconds. After it, the request ends with 504, or its stream with an error",
            "schema": {"type": "number", "minimum": deadline::RANGE.start(), "maximum": deadline::RANGE.end()}}));
    }
    parameters.extend(operation.query.iter().map(|(name, description)| {
        json!({"name": name, "in": "query", "description": description, "schema": {"type": "string"}})
    }));
    parameters
}

fn schema_ref(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn json_of(schema: &Value) -> Value {
    json!({"application/json": {"schema": schema}})
}

fn list_of(schema: &str) -> Value {
    json_of(&json!({"type": "array", "items": schema_ref(schema)}))
}

/// `content`, or server-sent events.
fn or_events(mut content: Value) -> Value {
    content["text/event-stream"] = json!({"schema": schema_ref("Event")});
    content
}

fn content_of(content: &Content) -> Value {
    let text = || json!({"schema": {"type": "string"}});
    match content {
        Content::Nothing => json!({}),
        Content::Json(schema) => json_of(&schema_ref(schema)),
        Content::JsonOrEvents(schema) => or_events(json_of(&schema_ref(schema))),
        Content::List(schema) => list_of(schema),
        Content::ListOrEvents(schema) => or_events(list_of(schema)),
        Content::Events => or_events(json!({})),
        Content::Text(kind) => json!({(*kind): text()}),
        Content::Metrics => json!({"text/plain": text(), "application/openmetrics-text": text()}),
        Content::SglangRefusal => {
            json_of(&json!({"anyOf": [schema_ref("SglangDone"), schema_ref("TgiError")]}))
        }
    }
}

/// The operations of all routes, in the order of [`ROUTES`].
pub(super) fn all() -> impl Iterator<Item = Operation> {
    ROUTES.iter().flat_map(|route| {
        let endpoints = route.endpoints.iter();
        endpoints.filter_map(move |endpoint| Some(describe(route, endpoint, endpoint.operation.as_ref()?)))
    })
}

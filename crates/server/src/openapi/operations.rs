//! Which routes there are, what they take and what they give.

use serde_json::{Value, json};

use crate::http::{deadline, dialect::Dialect};

/// What one method of one path does.
pub(super) struct Operation {
    pub path: String,
    pub method: &'static str,
    pub value: Value,
}

/// What the model answers, within a time.
const TIMED: [&str; 9] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/embeddings",
    "/",
    "/invocations",
    "/generate",
    "/generate_stream",
    "/embed",
];

/// Errors of a dialect: status, what it means, body.
fn errors(dialect: Dialect) -> Vec<(u16, &'static str, &'static str)> {
    let (schema, invalid, failed) = match dialect {
        Dialect::OpenAi => ("Error", 400, 500),
        Dialect::Tgi => ("TgiError", 422, 424),
    };
    let meanings = [
        (400, "It cannot be done; the message says why"),
        (401, "No key, or one that opens nothing"),
        (403, "The key may not do this"),
        (
            404,
            "The model, adapter or key does not exist, or is not the key's to see",
        ),
        (405, "The path answers to other methods"),
        (409, "The name is another's"),
        (410, "The adapter was removed meanwhile"),
        (413, "The body is too large"),
        (415, "The body is not declared as JSON"),
        (
            429,
            "The server is full, or a limit of the key or of the adapter is reached",
        ),
        (500, "A bug"),
        (503, "The adapter cannot be had, or the server is shutting down"),
        (504, "The request was not done in its time"),
        (failed, "The request was accepted and then failed"),
        (
            invalid,
            "A field is wrong; the message says which and what it may be",
        ),
    ];
    meanings.map(|(status, meaning)| (status, meaning, schema)).into()
}

struct Route {
    method: &'static str,
    path: &'static str,
    tag: &'static str,
    id: &'static str,
    summary: &'static str,
    request: Option<Value>,
    /// Status and body by content type.
    answers: Vec<(u16, Value)>,
}

impl Route {
    fn operation(self) -> Operation {
        let mut responses = serde_json::Map::new();
        for (status, description, schema) in errors(Dialect::of(self.path)) {
            let body = json!({"description": description, "content": json_of(&schema_ref(schema))});
            responses.insert(status.to_string(), body);
        }
        for (status, content) in self.answers {
            let response = responses
                .entry(status.to_string())
                .or_insert_with(|| json!({"description": "Done"}));
            response["content"] = content;
        }
        let mut value = json!({
            "tags": [self.tag],
            "operationId": self.id,
            "summary": self.summary,
            "responses": responses,
        });
        if let Some(schema) = self.request {
            value["requestBody"] = json!({"required": true, "content": json_of(&schema)});
        }
        let mut parameters: Vec<Value> = self
            .path
            .split('{')
            .skip(1)
            .filter_map(|part| part.split('}').next())
            .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "minLength": 1}}))
            .collect();
        if TIMED.contains(&self.path) {
            parameters.push(json!({"name": deadline::HEADER.as_str(), "in": "header",
                "description": "How long the request may take, in seconds; then it ends with 504, or a stream with an error",
                "schema": {"type": "number", "minimum": deadline::RANGE.start(), "maximum": deadline::RANGE.end()}}));
        }
        if !parameters.is_empty() {
            value["parameters"] = Value::Array(parameters);
        }
        Operation {
            path: self.path.to_owned(),
            method: self.method,
            value,
        }
    }
}

fn schema_ref(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn json_of(schema: &Value) -> Value {
    json!({"application/json": {"schema": schema}})
}

/// JSON of one schema.
fn json(name: &str) -> Value {
    json_of(&schema_ref(name))
}

fn list_of(name: &str) -> Value {
    json_of(&json!({"type": "array", "items": schema_ref(name)}))
}

/// JSON, or server-sent events where the request asks for a stream.
fn streamed(mut content: Value) -> Value {
    content["text/event-stream"] = json!({"schema": schema_ref("Event")});
    content
}

fn text(kind: &str) -> Value {
    json!({kind: {"schema": {"type": "string"}}})
}

/// SGLang answers in its own shape also where it could not do it.
fn sglang_refused() -> Value {
    json_of(&json!({"anyOf": [schema_ref("SglangDone"), schema_ref("TgiError")]}))
}

/// All routes, in the order of the table in `routes.rs`.
pub(super) fn all() -> Vec<Operation> {
    let mut all = Vec::new();
    let mut add = |tag, method, path, id, summary, request: Option<&str>, answers: Vec<(u16, Value)>| {
        let request = request.map(schema_ref);
        let route = Route {
            method,
            path,
            tag,
            id,
            summary,
            request,
            answers,
        };
        all.push(route.operation());
    };
    let tag = "OpenAI";
    add(
        tag,
        "post",
        "/v1/chat/completions",
        "chat",
        "Answer a conversation",
        Some("ChatRequest"),
        vec![(200, streamed(json("Chat")))],
    );
    add(
        tag,
        "post",
        "/v1/completions",
        "complete",
        "Go on from a text",
        Some("CompletionRequest"),
        vec![(200, streamed(json("Completion")))],
    );
    add(
        tag,
        "post",
        "/v1/embeddings",
        "embeddings",
        "Embeddings of texts",
        Some("EmbeddingsRequest"),
        vec![(200, json("Embeddings"))],
    );
    add(
        tag,
        "get",
        "/v1/models",
        "listModels",
        "The base and the adapters",
        None,
        vec![(200, json("Models"))],
    );
    add(
        tag,
        "get",
        "/v1/models/{name}",
        "getModel",
        "The base or an adapter; names may have slashes",
        None,
        vec![(200, json("Model"))],
    );
    add(
        tag,
        "post",
        "/v1/responses",
        "respond",
        "Answer a conversation, in the words of the Responses API",
        Some("ResponseRequest"),
        vec![(200, streamed(json("Response")))],
    );
    add(
        tag,
        "get",
        "/v1/files",
        "listFiles",
        "The files of batches",
        None,
        vec![(200, json("Files"))],
    );
    add(
        tag,
        "post",
        "/v1/files",
        "addFile",
        "Send a file of requests",
        None,
        vec![(200, json("File"))],
    );
    add(
        tag,
        "get",
        "/v1/files/{id}",
        "getFile",
        "A file, without its content",
        None,
        vec![(200, json("File"))],
    );
    add(
        tag,
        "delete",
        "/v1/files/{id}",
        "removeFile",
        "Delete a file",
        None,
        vec![(200, json("Deleted"))],
    );
    add(
        tag,
        "get",
        "/v1/files/{id}/content",
        "getFileContent",
        "What is in a file",
        None,
        vec![(200, text("application/octet-stream"))],
    );
    add(
        tag,
        "get",
        "/v1/batches",
        "listBatches",
        "The batches, the newest first",
        None,
        vec![(200, json("Batches"))],
    );
    add(
        tag,
        "post",
        "/v1/batches",
        "addBatch",
        "Have a file of requests answered while the machine is idle",
        Some("BatchRequest"),
        vec![(200, json("Batch"))],
    );
    add(
        tag,
        "get",
        "/v1/batches/{id}",
        "getBatch",
        "A batch as it stands",
        None,
        vec![(200, json("Batch"))],
    );
    add(
        tag,
        "post",
        "/v1/batches/{id}/cancel",
        "cancelBatch",
        "End a batch early",
        None,
        vec![(200, json("Batch"))],
    );
    let tag = "TGI and LoRAX";
    add(
        tag,
        "post",
        "/",
        "tgi",
        "Generate, whole (a list of one) or streamed as `stream` says",
        Some("GenerateRequest"),
        vec![(200, streamed(list_of("Generated")))],
    );
    add(
        tag,
        "post",
        "/invocations",
        "invocations",
        "The same, as SageMaker calls it",
        Some("GenerateRequest"),
        vec![(200, streamed(list_of("Generated")))],
    );
    add(
        tag,
        "post",
        "/generate",
        "generate",
        "Generate",
        Some("GenerateRequest"),
        vec![(200, json("Generated"))],
    );
    add(
        tag,
        "post",
        "/generate_stream",
        "generateStream",
        "Generate, token by token",
        Some("GenerateRequest"),
        vec![(200, json!({"text/event-stream": {"schema": schema_ref("Event")}}))],
    );
    add(
        tag,
        "post",
        "/embed",
        "embed",
        "An embedding of a text",
        Some("EmbedRequest"),
        vec![(200, json("Embedded"))],
    );
    add(
        tag,
        "post",
        "/tokenize",
        "tokenize",
        "The tokens of a text",
        Some("TokenizeRequest"),
        vec![(200, list_of("Piece"))],
    );
    add(
        tag,
        "post",
        "/chat_tokenize",
        "chatTokenize",
        "The tokens of a conversation",
        Some("ChatTokenizeRequest"),
        vec![(200, json("ChatTokenized"))],
    );
    add(
        tag,
        "get",
        "/info",
        "info",
        "What is served",
        None,
        vec![(200, json("Info"))],
    );
    let tag = "Adapters";
    add(
        tag,
        "get",
        "/v1/adapters",
        "listAdapters",
        "All adapters, and what they take",
        None,
        vec![(200, json("Adapters"))],
    );
    add(
        tag,
        "post",
        "/v1/adapters",
        "addAdapter",
        "Add an adapter, or replace one",
        Some("AddAdapter"),
        vec![(200, streamed(json("Adapter"))), (201, json("Adapter"))],
    );
    add(
        tag,
        "get",
        "/v1/adapters/{name}",
        "getAdapter",
        "An adapter; `events` streams what becomes of all",
        None,
        vec![(200, streamed(json("Adapter")))],
    );
    add(
        tag,
        "patch",
        "/v1/adapters/{name}",
        "changeAdapter",
        "Pin it, go back to a version, set its defaults and limits",
        Some("ChangeAdapter"),
        vec![(200, json("Adapter"))],
    );
    add(
        tag,
        "delete",
        "/v1/adapters/{name}",
        "removeAdapter",
        "Remove an adapter",
        None,
        vec![(204, json!({}))],
    );
    add(
        tag,
        "post",
        "/v1/load_lora_adapter",
        "vllmLoad",
        "vLLM's way to add one",
        Some("VllmLoad"),
        vec![(200, text("text/plain"))],
    );
    add(
        tag,
        "post",
        "/v1/unload_lora_adapter",
        "vllmUnload",
        "vLLM's way to remove one",
        Some("VllmUnload"),
        vec![(200, text("text/plain"))],
    );
    add(
        tag,
        "post",
        "/load_lora_adapter",
        "sglangLoad",
        "SGLang's way to add one",
        Some("SglangLoad"),
        vec![(200, json("SglangDone")), (400, sglang_refused())],
    );
    add(
        tag,
        "post",
        "/unload_lora_adapter",
        "sglangUnload",
        "SGLang's way to remove one",
        Some("SglangUnload"),
        vec![(200, json("SglangDone")), (400, sglang_refused())],
    );
    add(
        tag,
        "get",
        "/lora-adapters",
        "llamaCppList",
        "The adapters by number, as llama.cpp lists them",
        None,
        vec![(200, list_of("LlamaCppAdapter"))],
    );
    add(
        tag,
        "post",
        "/lora-adapters",
        "llamaCppSet",
        "Refused: a request chooses its adapter by itself",
        None,
        vec![],
    );
    let tag = "Keys";
    add(
        tag,
        "get",
        "/v1/keys",
        "listKeys",
        "All keys, without their secrets",
        None,
        vec![(200, json("Keys"))],
    );
    add(
        tag,
        "post",
        "/v1/keys",
        "addKey",
        "Make a key; its secret is shown once",
        Some("AddKey"),
        vec![(201, json("Key"))],
    );
    add(
        tag,
        "get",
        "/v1/keys/{id}",
        "getKey",
        "A key",
        None,
        vec![(200, json("Key"))],
    );
    add(
        tag,
        "patch",
        "/v1/keys/{id}",
        "changeKey",
        "Change a key; null lifts a limit",
        Some("ChangeKey"),
        vec![(200, json("Key"))],
    );
    add(
        tag,
        "delete",
        "/v1/keys/{id}",
        "revokeKey",
        "Revoke a key",
        None,
        vec![(204, json!({}))],
    );
    add(
        tag,
        "post",
        "/v1/keys/{id}/rotate",
        "rotateKey",
        "A new secret; the old ones go on for some hours",
        Some("RotateKey"),
        vec![(200, json("Key"))],
    );
    let tag = "Operations";
    add(
        tag,
        "get",
        "/v1/usage",
        "usage",
        "Requests and tokens by key, tenant, adapter and time",
        None,
        vec![(200, json("Usages"))],
    );
    add(
        tag,
        "get",
        "/health",
        "health",
        "200 while requests are answered",
        None,
        vec![(200, json!({})), (503, json!({}))],
    );
    add(
        tag,
        "get",
        "/ready",
        "ready",
        "200 while new requests are taken, else 503 with the reason",
        None,
        vec![(200, json("Ready")), (503, json("Ready"))],
    );
    add(
        tag,
        "get",
        "/ping",
        "ping",
        "The same",
        None,
        vec![(200, json!({})), (503, json!({}))],
    );
    add(
        tag,
        "post",
        "/ping",
        "pingPost",
        "The same",
        None,
        vec![(200, json!({})), (503, json!({}))],
    );
    add(
        tag,
        "get",
        "/version",
        "version",
        "The program's version",
        None,
        vec![(200, json("Version"))],
    );
    add(
        tag,
        "get",
        "/stats",
        "stats",
        "The engine's figures after its last step",
        None,
        vec![(200, json("Stats"))],
    );
    let mut metrics = text("text/plain");
    metrics["application/openmetrics-text"] = json!({"schema": {"type": "string"}});
    add(
        tag,
        "get",
        "/metrics",
        "metrics",
        "Figures for Prometheus",
        None,
        vec![(200, metrics)],
    );
    add(
        tag,
        "get",
        "/openapi.json",
        "openapi",
        "This document",
        None,
        vec![(200, json("Anything"))],
    );
    add(
        tag,
        "get",
        "/docs",
        "docs",
        "A page that shows it",
        None,
        vec![(200, text("text/html"))],
    );
    for operation in &mut all {
        if operation.method == "post" && operation.path == "/v1/files" {
            let body = json!({"multipart/form-data": {"schema": schema_ref("AddFile")}});
            operation.value["requestBody"] = json!({"required": true, "content": body});
        }
        if operation.path == "/v1/usage" {
            let parameter = |name, about| json!({"name": name, "in": "query", "description": about, "schema": {"type": "string"}});
            operation.value["parameters"] = json!([
                parameter("from", "A day in UTC, or seconds since 1970"),
                parameter("to", "The same, not with that hour"),
                parameter(
                    "by",
                    "Of key, tenant, adapter and one of hour, day, month, by commas"
                ),
            ]);
        }
    }
    all
}

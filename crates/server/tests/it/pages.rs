//! The pages in `docs/` against the code: a field that is read is named in its dialect's page, and
//! the other way round.

use std::{
    collections::BTreeSet,
    fmt::Debug,
    fs,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
    subscriber::DefaultGuard,
};

use crate::support::{BASE, Server, server};

/// The fields that the server reads on this thread, by what it says of them in its log.
struct FieldsRead {
    read: Arc<Mutex<BTreeSet<String>>>,
    _log: DefaultGuard,
}

impl FieldsRead {
    /// Those from now on.
    fn record() -> Self {
        let read = Arc::default();
        let log = tracing::subscriber::set_default(Log(Arc::clone(&read)));
        Self { read, _log: log }
    }

    /// Those since the last time.
    fn take(&self) -> BTreeSet<String> {
        std::mem::take(&mut *self.read.lock().unwrap())
    }
}

/// A log of nothing but fields.
struct Log(Arc<Mutex<BTreeSet<String>>>);

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "multigraft_server::fields"
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut path = Path::default();
        event.record(&mut path);
        self.0.lock().unwrap().insert(path.within + &path.name);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// Where a field is and what it is called.
#[derive(Default)]
struct Path {
    within: String,
    name: String,
}

impl Visit for Path {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "within" => value.clone_into(&mut self.within),
            "name" => value.clone_into(&mut self.name),
            _ => {}
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
}

fn page(name: &str) -> String {
    let docs = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let path = docs.join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The words of a text that are set as code.
fn code_words(text: &str) -> BTreeSet<String> {
    let code = text.split('`').skip(1).step_by(2);
    let is_part = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let words = code.flat_map(|code| code.split(move |character| !is_part(character)));
    words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// The names and handlings of fields in the tables of fields.
fn rows(page: &str) -> Vec<(BTreeSet<String>, &str)> {
    let mut within = false;
    let mut rows = Vec::new();
    for line in page.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        match cells.as_slice() {
            ["", "field", "type", "handling", ..] => within = true,
            ["", first, _, handling, ..] if within => rows.push((code_words(first), *handling)),
            _ => within = false,
        }
    }
    rows
}

/// The fields that the tables of fields list.
fn listed(page: &str) -> BTreeSet<String> {
    rows(page).into_iter().flat_map(|(names, _)| names).collect()
}

/// The name of a field without what it is within.
fn last(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// The fields that are read of these bodies, the first of which is a request that is answered.
async fn read(server: &Server, path: &str, bodies: &[Value]) -> BTreeSet<String> {
    let fields = FieldsRead::record();
    for (index, body) in bodies.iter().enumerate() {
        let answer = server.post(path, body.clone()).await;
        assert!(
            index > 0 || answer.status == 200,
            "{path} {body}: {}",
            answer.text
        );
    }
    fields.take()
}

/// Every field of `read` is in one of the pages, and what the `tables` list is read.
fn agree(read: &BTreeSet<String>, pages: &[&str], tables: &[&str]) {
    assert!(!read.is_empty(), "no field was read");
    let words: BTreeSet<String> = pages.iter().flat_map(|name| code_words(&page(name))).collect();
    let missing: Vec<&String> = read.iter().filter(|path| !words.contains(last(path))).collect();
    assert!(missing.is_empty(), "{pages:?} do not name {missing:?}");
    let known: BTreeSet<&str> = read.iter().flat_map(|path| path.split(['.', '[', ']'])).collect();
    for table in tables {
        let names = listed(&page(table));
        let unknown: Vec<&String> = names
            .iter()
            .filter(|name| !known.contains(name.as_str()))
            .collect();
        assert!(!names.is_empty(), "{table} has no table of fields");
        assert!(
            unknown.is_empty(),
            "{table} lists {unknown:?}, which nothing reads"
        );
    }
}

#[tokio::test]
async fn openais_and_vllms_fields_are_in_their_pages() {
    let server = server();
    let with = |prompt: &Value, extra: Value| {
        let mut body = prompt.clone();
        if let (Some(body), Value::Object(extra)) = (body.as_object_mut(), extra) {
            body.extend(extra);
        }
        body
    };
    let mut all = BTreeSet::new();
    for (path, prompt) in [
        (
            "/v1/completions",
            json!({"model": BASE, "prompt": "w", "max_tokens": 1}),
        ),
        (
            "/v1/chat/completions",
            json!({"model": BASE, "messages": [{"role": "user", "content": "a"}], "max_tokens": 1}),
        ),
    ] {
        let function = json!({"type": "function", "function": {"name": "f"}});
        let bodies = [
            json!({"stream": true, "stream_options": {}, "tools": [function], "tool_choice": function}),
            json!({"tools": [function], "tool_choice": {"type": "allowed_tools"}}),
            json!({"structured_outputs": {}}),
            json!({"response_format": {"type": "json_object"}}),
            json!({"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}}),
            json!({"model": null, "lora": [{"id": 0, "scale": 1}]}),
            json!({"model": null, "adapters": [{"id": "two"}]}),
        ];
        let first = match path {
            "/v1/completions" => json!({"stream": true, "stream_options": {}}),
            _ => bodies[0].clone(),
        };
        let mut bodies: Vec<Value> = bodies.map(|extra| with(&prompt, extra)).to_vec();
        bodies.insert(0, with(&prompt, first));
        all.extend(read(&server, path, &bodies).await);
    }
    let pages = [
        "openai.md",
        "vllm.md",
        "constrained.md",
        "tools.md",
        "adapters.md",
    ];
    let fields = FieldsRead::record();
    for body in [json!({"lora_name": "x", "lora_path": "/none"}), json!({})] {
        for path in [
            "/v1/load_lora_adapter",
            "/v1/unload_lora_adapter",
            "/load_lora_adapter",
            "/unload_lora_adapter",
        ] {
            server.post(path, body.clone()).await;
        }
    }
    let management = fields.take();
    agree(&management, &["vllm.md"], &[]);
    all.extend(management);
    agree(&all, &pages, &["openai.md", "vllm.md"]);
}

#[tokio::test]
async fn tgis_and_loraxs_fields_are_in_their_pages() {
    let server = server();
    let parameters = |parameters: Value| json!({"inputs": "w", "parameters": parameters});
    let bodies = [
        parameters(json!({"max_new_tokens": 1})),
        parameters(json!({"grammar": {"type": "regex", "value": "a"}})),
        parameters(json!({"response_format": {"type": "json_object"}})),
        parameters(json!({"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}})),
        parameters(json!({"adapters": [{"id": "two"}]})),
        parameters(json!({"merged_adapters": {"ids": ["two"]}})),
        parameters(json!({"merged_adapters": {"ids": ["two"], "merge_strategy": "ties"}})),
    ];
    let mut all = BTreeSet::new();
    for path in ["/generate", "/"] {
        all.extend(read(&server, path, &bodies).await);
    }
    all.extend(read(&server, "/tokenize", &[json!({"inputs": "w"})]).await);
    let pages = ["tgi.md", "lorax.md", "constrained.md"];
    agree(&all, &pages, &["tgi.md", "lorax.md"]);
}

#[tokio::test]
async fn embeddings_fields_are_in_their_page() {
    let server = server();
    let mut all = read(&server, "/v1/embeddings", &[json!({"model": BASE, "input": "a"})]).await;
    all.extend(read(&server, "/embed", &[json!({"inputs": "a", "parameters": {}})]).await);
    agree(&all, &["embeddings.md", "openai.md", "lorax.md"], &[]);
}

/// The fields that a page's tables call supported.
fn supported(page: &str) -> BTreeSet<String> {
    let rows = rows(page).into_iter();
    let supported = rows.filter(|(_, handling)| *handling == "supported");
    supported.flat_map(|(names, _)| names).collect()
}

/// The fields of a schema and of the objects in it.
fn described(schema: &Value, schemas: &Value) -> BTreeSet<String> {
    let fields = schema["properties"].as_object().into_iter().flatten();
    let mut names = BTreeSet::new();
    for (name, field) in fields {
        names.insert(name.clone());
        names.extend(described(field, schemas));
        let entry = field["items"]["$ref"]
            .as_str()
            .and_then(|at| at.rsplit('/').next());
        if let Some(entry) = entry {
            names.extend(described(&schemas[entry], schemas));
        }
    }
    names
}

#[tokio::test]
async fn what_the_pages_call_supported_is_in_the_openapi_document() {
    let server = server();
    let document = server.get("/openapi.json").await.json();
    let schemas = &document["components"]["schemas"];
    let openai = ["ChatRequest", "CompletionRequest", "EmbeddingsRequest"];
    let tgi = ["GenerateRequest", "EmbedRequest", "TokenizeRequest"];
    for (name, requests) in [
        ("openai.md", openai),
        ("vllm.md", openai),
        ("tgi.md", tgi),
        ("lorax.md", tgi),
    ] {
        let supported = supported(&page(name));
        assert!(!supported.is_empty(), "{name} has no table of fields");
        let described: BTreeSet<String> = requests
            .iter()
            .flat_map(|request| described(&schemas[request], schemas))
            .collect();
        let missing: Vec<_> = supported.difference(&described).collect();
        assert!(missing.is_empty(), "{name}: the document lacks {missing:?}");
    }
}

//! The server's routes, from its OpenAPI document, and valid bodies for them.

use anyhow::{Context as _, Result};
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};

/// The probability that an optional field is present.
const OPTIONAL: f64 = 0.15;
/// How deep references in schemas are followed.
const MAX_DEPTH: usize = 4;
/// How many names of adapters requests may add and remove.
const GUESTS: usize = 6;

/// A method of a path, and the schema of its JSON body if it has one.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub method: String,
    pub path: String,
    pub schema: Option<Value>,
}

/// All routes of an OpenAPI document. References in schemas are replaced by the schemas that they
/// name.
pub(super) fn all(document: &Value) -> Result<Vec<Route>> {
    let paths = document["paths"].as_object().context("paths in /openapi.json")?;
    let mut routes = Vec::new();
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().into_iter().flatten() {
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            routes.push(Route {
                method: method.to_uppercase(),
                path: path.clone(),
                schema: (!schema.is_null()).then(|| resolved(document, schema, MAX_DEPTH)),
            });
        }
    }
    Ok(routes)
}

fn resolved(document: &Value, schema: &Value, depth: usize) -> Value {
    if let Some(at) = schema["$ref"].as_str().and_then(|at| at.strip_prefix('#')) {
        let named = document.pointer(at).filter(|_| depth > 0);
        return named.map_or(Value::Null, |schema| resolved(document, schema, depth - 1));
    }
    match schema {
        Value::Object(fields) => {
            let fields = fields.iter();
            Value::Object(
                fields
                    .map(|(name, value)| (name.clone(), resolved(document, value, depth)))
                    .collect(),
            )
        }
        Value::Array(items) => {
            Value::Array(items.iter().map(|item| resolved(document, item, depth)).collect())
        }
        other => other.clone(),
    }
}

impl Route {
    /// Its path with values for the names and ids in it.
    pub(super) fn target(&self, random: &mut ChaCha8Rng) -> String {
        let ids = [
            "x",
            "guest1",
            "file-1",
            "batch_1",
            "0",
            "self",
            "a/b",
            "%00",
            "guest2/versions",
        ];
        let id = ids[random.random_range(0..ids.len())];
        self.path.replace("{name}", id).replace("{id}", id)
    }

    /// A body that is valid in most cases, and quick to answer.
    pub(super) fn body(&self, random: &mut ChaCha8Rng, facts: &ServerFacts) -> Value {
        let Some(schema) = &self.schema else {
            return json!({});
        };
        let mut body = object(random, facts, schema);
        let fields = &schema["properties"];
        for name in ["max_tokens", "max_completion_tokens", "max_output_tokens"] {
            if fields.get(name).is_some() {
                body.insert(name.to_owned(), json!(random.random_range(1..4)));
            }
        }
        if fields["parameters"]["properties"].get("max_new_tokens").is_some() {
            let parameters = body.entry("parameters").or_insert_with(|| json!({}));
            if let Some(parameters) = parameters.as_object_mut() {
                parameters.insert("max_new_tokens".to_owned(), json!(random.random_range(1..4)));
            }
        }
        Value::Object(body)
    }
}

fn object(random: &mut ChaCha8Rng, facts: &ServerFacts, schema: &Value) -> Map<String, Value> {
    let required: Vec<&str> = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mut object = Map::new();
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        if required.contains(&name.as_str()) || random.random_bool(OPTIONAL) {
            object.insert(name.clone(), value(random, facts, name, schema));
        }
    }
    object
}

/// A value for a field: by the field's name where that tells more than the schema.
fn value(random: &mut ChaCha8Rng, facts: &ServerFacts, name: &str, schema: &Value) -> Value {
    let guest = format!("guest{}", random.random_range(0..GUESTS));
    match name {
        "model" | "adapter_id" => json!(facts.models[random.random_range(0..facts.models.len())]),
        "name" | "lora_name" => json!(guest),
        "source" | "lora_path" => match random.random_bool(0.3) {
            true => json!(facts.source),
            false => json!(pick(
                random,
                &[
                    "/etc",
                    "hf://x/y",
                    "https://127.0.0.1/x",
                    "../..",
                    "s3://b/k",
                    "x"
                ]
            )),
        },
        "messages" => messages(random),
        "prompt" | "inputs" | "input" | "instructions" | "content" => {
            json!(pick(
                random,
                &[
                    "river copper",
                    "a",
                    "The end.",
                    "\u{1f980} crab",
                    "<|im_end|>",
                    "\u{0}"
                ]
            ))
        }
        "n" | "best_of" | "top_n_tokens" | "top_logprobs" => json!(random.random_range(1..3)),
        "stop" => json!(["x", "\n\n"]),
        "endpoint" => json!("/v1/completions"),
        "input_file_id" => json!(facts.file),
        "completion_window" => json!("24h"),
        "tools" => json!([tool()]),
        "tool_choice" => pick(
            random,
            &[
                json!("required"),
                json!("auto"),
                json!({"type": "function", "function": {"name": "f"}}),
            ],
        ),
        "response_format" | "structured_outputs" => format(random),
        "grammar" if schema["type"][0] == "object" => match random.random() {
            true => json!({"type": "json", "value": schema_of(random)}),
            false => json!({"type": "regex", "value": pattern(random)}),
        },
        "guided_json" | "json_schema" => schema_of(random),
        "guided_regex" | "regex" => json!(pattern(random)),
        "guided_choice" => json!(["yes", "no"]),
        "guided_grammar" | "grammar" | "ebnf" => json!(grammar(random)),
        _ => by_schema(random, facts, name, schema),
    }
}

fn by_schema(random: &mut ChaCha8Rng, facts: &ServerFacts, name: &str, schema: &Value) -> Value {
    if let Some(values) = schema["enum"].as_array().filter(|values| !values.is_empty()) {
        return values[random.random_range(0..values.len())].clone();
    }
    let kinds = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        Value::String(kind) => vec![kind.as_str()],
        _ => vec!["string"],
    };
    match kinds[random.random_range(0..kinds.len())] {
        "object" => Value::Object(object(random, facts, schema)),
        "array" => {
            let count = random.random_range(0..3);
            (0..count)
                .map(|_| value(random, facts, name, &schema["items"]))
                .collect()
        }
        "integer" => {
            let least = schema["minimum"].as_i64().unwrap_or(0);
            json!(least + random.random_range(0..4))
        }
        "number" => json!(random.random_range(0..8) as f64 / 8.0),
        "boolean" => json!(random.random::<bool>()),
        "null" => Value::Null,
        _ => json!("x"),
    }
}

fn pick<T: Clone>(random: &mut ChaCha8Rng, of: &[T]) -> T {
    of[random.random_range(0..of.len())].clone()
}

fn messages(random: &mut ChaCha8Rng) -> Value {
    let user = json!({"role": "user", "content": pick(random, &["river", "seven copper windows", ""])});
    let parts = json!({"role": "user", "content": [{"type": "text", "text": "winter"}]});
    let call = json!({"id": "abcdefghi", "type": "function", "function": {"name": "f", "arguments": "{\"k\": [1, {}]}"}});
    pick(
        random,
        &[
            json!([user]),
            json!([{"role": "system", "content": "slowly"}, user]),
            json!([parts]),
            json!([user, {"role": "assistant", "content": null, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "abcdefghi", "content": "1"}]),
            json!([user, {"role": "assistant", "content": "x"}]),
        ],
    )
}

fn tool() -> Value {
    json!({"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object",
        "properties": {"k": {"enum": ["a", "b"]}}, "required": ["k"], "additionalProperties": false}}})
}

fn format(random: &mut ChaCha8Rng) -> Value {
    let schema = schema_of(random);
    pick(
        random,
        &[
            json!({"type": "json_object"}),
            json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}),
            json!({"type": "text"}),
            json!({"json": schema}),
            json!({"regex": "[ab]{1,3}"}),
        ],
    )
}

/// Small schemas. Some of them expand to huge ones.
fn schema_of(random: &mut ChaCha8Rng) -> Value {
    let pattern = pattern(random);
    let nested = (0..60).fold(
        json!({"type": "integer"}),
        |inner, _| json!({"type": "array", "items": inner}),
    );
    pick(
        random,
        &[
            json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}),
            json!({"enum": ["a", 1, null, {"b": []}]}),
            json!({"$ref": "#/$defs/x", "$defs": {"x": {"anyOf": [{"$ref": "#/$defs/x"}, {"type": "null"}]}}}),
            json!({"type": "string", "pattern": pattern}),
            json!({"type": "string", "minLength": 1_000_000, "maxLength": 1_000_000_000}),
            json!({"type": "integer", "minimum": -1e300, "maximum": 1e300, "multipleOf": 1e-300}),
            json!({"allOf": [{"type": "string"}, {"type": "number"}]}),
            nested,
        ],
    )
}

/// Small regular expressions. Some of them expand to huge ones.
fn pattern(random: &mut ChaCha8Rng) -> &'static str {
    pick(
        random,
        &[
            "[ab]{1,3}",
            "(a|b)*c",
            "((a{1,100}){1,100}){1,100}",
            "(a*)*b",
            "(?=a)b",
            "\\p{L}{1,1000}",
            "(",
            "[z-a]",
            "a{1000000000}",
            "(?:(?:(?:(?:a?)?)?)?)+",
            ".*.*.*.*.*.*.*.*x",
        ],
    )
}

fn grammar(random: &mut ChaCha8Rng) -> &'static str {
    pick(
        random,
        &[
            "root ::= \"a\" | \"b\" root",
            "root ::= root root | \"a\"",
            "root ::= missing",
            "start: \"a\" start | \"b\"",
            "start: start start | /a*/",
            "root ::= [a-z]{1,100000}",
            "root ::= ((((((\"a\"?)*)?)*)?)*)?",
            "",
        ],
    )
}

/// Facts about the server from which requests are made.
#[derive(Clone, Debug)]
pub(super) struct ServerFacts {
    /// Its routes.
    pub routes: Vec<Route>,
    /// The secret of an admin's API key.
    pub key: String,
    /// The names of the base and of an adapter. Requests may use both; no request that changes
    /// adapters names the adapter.
    pub models: [String; 2],
    /// The folder of an adapter that the server allows to add.
    pub source: String,
    /// The id of an input file of batches.
    pub file: String,
}

/// Headers in addition to those that every request has.
pub(super) type Headers<'a> = &'a [(&'a str, &'a str)];

impl ServerFacts {
    /// The request line and the headers, without the empty line after them. The request asks to
    /// close its connection.
    pub(super) fn head(&self, method: &str, target: &str, more: Headers<'_>) -> Vec<u8> {
        let mut head = format!(
            "{method} {target} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\nconnection: close\r\n",
            self.key
        );
        for (name, value) in more {
            head += &format!("{name}: {value}\r\n");
        }
        head.into_bytes()
    }

    /// A complete request with the right content length.
    pub(super) fn request(&self, method: &str, target: &str, more: Headers<'_>, body: &[u8]) -> Vec<u8> {
        let mut request = self.head(method, target, more);
        request.extend(format!("content-length: {}\r\n\r\n", body.len()).bytes());
        request.extend(body);
        request
    }

    /// A complete request with a JSON body.
    pub(super) fn json(&self, method: &str, target: &str, body: &[u8]) -> Vec<u8> {
        self.request(method, target, &[("content-type", "application/json")], body)
    }
}

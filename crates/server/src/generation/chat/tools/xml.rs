//! Qwen3-Coder's format of calls: a tag for the function and one for each argument. Texts are
//! written without quotes or escapes, all other values as JSON.

use std::fmt::Write as _;

use multigraft_grammar::with_blanks;
use serde_json::{Map, Value, json};

use super::Function;

/// What ends an argument.
pub(super) const END: &str = "\n</parameter>";

/// The rule of an argument that is any text, with what ends it.
pub(super) const ARGUMENT: &str = "argument[lazy]: /(?s:.*)\\n<[\\/]parameter>/\n";

/// Keywords of a schema that do not restrict values.
const DESCRIBING: [&str; 12] = [
    "$comment",
    "$defs",
    "$id",
    "$schema",
    "default",
    "definitions",
    "deprecated",
    "description",
    "examples",
    "readOnly",
    "title",
    "writeOnly",
];

/// The keywords of parameters that define the arguments.
const NAMING: [&str; 4] = ["additionalProperties", "properties", "required", "type"];

/// The longest chain of references.
const REFERENCES: usize = 8;

/// The notation of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// A text without quotes.
    Text,
    /// A text without quotes, or `null`, which is not a text.
    TextOrNull,
    /// As JSON.
    Json,
}

/// The parameters of a function with their notations, in the order of its schema.
pub(super) fn parameters(function: &Function) -> Vec<(String, Written)> {
    let properties = function.parameters.get("properties").and_then(Value::as_object);
    let properties = properties.into_iter().flatten();
    let written = |schema| texts(schema, &function.parameters).0;
    let mut all: Vec<_> = properties
        .map(|(name, schema)| (name.clone(), written(schema)))
        .collect();
    for name in required(function) {
        if all.iter().all(|(other, _)| other != name) {
            all.push((name.to_owned(), Written::Json));
        }
    }
    all
}

fn required(function: &Function) -> Vec<&str> {
    let required = function.parameters.get("required").and_then(Value::as_array);
    required.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// The notation of a value of `schema`, and its texts, if the schema enumerates them. A text with
/// further restrictions, such as a pattern, is written as JSON, because the grammar of JSON can
/// enforce them.
fn texts<'a>(schema: &'a Value, root: &'a Value) -> (Written, Option<Vec<&'a str>>) {
    const JSON: (Written, Option<Vec<&str>>) = (Written::Json, None);
    let Some(fields) = resolved(schema, root).as_object() else {
        return JSON;
    };
    let (mut kind, mut options, mut either) = (None, None, None);
    for (name, value) in fields {
        match name.as_str() {
            "type" => kind = Some(value),
            "enum" if options.is_none() => options = Some(value.as_array().map_or(&[][..], Vec::as_slice)),
            "const" if options.is_none() => options = Some(std::slice::from_ref(value)),
            "anyOf" | "oneOf" if either.is_none() => {
                either = Some(value.as_array().map_or(&[][..], Vec::as_slice));
            }
            name if DESCRIBING.contains(&name) => {}
            _ => return JSON,
        }
    }
    match (kind, options, either) {
        (None, None, Some([some, none] | [none, some]))
            if *resolved(none, root) == json!({"type": "null"}) =>
        {
            match texts(some, root) {
                (Written::Text, options) => (Written::TextOrNull, options),
                _ => JSON,
            }
        }
        (Some(Value::Array(kinds)), None, None) if *kinds == [json!("string"), json!("null")] => {
            (Written::TextOrNull, None)
        }
        (Some(kind), None, None) if kind == "string" => (Written::Text, None),
        (kind, Some(options), None) if kind.is_none_or(|kind| kind == "string") => {
            let options: Option<Vec<&str>> = options.iter().map(Value::as_str).collect();
            match options.filter(|options| options.iter().all(|text| !text.contains(END))) {
                Some(options) if !options.is_empty() => (Written::Text, Some(options)),
                _ => JSON,
            }
        }
        _ => JSON,
    }
}

/// The schema, or the schema in `root` that it refers to.
fn resolved<'a>(mut schema: &'a Value, root: &'a Value) -> &'a Value {
    for _ in 0..REFERENCES {
        let Some(fields) = schema.as_object() else { break };
        // Keywords beside a reference apply, too.
        let is_alone = fields
            .keys()
            .all(|name| name == "$ref" || DESCRIBING.contains(&name.as_str()));
        let to = fields.get("$ref").and_then(Value::as_str).filter(|_| is_alone);
        match to.and_then(|to| root.pointer(to.strip_prefix('#')?)) {
            Some(found) => schema = found,
            None => break,
        }
    }
    schema
}

/// The rules of a call of `function`, the first of which is called `rule`.
///
/// # Errors
/// What of its parameters cannot be kept to, as the end of a sentence.
pub(super) fn rules(rule: &str, function: &Function) -> Result<String, String> {
    let schema = function.parameters.as_object();
    for keyword in schema.into_iter().flat_map(Map::keys) {
        if !NAMING.contains(&keyword.as_str()) && !DESCRIBING.contains(&keyword.as_str()) {
            return Err(format!("`{keyword}`, which holds several arguments together"));
        }
    }
    let required = required(function);
    let mut call = format!("{rule}: {}", literal(&format!("<function={}>\n", function.name)));
    let mut others = String::new();
    for (index, (name, written)) in parameters(function).into_iter().enumerate() {
        if name.contains(['>', '\n']) {
            return Err(format!("a parameter called {name:?}, which no tag can say"));
        }
        let part = format!("{rule}p{index}");
        let optional = if required.contains(&name.as_str()) {
            ""
        } else {
            "?"
        };
        let _ = write!(call, " {part}{optional}");
        let properties = function.parameters.get("properties");
        let schema = properties.and_then(|all| all.get(&name));
        let options = schema.and_then(|schema| texts(schema, &function.parameters).1);
        let value = match (written, options) {
            (Written::Json, _) => {
                let _ = writeln!(others, "{part}v: %json {}", alone(schema, &function.parameters));
                format!("{part}v {}", literal(&format!("{END}\n")))
            }
            (_, None) => "argument \"\\n\"".to_owned(),
            (written, Some(options)) => {
                let null = Some("null").filter(|_| written == Written::TextOrNull);
                let options = options.into_iter().chain(null);
                let options: Vec<String> = options.map(|text| literal(&format!("{text}{END}\n"))).collect();
                format!("({})", options.join(" | "))
            }
        };
        let _ = writeln!(
            others,
            "{part}: {} {value}",
            literal(&format!("<parameter={name}>\n"))
        );
    }
    Ok(format!("{call} \"</function>\"\n{others}"))
}

/// The schema of one argument, as a schema of its own.
fn alone(schema: Option<&Value>, root: &Value) -> Value {
    let mut schema = match schema {
        Some(Value::Object(fields)) => fields.clone(),
        Some(Value::Bool(false)) => return json!(false),
        _ => Map::new(),
    };
    // References start at the root of a schema.
    for definitions in ["$defs", "definitions"] {
        if let Some(there) = root.get(definitions) {
            schema.entry(definitions).or_insert_with(|| there.clone());
        }
    }
    with_blanks(schema)
}

fn literal(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_texts_are_written_as_they_are_and_the_rest_as_json() {
        let root = json!({"$defs": {"city": {"enum": ["Oslo"], "type": "string", "title": "City"},
            "loop": {"$ref": "#/$defs/loop"}}});
        for (schema, written) in [
            (
                json!({"type": "string", "description": "d", "default": "x"}),
                Written::Text,
            ),
            (json!({"enum": ["a", "b"]}), Written::Text),
            (json!({"const": "a"}), Written::Text),
            (json!({"$ref": "#/$defs/city"}), Written::Text),
            (json!({"type": ["string", "null"]}), Written::TextOrNull),
            (
                json!({"anyOf": [{"type": "string"}, {"type": "null"}], "default": null}),
                Written::TextOrNull,
            ),
            (
                json!({"anyOf": [{"type": "null"}, {"$ref": "#/$defs/city"}]}),
                Written::TextOrNull,
            ),
            (json!({"type": "string", "pattern": "^a"}), Written::Json),
            (json!({"$ref": "#/$defs/city", "maxLength": 3}), Written::Json),
            (json!({"enum": ["a", 1]}), Written::Json),
            (json!({"enum": []}), Written::Json),
            (json!({"enum": ["a\n</parameter>"]}), Written::Json),
            (
                json!({"anyOf": [{"type": "string"}, {"type": "integer"}]}),
                Written::Json,
            ),
            (json!({"type": "integer"}), Written::Json),
            (json!({"$ref": "#/$defs/loop"}), Written::Json),
            (json!({}), Written::Json),
            (json!(true), Written::Json),
        ] {
            assert_eq!(texts(&schema, &root).0, written, "{schema}");
        }
    }

    #[test]
    fn what_tags_cannot_hold_together_is_named() {
        let refused = |parameters: Value| {
            let name = "f".to_owned();
            rules("f0", &Function { name, parameters }).unwrap_err()
        };
        assert!(refused(json!({"type": "object", "oneOf": []})).starts_with("`oneOf`"));
        assert!(refused(json!({"properties": {"a>": {}}})).contains("\"a>\""));
    }
}

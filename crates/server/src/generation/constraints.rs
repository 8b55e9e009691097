//! Constraints on answers, from the fields of all dialects. Their rows in
//! [`crate::contract::fields`] refer to `docs/constrained.md`.

use multigraft_grammar::Constraint;
use serde_json::Value;

use crate::{
    contract::{
        fields::{Body, Field, openai as row, tgi},
        limits::Limits,
    },
    http::{error::ApiError, fields::Fields},
    state::grammars::Constrained,
};

/// The constraint that was found so far.
#[derive(Default)]
struct Found(Option<Constrained>);

impl Found {
    fn put(&mut self, field: String, constraint: Constraint) -> Result<(), ApiError> {
        if let Some(first) = &self.0 {
            let message = format!(
                "`{field}` is given beside `{}`, but an answer can only be one of both",
                first.field
            );
            return Err(ApiError::invalid(field, message));
        }
        self.0 = Some(Constrained { field, constraint });
        Ok(())
    }
}

/// The constraint of a request in OpenAI's dialect.
pub(crate) fn of_openai(fields: &mut Fields, limits: &Limits) -> Result<Option<Constrained>, ApiError> {
    let mut found = Found::default();
    response_format(fields, &mut found)?;
    put_vllm(fields, &GUIDED, limits, &mut found)?;
    if let Some(mut structured) = fields.object(row::STRUCTURED_OUTPUTS)? {
        put_vllm(&mut structured, &STRUCTURED, limits, &mut found)?;
        structured.drop_unsupported(Body::StructuredOutputs)?;
        structured.finish()?;
    }
    for field in [&row::GRAMMAR, &row::EBNF] {
        if let Some(grammar) = fields.string(field)?.filter(|grammar| !grammar.is_empty()) {
            found.put(fields.path(field), Constraint::Grammar(grammar))?;
        }
    }
    if let Some(pattern) = fields.string(row::REGEX)? {
        found.put(fields.path(row::REGEX), Constraint::Regex(pattern))?;
    }
    if let Some(schema) = fields.take(row::JSON_SCHEMA) {
        let schema = schema_of(fields, row::JSON_SCHEMA.name, schema)?;
        found.put(fields.path(row::JSON_SCHEMA), Constraint::Json(schema))?;
    }
    Ok(found.0)
}

/// vLLM's fields: a JSON schema, a regular expression, texts to choose from, a grammar, any object.
type VllmFields = [Field; 5];

/// vLLM's older fields, beside OpenAI's.
const GUIDED: VllmFields = [
    row::GUIDED_JSON,
    row::GUIDED_REGEX,
    row::GUIDED_CHOICE,
    row::GUIDED_GRAMMAR,
    row::GUIDED_JSON_OBJECT,
];
/// Those of `structured_outputs`.
const STRUCTURED: VllmFields = [
    row::STRUCTURED_JSON,
    row::STRUCTURED_REGEX,
    row::STRUCTURED_CHOICE,
    row::STRUCTURED_GRAMMAR,
    row::STRUCTURED_JSON_OBJECT,
];

fn put_vllm(
    fields: &mut Fields,
    [json, regex, choice, grammar, json_object]: &VllmFields,
    limits: &Limits,
    found: &mut Found,
) -> Result<(), ApiError> {
    if let Some(schema) = fields.take(json) {
        let schema = schema_of(fields, json.name, schema)?;
        found.put(fields.path(json), Constraint::Json(schema))?;
    }
    if let Some(pattern) = fields.string(regex)? {
        found.put(fields.path(regex), Constraint::Regex(pattern))?;
    }
    if fields.has(choice) {
        let choices = fields.strings(choice, limits)?;
        found.put(fields.path(choice), Constraint::Choice(choices))?;
    }
    if let Some(text) = fields.string(grammar)? {
        found.put(fields.path(grammar), Constraint::Grammar(text))?;
    }
    if fields.flag(json_object)? == Some(true) {
        found.put(fields.path(json_object), Constraint::json_object())?;
    }
    Ok(())
}

/// The constraint of a request in TGI's or LoRAX's dialect, by its `parameters`.
pub(crate) fn of_tgi(parameters: &mut Fields) -> Result<Option<Constrained>, ApiError> {
    let mut found = Found::default();
    response_format(parameters, &mut found)?;
    if let Some(mut grammar) = parameters.object(tgi::GRAMMAR)? {
        let kind = grammar.required("type")?;
        let Some(value) = grammar.take("value") else {
            return Err(grammar.complain("value", "is missing"));
        };
        let constraint = match kind.as_str() {
            "json" => Constraint::Json(schema_of(&grammar, "value", value)?),
            // OpenAI's `json_schema`: the schema with a name.
            "json_schema" => {
                let schema = value.get("schema").cloned().unwrap_or(value);
                Constraint::Json(schema_of(&grammar, "value", schema)?)
            }
            "regex" => match value {
                Value::String(pattern) => Constraint::Regex(pattern),
                _ => return Err(grammar.complain("value", "must be a string: the regular expression")),
            },
            _ => {
                let problem = format!("is {kind:?}, but must be \"json\", \"json_schema\" or \"regex\"");
                return Err(grammar.complain("type", &problem));
            }
        };
        grammar.finish()?;
        found.put(parameters.path(tgi::GRAMMAR), constraint)?;
    }
    Ok(found.0)
}

/// `response_format` of OpenAI and LoRAX.
fn response_format(fields: &mut Fields, found: &mut Found) -> Result<(), ApiError> {
    let path = fields.path(row::RESPONSE_FORMAT);
    let Some(mut format) = fields.object(row::RESPONSE_FORMAT)? else {
        return Ok(());
    };
    let kind = format.required("type")?;
    let constraint = match kind.as_str() {
        "text" => None,
        "json_object" => Some(match format.take("schema") {
            Some(schema) => Constraint::Json(schema_of(&format, "schema", schema)?),
            None => Constraint::json_object(),
        }),
        "json_schema" => {
            let Some(mut described) = format.object("json_schema")? else {
                return Err(format.complain("json_schema", "is missing"));
            };
            let Some(schema) = described.take("schema") else {
                return Err(described.complain("schema", "is missing"));
            };
            // Every schema is enforced, with `strict` or without.
            described.ignore(&["name", "description", "strict"]);
            let schema = schema_of(&described, "schema", schema)?;
            described.finish()?;
            Some(Constraint::Json(schema))
        }
        _ => {
            let problem = format!("is {kind:?}, but must be \"text\", \"json_object\" or \"json_schema\"");
            return Err(format.complain("type", &problem));
        }
    };
    format.finish()?;
    match constraint {
        Some(constraint) => found.put(path, constraint),
        None => Ok(()),
    }
}

/// A JSON schema, which may come as a string.
fn schema_of(fields: &Fields, name: &str, value: Value) -> Result<Value, ApiError> {
    let schema = match value {
        Value::String(text) => serde_json::from_str(&text)
            .map_err(|error| fields.complain(name, &format!("is not valid JSON: {error}")))?,
        other => other,
    };
    match schema {
        Value::Object(_) | Value::Bool(true) => Ok(schema),
        _ => Err(fields.complain(name, "must be a JSON schema: an object")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn openai(body: &Value) -> Result<Option<Constrained>, ApiError> {
        let mut fields = Fields::from_json(body.to_string().as_bytes())?;
        let found = of_openai(&mut fields, &Limits::default())?;
        fields.finish().map(|()| found)
    }

    #[test]
    fn every_dialect_says_the_same_in_its_own_way() {
        let schema = json!({"type": "integer"});
        let as_json = Constraint::Json(schema.clone());
        let text = schema.to_string();
        let named = json!({"name": "n", "strict": true, "schema": schema});
        for (body, field, constraint) in [
            (
                json!({"response_format": {"type": "json_schema", "json_schema": named}}),
                "response_format",
                &as_json,
            ),
            (
                json!({"response_format": {"type": "json_object", "schema": schema}}),
                "response_format",
                &as_json,
            ),
            (
                json!({"response_format": {"type": "json_object"}}),
                "response_format",
                &Constraint::json_object(),
            ),
            (json!({"guided_json": schema}), "guided_json", &as_json),
            (json!({"guided_json": text}), "guided_json", &as_json),
            (json!({"json_schema": schema}), "json_schema", &as_json),
            (
                json!({"structured_outputs": {"json": schema}}),
                "structured_outputs.json",
                &as_json,
            ),
            (
                json!({"structured_outputs": {"json_object": true}}),
                "structured_outputs.json_object",
                &Constraint::json_object(),
            ),
            (
                json!({"guided_choice": ["a", "b"]}),
                "guided_choice",
                &Constraint::Choice(vec!["a".to_owned(), "b".to_owned()]),
            ),
            (
                json!({"guided_regex": "a+"}),
                "guided_regex",
                &Constraint::Regex("a+".to_owned()),
            ),
            (
                json!({"regex": "a+"}),
                "regex",
                &Constraint::Regex("a+".to_owned()),
            ),
            (
                json!({"ebnf": "root ::= x"}),
                "ebnf",
                &Constraint::Grammar("root ::= x".to_owned()),
            ),
            (
                json!({"grammar": "root ::= x"}),
                "grammar",
                &Constraint::Grammar("root ::= x".to_owned()),
            ),
        ] {
            let found = openai(&body).expect("valid").expect("there");
            assert_eq!(
                (found.field.as_str(), &found.constraint),
                (field, constraint),
                "{body}"
            );
        }
        for body in [
            json!({}),
            json!({"response_format": {"type": "text"}}),
            json!({"guided_json": null}),
        ] {
            assert_eq!(openai(&body), Ok(None), "{body}");
        }
    }

    #[test]
    fn tgis_grammars_are_json_or_regular_expressions() {
        let parameters = |grammar: Value| {
            let mut fields =
                Fields::from_json(json!({"parameters": {"grammar": grammar}}).to_string().as_bytes())?;
            let mut parameters = fields.object("parameters")?.expect("an object");
            of_tgi(&mut parameters)
        };
        let schema = json!({"type": "integer"});
        for (kind, value) in [
            ("json", schema.clone()),
            ("json", json!(schema.to_string())),
            ("json_schema", json!({"name": "n", "schema": schema})),
        ] {
            let found = parameters(json!({"type": kind, "value": value}))
                .expect("valid")
                .expect("there");
            assert_eq!(found.constraint, Constraint::Json(schema.clone()));
            assert_eq!(found.field, "parameters.grammar");
        }
        let found = parameters(json!({"type": "regex", "value": "a"}))
            .expect("valid")
            .expect("there");
        assert_eq!(found.constraint, Constraint::Regex("a".to_owned()));
        for (grammar, field) in [
            (json!({"type": "lark", "value": "x"}), "parameters.grammar.type"),
            (json!({"type": "json"}), "parameters.grammar.value"),
            (json!({"type": "regex", "value": 7}), "parameters.grammar.value"),
            (json!({"value": "x"}), "parameters.grammar.type"),
        ] {
            let error = parameters(grammar).expect_err("wrong");
            assert_eq!(error.field(), Some(field), "{error}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, field) in [
            (
                json!({"response_format": {"type": "xml"}}),
                "response_format.type",
            ),
            (json!({"response_format": {}}), "response_format.type"),
            (
                json!({"response_format": {"type": "json_schema"}}),
                "response_format.json_schema",
            ),
            (
                json!({"response_format": {"type": "json_schema", "json_schema": {}}}),
                "response_format.json_schema.schema",
            ),
            (json!({"guided_json": 7}), "guided_json"),
            (json!({"guided_json": "{"}), "guided_json"),
            (json!({"guided_json": {}, "guided_regex": "a"}), "guided_regex"),
            (
                json!({"structured_outputs": {"whitespace_pattern": "x"}}),
                "structured_outputs.whitespace_pattern",
            ),
            (
                json!({"structured_outputs": {"jsn": {}}}),
                "structured_outputs.jsn",
            ),
        ] {
            let error = openai(&body).expect_err("wrong");
            assert_eq!(error.field(), Some(field), "{error}");
        }
    }
}

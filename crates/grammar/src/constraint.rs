//! Constraints, as requests give them.

use llguidance::api::TopLevelGrammar;
use serde_json::{Map, Value, json};

use crate::{GrammarError, ebnf, literal};

/// The longest constraint, in bytes of its text. The length also bounds how deeply rules can nest.
pub const MAX_CONSTRAINT_BYTES: usize = 128 << 10;

/// A description of the whole output.
#[derive(Clone, Debug, PartialEq)]
pub enum Constraint {
    /// JSON that a schema (JSON Schema, draft 2020-12) allows. Between JSON tokens there may be a
    /// space, or a line break with indentation. Keywords that cannot be enforced are refused,
    /// except annotations.
    Json(Value),
    /// A text that the whole of a regular expression matches, in the syntax of Rust's `regex`.
    Regex(String),
    /// A text of a context-free grammar: in Lark's syntax with `llguidance`'s extensions, or in
    /// llama.cpp's GBNF (the EBNF of XGrammar and vLLM) if any rule is defined by `::=`.
    Grammar(String),
    /// One of these texts. None of them may be empty.
    Choice(Vec<String>),
}

impl Constraint {
    /// Any JSON object.
    #[must_use]
    pub fn json_object() -> Self {
        Self::Json(json!({"type": "object"}))
    }

    /// The length of its text in bytes.
    fn bytes(&self) -> usize {
        match self {
            Self::Json(schema) => schema.to_string().len(),
            Self::Regex(text) | Self::Grammar(text) => text.len(),
            Self::Choice(texts) => texts.iter().map(String::len).sum(),
        }
    }

    /// The part of `llguidance`'s error that users see. Positions are removed, because they refer
    /// to the translated grammar.
    pub(crate) fn explained(&self, reason: &str) -> String {
        let mut lines = reason.lines().map(str::trim).filter(|line| !line.is_empty());
        let first = lines.next().unwrap_or_default();
        let first = match self {
            Self::Grammar(text) if !ebnf::is_ebnf(text) => first,
            _ => first
                .split_once("): ")
                .filter(|(at, _)| at.starts_with("at "))
                .map_or(first, |(_, what)| what),
        };
        let first = first.replace(" without 'referencing' feature", "");
        // An error in a regular expression shows it with a mark below; the last line is the reason.
        match lines.filter_map(|line| line.strip_prefix("error: ")).next_back() {
            Some(what) => format!("{first} {what}"),
            None => first,
        }
    }

    /// The constraint in `llguidance`'s form.
    pub(crate) fn compiled(&self) -> Result<TopLevelGrammar, GrammarError> {
        let bytes = self.bytes();
        if bytes > MAX_CONSTRAINT_BYTES {
            let limit = MAX_CONSTRAINT_BYTES;
            return Err(GrammarError::TooLong { bytes, limit });
        }
        let refused = |reason: &str| Err(GrammarError::Unsupported(reason.to_owned()));
        match self {
            Self::Json(schema) => Ok(TopLevelGrammar::from_json_schema(checked(schema)?)),
            Self::Regex(pattern) => Ok(TopLevelGrammar::from_regex(pattern)),
            Self::Grammar(text) if text.trim().is_empty() => refused("it is empty"),
            Self::Grammar(text) if ebnf::is_ebnf(text) => {
                Ok(TopLevelGrammar::from_lark(ebnf::to_lark(text)?))
            }
            Self::Grammar(text) => Ok(TopLevelGrammar::from_lark(text.clone())),
            Self::Choice(texts) if texts.is_empty() => refused("there is nothing to choose from"),
            Self::Choice(texts) if texts.iter().any(String::is_empty) => {
                refused("one of the choices is empty")
            }
            Self::Choice(texts) => {
                let texts: Vec<String> = texts.iter().map(|text| literal(text)).collect();
                Ok(TopLevelGrammar::from_lark(format!(
                    "start: {}",
                    texts.join(" | ")
                )))
            }
        }
    }
}

/// The white space that may stand between JSON tokens. Models give better JSON when they may format
/// it as in their training data, but small models generate endless white space if it is unbounded.
const BLANKS: &str = r"(\x20|\n(\x20{0,12}|\t{0,4}))?";

fn checked(schema: &Value) -> Result<Value, GrammarError> {
    match schema {
        Value::Object(schema) => Ok(with_blanks(schema.clone())),
        // `true` allows anything.
        Value::Bool(true) => Ok(with_blanks(Map::new())),
        other => {
            let reason = format!("a JSON schema is an object, not {other}");
            Err(GrammarError::Unsupported(reason))
        }
    }
}

/// A schema with the form of its JSON, for use within a grammar (`%json`).
#[must_use]
pub fn with_blanks(mut schema: Map<String, Value>) -> Value {
    let style = json!({"whitespace_flexible": true, "whitespace_pattern": BLANKS});
    schema.entry("x-guidance").or_insert(style);
    Value::Object(schema)
}

//! Every field of the requests that generate, embed or tokenize, stated once: name, type, bounds,
//! what becomes of it, and the table of the documentation that lists it.
//!
//! [`openai`] has the rows of OpenAI's dialect with the fields of vLLM, SGLang and llama.cpp,
//! [`tgi`] those of TGI's with LoRAX's. Four readers share a row: [`crate::http::fields::Fields`]
//! checks a value by it, the OpenAPI document gets the property's schema from it, an adapter's
//! defaults find the field that they fill by it, and a test writes the tables in `docs/` from it.
//!
//! Why a table and no typed struct per request with serde: the error sentences are part of the
//! interface (`` `temperature` is "hot", but must be a number ``). Derived deserialisation words
//! them by Rust's types, stops at the first unknown field in the order of the body, cannot take
//! bounds from [`Limits`] at run time, and knows nothing of fields that are rejected with a reason
//! unless they have a harmless value, which are a third of all. Each of these would need a
//! hand-written `Deserialize` per field, beside which the struct would be a second list.

pub(crate) mod openai;
#[cfg(test)]
mod pages;
pub(crate) mod tgi;

use serde_json::{Value, json};

use super::limits::Limits;

/// A field of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    /// The name, without the object that the field is in.
    pub(crate) name: &'static str,
    /// The bodies that have the field.
    pub(crate) bodies: &'static [Body],
    /// The type and bounds of the value.
    pub(crate) kind: Kind,
    /// What becomes of the value.
    pub(crate) handling: Handling,
    /// Whether a request without the field is refused.
    pub(crate) required: bool,
    /// The entry of an adapter's defaults that fills the field where a request leaves it out.
    pub(crate) default: Option<&'static str>,
    /// The table of the documentation that has the row.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "a test writes the documentation's tables from the rows")
    )]
    pub(crate) table: Table,
    /// What the field does, or why it is ignored or rejected: one line of Markdown.
    pub(crate) note: &'static str,
}

/// An object that a request is, or that is in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// `POST /v1/chat/completions`.
    Chat,
    /// `POST /v1/completions`.
    Completion,
    /// `POST /v1/responses`, which also takes the fields that chats have beyond OpenAI's.
    Response,
    /// `POST /v1/embeddings`.
    Embeddings,
    /// `POST /generate`, `/generate_stream` and `/`.
    Generate,
    /// `parameters` of [`Body::Generate`].
    Parameters,
    /// `POST /embed`.
    Embed,
    /// `parameters` of [`Body::Embed`].
    EmbedParameters,
    /// `POST /tokenize`.
    Tokenize,
    /// `POST /chat_tokenize`.
    ChatTokenize,
    /// `stream_options`.
    StreamOptions,
    /// `structured_outputs`.
    StructuredOutputs,
    /// `reasoning` of [`Body::Response`].
    Reasoning,
    /// `text` of [`Body::Response`].
    ResponseText,
    /// An entry of `adapters`.
    Weighted,
    /// An entry of `lora`.
    Numbered,
    /// `parameters.merged_adapters`.
    Merged,
}

/// A table of the documentation: its page in `docs/` and the name of its markers there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Table(pub(crate) &'static str, pub(crate) &'static str);

/// What becomes of a field's value.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Handling {
    /// The value decides about the answer.
    Supported,
    /// The value is dropped unread: it cannot change the answer.
    Ignored,
    /// The value would change the answer and cannot be honoured.
    Rejected {
        /// What is not supported, as the error names it.
        what: &'static str,
        /// The values that are accepted, because they ask for nothing.
        unless: Harmless,
    },
}

/// Values of a rejected field that are accepted, besides null.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Harmless {
    /// These JSON values. If the list is empty, every value is an error.
    Values(&'static [&'static str]),
    /// A list of nothing but these texts; of none, the empty list.
    ListOf(&'static [&'static str]),
}

/// The type and bounds of a value.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// True or false.
    Flag,
    /// A number that is read in single precision.
    Number(Range),
    /// A whole number from `least` to `most`, which may be written as `5.0`.
    Count {
        /// The least.
        least: usize,
        /// The most, if it is bounded.
        most: Option<fn(&Limits) -> usize>,
    },
    /// A whole number from 1 on, or a number below that stands for something else.
    CountOr {
        /// The numbers that stand for something else.
        others: &'static [i64],
        /// What they stand for.
        meaning: &'static str,
    },
    /// A whole number of 64 bits, signed or not.
    Integer,
    /// A text, of at least one character if `filled`.
    Text {
        /// Whether the empty text is refused.
        filled: bool,
    },
    /// One of these texts, each with what errors say after it.
    OneOf(&'static [(&'static str, &'static str)]),
    /// A text that is not empty, or a list of up to so many.
    Texts(fn(&Limits) -> usize),
    /// A list of token ids.
    TokenIds,
    /// An object from token ids to numbers.
    PerToken(Range),
    /// A list of objects; if named, of the schema of that name.
    Objects(Option<&'static str>),
    /// An object whose fields are rows, too.
    Nested(Body),
    /// An object with other contents.
    Object,
    /// A value of any type.
    Any,
    /// A value of a shape of its own: as the documentation calls it, and its schema.
    Shape(&'static str, fn(&Limits) -> Value),
}

/// The numbers from `least`, itself left out if `above`, to `most`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    pub(crate) least: f64,
    above: bool,
    pub(crate) most: f64,
}

impl Range {
    /// What is finite in single precision.
    const FINITE: f64 = f32::MAX as f64;

    /// All numbers.
    pub(crate) const ALL: Self = Self::between(f64::NEG_INFINITY, f64::INFINITY);

    /// From `least` to `most`.
    pub(crate) const fn between(least: f64, most: f64) -> Self {
        Self {
            least,
            above: false,
            most,
        }
    }

    /// From `least` on.
    pub(crate) const fn from(least: f64) -> Self {
        Self::between(least, Self::FINITE)
    }

    /// The same without the least.
    pub(crate) const fn above(self) -> Self {
        Self { above: true, ..self }
    }

    /// Whether `number` is in the range. NaN is in none.
    pub(crate) fn contains(self, number: f64) -> bool {
        let begins = match self.above {
            true => number > self.least,
            false => number >= self.least,
        };
        begins && number <= self.most
    }

    /// The range in words.
    pub(crate) fn words(self) -> String {
        let Self { least, above, most } = self;
        match (above, most >= Self::FINITE) {
            (true, true) => format!("above {least}"),
            (true, false) => format!("above {least}, at most {most}"),
            (false, true) => format!("{least} or more"),
            (false, false) => format!("{least} to {most}"),
        }
    }

    fn schema(self, kind: Value) -> Value {
        let mut schema = json!({});
        schema["type"] = kind;
        if self.least.is_finite() {
            schema[if self.above { "exclusiveMinimum" } else { "minimum" }] = self.least.into();
        }
        if self.most < Self::FINITE {
            schema["maximum"] = self.most.into();
        }
        schema
    }
}

impl Kind {
    /// What a value must be, as errors say it.
    pub(crate) fn expected(&self, limits: &Limits) -> String {
        match *self {
            Self::Flag => "true or false".to_owned(),
            Self::Number(_) => "a number".to_owned(),
            Self::Count { least, most: None } => format!("a whole number, {least} or more"),
            Self::Count {
                least,
                most: Some(most),
            } => format!("a whole number between {least} and {}", most(limits)),
            Self::CountOr { others, meaning } => {
                let last = others.last().map_or_else(String::new, ToString::to_string);
                format!("a whole number: 1 or more, or {last} for {meaning}")
            }
            Self::Integer => "a whole number".to_owned(),
            Self::Text { .. } | Self::OneOf(_) => "a string".to_owned(),
            Self::Texts(_) => "a string or a list of strings".to_owned(),
            Self::TokenIds | Self::Objects(_) => "a list".to_owned(),
            Self::Object | Self::Nested(_) | Self::PerToken(_) => "an object".to_owned(),
            Self::Any => "a value".to_owned(),
            Self::Shape(words, _) => words.to_owned(),
        }
    }

    /// The type and bounds, as the tables of the documentation say it.
    #[cfg(test)]
    fn documented(&self, limits: &Limits) -> String {
        match *self {
            Self::Number(range) if !range.least.is_finite() => "number".to_owned(),
            Self::Number(range) => format!("number, {}", range.words()),
            Self::Count { least, most } => match most {
                None => format!("whole number, {least} or more"),
                Some(most) => format!("whole number, {least} to {}", most(limits)),
            },
            Self::CountOr { others, .. } => {
                format!(
                    "whole number, 1 or more, {}",
                    either(others.iter().map(ToString::to_string))
                )
            }
            Self::Text { filled: true } => "string, not empty".to_owned(),
            Self::OneOf(names) => either(names.iter().map(|(name, _)| format!("`{name}`"))),
            Self::Texts(most) => format!("string, or list of up to {} strings", most(limits)),
            Self::TokenIds => "list of token ids".to_owned(),
            Self::PerToken(range) => format!("object from token ids to numbers, {}", range.words()),
            Self::Objects(_) => "list of objects".to_owned(),
            Self::Any => "any".to_owned(),
            _ => {
                let words = self.expected(limits);
                let words = words.strip_prefix("an ").or(words.strip_prefix("a "));
                words.map_or_else(|| self.expected(limits), str::to_owned)
            }
        }
    }

    /// The JSON schema of the value, null included.
    fn schema(&self, limits: &Limits) -> Value {
        let maybe = |kind: &str| json!({"type": [kind, "null"]});
        match *self {
            Self::Flag => maybe("boolean"),
            Self::Number(range) => range.schema(json!(["number", "null"])),
            Self::Count { least, most } => {
                let mut schema = json!({"type": ["integer", "null"], "minimum": least});
                if let Some(most) = most {
                    schema["maximum"] = most(limits).into();
                }
                schema
            }
            Self::CountOr { others, .. } => {
                json!({"type": ["integer", "null"], "minimum": others.iter().min()})
            }
            Self::Integer => maybe("integer"),
            Self::Text { filled: false } => maybe("string"),
            Self::Text { filled: true } => json!({"type": ["string", "null"], "minLength": 1}),
            Self::OneOf(names) => {
                let names = names.iter().map(|&(name, _)| Value::from(name));
                json!({"enum": names.chain([Value::Null]).collect::<Vec<_>>()})
            }
            Self::Texts(most) => json!({
                "type": ["string", "array", "null"], "items": {"type": "string", "minLength": 1},
                "minLength": 1, "maxItems": most(limits),
            }),
            Self::TokenIds => {
                json!({"type": ["array", "null"], "items": {"type": "integer", "minimum": 0}})
            }
            Self::PerToken(range) => {
                json!({"type": ["object", "null"], "additionalProperties": range.schema("number".into())})
            }
            Self::Objects(None) => json!({"type": ["array", "null"], "items": {"type": "object"}}),
            Self::Objects(Some(name)) => {
                let items = json!({"$ref": format!("#/components/schemas/{name}")});
                json!({"type": ["array", "null"], "items": items})
            }
            Self::Object => maybe("object"),
            Self::Nested(body) => {
                let mut schema = schema(body, limits);
                schema["type"] = json!(["object", "null"]);
                schema
            }
            Self::Any => json!({}),
            Self::Shape(_, schema) => schema(limits),
        }
    }
}

impl Harmless {
    /// Only null.
    pub(crate) const NOTHING: Self = Self::Values(&[]);
    /// The empty list.
    pub(crate) const EMPTY_LIST: Self = Self::ListOf(&[]);

    /// Whether `value` asks for nothing.
    pub(crate) fn allows(self, value: &Value) -> bool {
        match self {
            Self::Values(values) => values.contains(&value.to_string().as_str()),
            Self::ListOf(texts) => value
                .as_array()
                .is_some_and(|items| items.iter().all(|item| texts.iter().any(|text| item == text))),
        }
    }
}

impl Field {
    /// The schema of the field as a property of its body.
    fn schema(&self, limits: &Limits) -> Value {
        let mut schema = match self.handling {
            Handling::Supported => self.kind.schema(limits),
            _ => json!({}),
        };
        if self.required
            && let Some(Value::Array(kinds)) = schema.get_mut("type")
        {
            kinds.retain(|kind| kind != "null");
            if let [kind] = kinds.as_slice() {
                schema["type"] = kind.clone();
            }
        }
        schema["description"] = plain(self.note).into();
        schema
    }
}

impl AsRef<str> for Field {
    fn as_ref(&self) -> &str {
        self.name
    }
}

/// All rows.
pub(crate) fn all() -> impl Iterator<Item = &'static Field> {
    openai::FIELDS.iter().chain(tgi::FIELDS).copied()
}

/// The fields of a body.
pub(crate) fn of(body: Body) -> impl Iterator<Item = &'static Field> {
    all().filter(move |field| field.bodies.contains(&body))
}

/// The schema of a body: its fields, those that are rejected left out, and no others.
pub(crate) fn schema(body: Body, limits: &Limits) -> Value {
    let fields: Vec<&Field> = of(body)
        .filter(|field| !matches!(field.handling, Handling::Rejected { .. }))
        .collect();
    let required: Vec<&str> = fields
        .iter()
        .filter(|field| field.required)
        .map(|field| field.name)
        .collect();
    let properties: serde_json::Map<String, Value> = fields
        .iter()
        .map(|field| (field.name.to_owned(), field.schema(limits)))
        .collect();
    json!({"type": "object", "required": required, "properties": properties, "additionalProperties": false})
}

/// The entries of an adapter's defaults that fill fields of requests.
pub(crate) fn defaults() -> impl Iterator<Item = &'static str> {
    openai::FIELDS
        .iter()
        .filter(|field| field.default == Some(field.name))
        .map(|field| field.name)
}

/// `a`, `a or b`, `a, b or c`.
pub(crate) fn either(words: impl Iterator<Item = String>) -> String {
    let words: Vec<String> = words.collect();
    match words.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

/// A note without the targets of its links, which lead from page to page of the documentation.
fn plain(note: &str) -> String {
    let mut text = String::new();
    let mut rest = note;
    while let Some((before, after)) = rest.split_once("](") {
        text.push_str(&before.replace('[', ""));
        rest = after.split_once(')').map_or("", |(_, rest)| rest);
    }
    text + rest
}

/// Declares rows, each as a constant of its own that readers name, and the table of them all.
macro_rules! rows {
    ($($name:ident = $row:expr;)*) => {
        $(pub(crate) const $name: Field = $row;)*
        /// The rows of this dialect, in the order of the documentation.
        pub(crate) const FIELDS: &[&Field] = &[$(&$name),*];
    };
}
use rows;

impl Field {
    const fn new(
        bodies: &'static [Body],
        name: &'static str,
        kind: Kind,
        table: Table,
        note: &'static str,
    ) -> Self {
        Self {
            name,
            bodies,
            kind,
            handling: Handling::Supported,
            required: false,
            default: None,
            table,
            note,
        }
    }

    const fn ignored(bodies: &'static [Body], name: &'static str, table: Table, note: &'static str) -> Self {
        Self {
            handling: Handling::Ignored,
            ..Self::new(bodies, name, Kind::Any, table, note)
        }
    }

    const fn rejected(
        bodies: &'static [Body],
        name: &'static str,
        what: &'static str,
        unless: Harmless,
        table: Table,
        note: &'static str,
    ) -> Self {
        Self {
            handling: Handling::Rejected { what, unless },
            ..Self::new(bodies, name, Kind::Any, table, note)
        }
    }

    const fn required(self) -> Self {
        Self {
            required: true,
            ..self
        }
    }

    /// A field that the entry `default` of an adapter's defaults fills.
    const fn filled_by(self, default: &'static str) -> Self {
        Self {
            default: Some(default),
            ..self
        }
    }
}

//! Reads the fields of a request one by one, so that every error names the field, its value and
//! what it must be, and so that no unknown field is ignored.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{FromRef, FromRequest, Request},
    http::header,
};
use serde_json::{Map, Value};

use super::{audit_entry::AuditEntry, connections::is_too_slow, error::ApiError};
use crate::contract::{
    fields::{Body, Field, Handling, Kind, either, of},
    limits::Limits,
};

/// The fields of a JSON object that have not been read yet. Null counts as absent.
#[derive(Clone, Debug)]
pub(crate) struct Fields {
    values: Map<String, Value>,
    /// The path of the object, which messages put before the name of a field: empty, or
    /// `parameters.`.
    within: String,
}

impl Fields {
    /// Parses `bytes`, which must be a JSON object.
    pub(crate) fn from_json(bytes: &[u8]) -> Result<Self, ApiError> {
        let value: Value = serde_json::from_slice(bytes)
            .map_err(|error| ApiError::malformed(format!("the body is not valid JSON: {error}")))?;
        match value {
            Value::Object(values) => Ok(Self {
                values,
                within: String::new(),
            }),
            other => Err(ApiError::malformed(format!(
                "the body must be a JSON object, not {}",
                kind(&other)
            ))),
        }
    }

    /// The fields of the absent object `within`: none.
    pub(crate) fn none(within: &str) -> Self {
        Self {
            values: Map::new(),
            within: format!("{within}."),
        }
    }

    /// Whether the field is present.
    pub(crate) fn has(&self, name: impl AsRef<str>) -> bool {
        self.trace(name.as_ref());
        self.values
            .get(name.as_ref())
            .is_some_and(|value| !value.is_null())
    }

    /// Logs at the level `trace` that the field is read. A test learns from it which fields the
    /// documentation must name.
    fn trace(&self, name: &str) {
        tracing::trace!(target: "multigraft_server::fields", within = self.within, name, "a field is read");
    }

    /// Gives the field a value.
    pub(crate) fn set(&mut self, name: impl AsRef<str>, value: Value) {
        self.values.insert(name.as_ref().to_owned(), value);
    }

    /// The field's value, unchecked.
    pub(crate) fn take(&mut self, name: impl AsRef<str>) -> Option<Value> {
        self.trace(name.as_ref());
        self.values.remove(name.as_ref()).filter(|value| !value.is_null())
    }

    /// The field's value, unchecked, for fields where null and absence mean different things.
    pub(crate) fn nullable(&mut self, name: &str) -> Option<Value> {
        self.values.remove(name)
    }

    /// The field's name as messages spell it.
    pub(crate) fn path(&self, name: impl AsRef<str>) -> String {
        format!("{}{}", self.within, name.as_ref())
    }

    /// An error about the field: `` `name` problem ``.
    pub(crate) fn complain(&self, name: impl AsRef<str>, problem: &str) -> ApiError {
        let path = self.path(name);
        let message = format!("`{path}` {problem}");
        ApiError::invalid(path, message)
    }

    /// An error about the field's value: `` `name` is value, but must be expected ``.
    pub(crate) fn mismatch(&self, name: impl AsRef<str>, value: &Value, expected: &str) -> ApiError {
        self.complain(name, &format!("is {}, but must be {expected}", display(value)))
    }

    /// A string.
    pub(crate) fn string(&mut self, name: impl AsRef<str>) -> Result<Option<String>, ApiError> {
        match self.take(&name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.mismatch(name, &other, "a string")),
        }
    }

    /// A string that must be present and not empty.
    pub(crate) fn required(&mut self, name: impl AsRef<str>) -> Result<String, ApiError> {
        match self.string(&name)?.filter(|text| !text.is_empty()) {
            Some(text) => Ok(text),
            None => Err(self.complain(name, "is missing")),
        }
    }

    /// True or false.
    pub(crate) fn flag(&mut self, name: impl AsRef<str>) -> Result<Option<bool>, ApiError> {
        match self.take(&name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(other) => Err(self.mismatch(name, &other, "true or false")),
        }
    }

    /// A number within the bounds of its row, in single precision.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "sampling parameters are float32; what is too large becomes infinite"
    )]
    pub(crate) fn number(&mut self, field: &Field) -> Result<Option<f32>, ApiError> {
        let number = self.precise(field)?.map(|number| number as f32);
        match (number, field.kind) {
            (Some(number), Kind::Number(range)) if !range.contains(number.into()) => {
                let problem = format!("is {number}, but must be {}", range.words());
                Err(self.complain(field, &problem))
            }
            _ => Ok(number),
        }
    }

    /// A number in double precision.
    pub(crate) fn precise(&mut self, name: impl AsRef<str>) -> Result<Option<f64>, ApiError> {
        match self.take(&name) {
            None => Ok(None),
            Some(value) => match value.as_f64() {
                Some(number) => Ok(Some(number)),
                None => Err(self.mismatch(name, &value, "a number")),
            },
        }
    }

    /// A whole number that is not negative.
    pub(crate) fn unsigned(&mut self, name: impl AsRef<str>) -> Result<Option<u64>, ApiError> {
        match self.take(&name) {
            None => Ok(None),
            Some(value) => match whole(&value) {
                Some(number) => Ok(Some(number)),
                None => Err(self.mismatch(name, &value, "a whole number, 0 or more")),
            },
        }
    }

    /// A whole number within the bounds of its row.
    pub(crate) fn count(&mut self, field: &Field, limits: &Limits) -> Result<Option<usize>, ApiError> {
        let (least, most) = match field.kind {
            Kind::Count { least, most } => (least, most.map_or(usize::MAX, |most| most(limits))),
            _ => (0, usize::MAX),
        };
        self.checked(field, &field.kind.expected(limits), |value| {
            let count = usize::try_from(whole(value)?).ok()?;
            (least..=most).contains(&count).then_some(count)
        })
    }

    /// A whole number, 1 or more; `Some(None)` is one of the numbers that have a meaning of their
    /// own.
    pub(crate) fn count_or(
        &mut self,
        field: &Field,
        limits: &Limits,
    ) -> Result<Option<Option<usize>>, ApiError> {
        let others = match field.kind {
            Kind::CountOr { others, .. } => others,
            _ => &[],
        };
        self.checked(field, &field.kind.expected(limits), |value| {
            if others.iter().any(|other| value == other) {
                return Some(None);
            }
            let count = usize::try_from(whole(value)?).ok()?;
            (count > 0).then_some(Some(count))
        })
    }

    /// A whole number of 64 bits, as `read` converts it.
    pub(crate) fn integer<T>(
        &mut self,
        field: &Field,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        self.checked(field, "a whole number", read)
    }

    /// One of the strings of its row.
    pub(crate) fn one_of(&mut self, field: &Field) -> Result<Option<&'static str>, ApiError> {
        let text = self.string(field)?;
        text.map(|text| self.among(field, &text)).transpose()
    }

    /// The string of the row that `text` equals.
    pub(crate) fn among(&self, field: &Field, text: &str) -> Result<&'static str, ApiError> {
        let names = match field.kind {
            Kind::OneOf(names) => names,
            _ => &[],
        };
        match names.iter().find(|(name, _)| *name == text) {
            Some((name, _)) => Ok(name),
            None => {
                let expected = either(names.iter().map(|(name, note)| format!("{name:?}{note}")));
                Err(self.complain(field, &format!("is {text:?}, but must be {expected}")))
            }
        }
    }

    fn checked<T>(
        &mut self,
        field: &Field,
        expected: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        match self.take(field) {
            None => Ok(None),
            Some(value) => match read(&value) {
                Some(read) => Ok(Some(read)),
                None => Err(self.mismatch(field, &value, expected)),
            },
        }
    }

    /// A list.
    pub(crate) fn list(&mut self, name: impl AsRef<str>) -> Result<Option<Vec<Value>>, ApiError> {
        match self.take(&name) {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items)),
            Some(other) => Err(self.mismatch(name, &other, "a list")),
        }
    }

    /// An object.
    pub(crate) fn object(&mut self, name: impl AsRef<str>) -> Result<Option<Self>, ApiError> {
        match self.take(&name) {
            None => Ok(None),
            Some(Value::Object(values)) => Ok(Some(Self {
                values,
                within: format!("{}.", self.path(&name)),
            })),
            Some(other) => Err(self.mismatch(name, &other, "an object")),
        }
    }

    /// A list of objects.
    pub(crate) fn objects(&mut self, name: impl AsRef<str>) -> Result<Option<Vec<Self>>, ApiError> {
        let Some(items) = self.list(&name)? else {
            return Ok(None);
        };
        let object = |(index, item)| match item {
            Value::Object(values) => Ok(Self {
                values,
                within: format!("{}[{index}].", self.path(&name)),
            }),
            other => Err(self.mismatch(format!("{}[{index}]", name.as_ref()), &other, "an object")),
        };
        items
            .into_iter()
            .enumerate()
            .map(object)
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// A string or a list of strings, none of them empty, at most as many as the row allows. An
    /// absent field is an empty list.
    pub(crate) fn strings(&mut self, field: &Field, limits: &Limits) -> Result<Vec<String>, ApiError> {
        let most = match field.kind {
            Kind::Texts(most) => most(limits),
            _ => usize::MAX,
        };
        let items = match self.take(field) {
            None => return Ok(Vec::new()),
            Some(Value::Array(items)) => items,
            Some(item) => vec![item],
        };
        if items.len() > most {
            let problem = format!("has {} entries, but may have at most {most}", items.len());
            return Err(self.complain(field, &problem));
        }
        items
            .into_iter()
            .map(|item| match item {
                Value::String(text) if text.is_empty() => {
                    Err(self.complain(field, "has an empty string, which every text contains"))
                }
                Value::String(text) => Ok(text),
                other => Err(self.mismatch(field, &other, &field.kind.expected(limits))),
            })
            .collect()
    }

    /// Drops the ignored fields of `body`, and checks that no rejected field asks for anything.
    pub(crate) fn drop_unsupported(&mut self, body: Body) -> Result<(), ApiError> {
        for field in of(body) {
            match field.handling {
                Handling::Supported => {}
                Handling::Ignored => self.ignore(&[field.name]),
                Handling::Rejected { what, unless } => {
                    self.refuse(field.name, what, |value| unless.allows(value))?;
                }
            }
        }
        Ok(())
    }

    /// Refuses a field that is not supported, unless it is absent or its value is `harmless`.
    pub(crate) fn refuse(
        &mut self,
        name: &str,
        what: &str,
        harmless: impl FnOnce(&Value) -> bool,
    ) -> Result<(), ApiError> {
        match self.take(name) {
            Some(value) if !harmless(&value) => Err(ApiError::unsupported(self.path(name), what)),
            _ => Ok(()),
        }
    }

    /// Drops fields that cannot change the answer.
    pub(crate) fn ignore(&mut self, names: &[&str]) {
        for name in names {
            let _ = self.take(name);
        }
    }

    /// The fields that are left, for objects with arbitrary keys.
    pub(crate) fn into_rest(self) -> Map<String, Value> {
        self.values
    }

    /// Refuses the fields that are left: the server does not know them.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        match self.values.iter().find(|(_, value)| !value.is_null()) {
            Some((name, _)) => Err(self.complain(name, "is not a field that this server knows")),
            None => Ok(()),
        }
    }
}

/// The body of a POST: JSON, with the content type of JSON, within the size limit.
///
/// The content type is required because of cross-site requests: browsers let a web page send other
/// content types to a server on the visitor's machine without a preflight request.
impl<S: Send + Sync> FromRequest<S> for Fields
where
    Limits: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let declared = request
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        if !declared.is_some_and(is_json) {
            return Err(ApiError::NotJson);
        }
        let limit = Limits::from_ref(state).body_bytes;
        let entry = request.extensions().get::<Arc<AuditEntry>>().cloned();
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
            match rejection.status().as_u16() {
                413 => ApiError::TooLarge { limit },
                _ if is_too_slow(&rejection) => ApiError::TooSlow,
                _ => ApiError::malformed("the request body could not be read to its end"),
            }
        })?;
        let fields = Self::from_json(&bytes)?;
        if let Some(entry) = entry {
            entry.set_fields(&fields.values);
        }
        Ok(fields)
    }
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json") || essence.to_ascii_lowercase().ends_with("+json")
}

/// A whole number that is not negative, which may be written as `5.0`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "guarded: whole, not negative, below 2^53"
)]
pub(crate) fn whole(value: &Value) -> Option<u64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    value.as_u64().or_else(|| {
        let number = value.as_f64()?;
        (number.fract() == 0.0 && (0.0..EXACT).contains(&number)).then_some(number as u64)
    })
}

/// A value as messages show it: in full if it has at most 40 characters, else its type.
fn display(value: &Value) -> String {
    const SHORT: usize = 40;
    let text = value.to_string();
    if text.chars().count() <= SHORT {
        text
    } else {
        kind(value).to_owned()
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::fields::{openai, tgi};

    fn fields(json: &str) -> Fields {
        Fields::from_json(json.as_bytes()).expect("a test's own JSON")
    }

    fn message<T: std::fmt::Debug>(result: Result<T, ApiError>) -> String {
        result.expect_err("should be refused").to_string()
    }

    #[test]
    fn a_wrong_type_names_field_value_and_expectation() {
        let mut body =
            fields(r#"{"temperature":"hot","stream":1,"n":-1,"m":1.5,"parameters":{"top_p":[1]}}"#);
        assert_eq!(
            message(body.number(&openai::TEMPERATURE)),
            "`temperature` is \"hot\", but must be a number"
        );
        assert_eq!(
            message(body.flag("stream")),
            "`stream` is 1, but must be true or false"
        );
        assert_eq!(
            message(body.unsigned("n")),
            "`n` is -1, but must be a whole number, 0 or more"
        );
        assert!(body.unsigned("m").is_err());
        let mut inner = body.object("parameters").expect("an object").expect("present");
        assert_eq!(
            message(inner.number(&tgi::TOP_P)),
            "`parameters.top_p` is [1], but must be a number"
        );
        let mut body = fields(r#"{"lora":[{"id":"x"}],"adapters":[7]}"#);
        let mut entries = body.objects("lora").expect("a list").expect("present");
        assert_eq!(
            message(entries[0].unsigned("id")),
            "`lora[0].id` is \"x\", but must be a whole number, 0 or more"
        );
        assert_eq!(
            message(body.objects("adapters")),
            "`adapters[0]` is 7, but must be an object"
        );
    }

    #[test]
    fn null_is_absent_and_leftovers_are_refused() {
        let mut body = fields(r#"{"a":null,"b":2,"c":null}"#);
        assert_eq!(body.string("a"), Ok(None));
        assert_eq!(
            message(body.finish()),
            "`b` is not a field that this server knows"
        );
        assert_eq!(fields(r#"{"c":null}"#).finish(), Ok(()));
    }

    #[test]
    fn whole_numbers_may_be_written_with_a_point() {
        assert_eq!(fields(r#"{"n":5.0}"#).unsigned("n"), Ok(Some(5)));
        assert!(fields(r#"{"n":1e300}"#).unsigned("n").is_err());
    }

    #[test]
    fn what_is_out_of_bounds_names_the_bounds_of_its_row() {
        let limits = Limits {
            choices: 9,
            ..Limits::default()
        };
        let mut body = fields(
            r#"{"n":10,"temperature":2.5,"top_p":1.5,"repetition_penalty":0,"top_k":-2,"max_new_tokens":0,"seed":0.5,
            "truncation_side":"up"}"#,
        );
        for (message, expected) in [
            (
                message(body.count(&openai::N, &limits)),
                "`n` is 10, but must be a whole number between 1 and 9",
            ),
            (
                message(body.number(&openai::TEMPERATURE)),
                "`temperature` is 2.5, but must be 0 to 2",
            ),
            (
                message(body.number(&tgi::TOP_P)),
                "`top_p` is 1.5, but must be above 0, at most 1",
            ),
            (
                message(body.number(&openai::REPETITION_PENALTY)),
                "`repetition_penalty` is 0, but must be above 0",
            ),
            (
                message(body.count_or(&openai::TOP_K, &limits)),
                "`top_k` is -2, but must be a whole number: 1 or more, or -1 for all",
            ),
            (
                message(body.count(&tgi::MAX_NEW_TOKENS, &limits)),
                "`max_new_tokens` is 0, but must be a whole number, 1 or more",
            ),
            (
                message(body.integer(&openai::SEED, Value::as_i64)),
                "`seed` is 0.5, but must be a whole number",
            ),
            (
                message(body.one_of(&openai::TRUNCATION_SIDE)),
                "`truncation_side` is \"up\", but must be \"left\" or \"right\"",
            ),
        ] {
            assert_eq!(message, expected);
        }
        let huge = fields(r#"{"repetition_penalty":1e39}"#).number(&openai::REPETITION_PENALTY);
        assert_eq!(message(huge), "`repetition_penalty` is inf, but must be above 0");
    }

    #[test]
    fn stop_strings_come_alone_or_in_a_list_and_are_never_empty() {
        let limits = Limits {
            stop_strings: 2,
            ..Limits::default()
        };
        let strings = |json| fields(json).strings(&openai::STOP, &limits);
        assert_eq!(strings(r#"{"stop":"x"}"#), Ok(vec!["x".to_owned()]));
        assert_eq!(strings(r#"{"stop":["x","y"]}"#).map(|s| s.len()), Ok(2));
        for bad in [
            r#"{"stop":["x","y","z"]}"#,
            r#"{"stop":""}"#,
            r#"{"stop":[1]}"#,
            r#"{"stop":{}}"#,
        ] {
            assert!(strings(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bodies_that_are_no_objects_are_refused() {
        for bad in ["", "{", "[]", "3", "\"x\"", "{\"a\":1}}", "\u{feff}{}"] {
            assert!(Fields::from_json(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(Fields::from_json(&[0xff, 0xfe]).is_err());
        let deep = "[".repeat(100_000);
        assert!(Fields::from_json(deep.as_bytes()).is_err());
    }

    #[test]
    fn json_is_recognised_with_parameters() {
        assert!(is_json("application/json; charset=utf-8"));
        assert!(is_json("Application/JSON"));
        assert!(is_json("application/vnd.api+json"));
        assert!(!is_json("text/plain"));
        assert!(!is_json("application/jsonp"));
    }
}

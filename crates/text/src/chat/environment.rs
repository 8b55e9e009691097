//! The environment that a template runs in.

use std::{fmt, io};

use minijinja::{
    Environment, Error, ErrorKind, State, UndefinedBehavior, Value,
    syntax::SyntaxConfig,
    value::{Kwargs, ValueKind},
};
use time::UtcDateTime;

use super::{clock, json, methods};
use crate::TextError;

/// The fuel of one rendering: one unit is an instruction, or 64 bytes of created data (32 MiB if
/// all of it is data). It is enough for 8,000 short messages, or for 1,000 messages of 500 words,
/// which is more than fits into a model's context.
const FUEL: u64 = 500_000;

/// The largest text a template may write, in bytes.
const MAX_OUTPUT: usize = 16 << 20;

/// How deep a template may nest calls, with macros counting several times.
const MAX_RECURSION: usize = 200;

/// An environment without loaders, files or clocks other than `strftime_now`.
pub(super) fn sandbox() -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build();
    environment.set_syntax(syntax.expect("the default delimiters are valid"));
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_debug(false);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(MAX_RECURSION);
    environment.set_unknown_method_callback(methods::unknown_method);
    environment.add_filter("tojson", tojson);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    // As in Jinja2, true for everything that has a length and can be indexed; minijinja's own test
    // is true for lists only.
    environment.add_test("sequence", |value: &Value| {
        matches!(value.kind(), ValueKind::Seq | ValueKind::String | ValueKind::Map)
    });
    environment
}

/// `value|tojson(ensure_ascii=false, indent=none, separators=none, sort_keys=false)`, as
/// `json.dumps`.
#[expect(
    clippy::needless_pass_by_value,
    reason = "filters take keyword arguments by value"
)]
fn tojson(
    state: &State<'_, '_>,
    value: &Value,
    indent: Option<Value>,
    options: Kwargs,
) -> Result<Value, Error> {
    let indent = match indent {
        Some(indent) => Some(indent),
        None => options.get::<Option<Value>>("indent")?,
    };
    let style = json::Style {
        ensure_ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        sort_keys: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        indent: json::indent(indent.as_ref())?,
        separators: json::separators(options.get::<Option<Vec<String>>>("separators")?)?,
    };
    options.assert_all_used()?;
    json::dumps(state, value, &style).map(Value::from)
}

/// Ends the rendering with a message for the user.
fn raise_exception(message: &str) -> Result<Value, Error> {
    let refused = Refused(message.to_owned());
    Err(Error::new(ErrorKind::InvalidOperation, message.to_owned()).with_source(refused))
}

/// The time now, in UTC.
fn strftime_now(format: &str) -> Result<String, Error> {
    clock::strftime(UtcDateTime::now(), format)
        .map_err(|reason| Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {reason}")))
}

/// The message that a template gave to `raise_exception`.
#[derive(Debug)]
struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// The error that the user gets for a failed rendering.
pub(super) fn failure(error: &Error) -> TextError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(Refused(message)) = error.downcast_ref() {
            return TextError::TemplateRefused(message.clone());
        }
        if let Some(error) = error.downcast_ref::<Error>()
            && error.kind() == ErrorKind::OutOfFuel
        {
            return TextError::TemplateLimit("computation");
        }
        cause = error.source();
    }
    TextError::TemplateFailed(describe(error))
}

/// An error in one line: what is wrong, and on which line of the template.
pub(super) fn describe(error: &Error) -> String {
    let what = match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    };
    match error.line() {
        Some(line) => format!("{what} (line {line})"),
        None => what,
    }
}

/// The text a template writes, up to a limit.
#[derive(Debug, Default)]
pub(super) struct BoundedText {
    bytes: Vec<u8>,
    full: bool,
}

impl BoundedText {
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    pub(super) fn into_text(self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

impl io::Write for BoundedText {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > MAX_OUTPUT {
            self.full = true;
            return Err(io::Error::other("the output is too large"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

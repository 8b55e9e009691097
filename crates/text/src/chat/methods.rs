//! Python's string methods that minijinja lacks.

use minijinja::{Error, ErrorKind, State, Value, value::from_args};
use minijinja_contrib::pycompat;

/// Executes a method call that minijinja does not know.
pub(super) fn unknown_method(
    state: &mut State<'_, '_>,
    value: &Value,
    method: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    match value.as_str().map(|text| string_method(text, method, arguments)) {
        Some(Ok(Some(result))) => Ok(result),
        Some(Err(error)) => Err(error),
        Some(Ok(None)) | None => pycompat::unknown_method_callback(state, value, method, arguments),
    }
}

/// The result of a method of `text`; `None` if there is no such method here.
fn string_method(text: &str, method: &str, arguments: &[Value]) -> Result<Option<Value>, Error> {
    Ok(Some(match method {
        "rsplit" => {
            let (separator, most): (Option<&str>, Option<i64>) = from_args(arguments)?;
            let most = most
                .and_then(|most| usize::try_from(most).ok())
                .unwrap_or(usize::MAX);
            rsplit(text, separator, most)?.into_iter().collect()
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(arguments)?;
            text.strip_prefix(prefix).unwrap_or(text).into()
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(arguments)?;
            text.strip_suffix(suffix).unwrap_or(text).into()
        }
        "partition" => {
            let (separator,): (&str,) = from_args(arguments)?;
            let (before, after) = non_empty(separator)
                .map(|separator| text.split_once(separator))?
                .unzip();
            let found = if before.is_some() { separator } else { "" };
            Value::from_iter([before.unwrap_or(text), found, after.unwrap_or_default()])
        }
        "rpartition" => {
            let (separator,): (&str,) = from_args(arguments)?;
            let (before, after) = non_empty(separator)
                .map(|separator| text.rsplit_once(separator))?
                .unzip();
            let found = if before.is_some() { separator } else { "" };
            Value::from_iter([before.unwrap_or_default(), found, after.unwrap_or(text)])
        }
        "index" => {
            let (part,): (&str,) = from_args(arguments)?;
            let Some(at) = text.find(part) else {
                return Err(Error::new(ErrorKind::InvalidOperation, "substring not found"));
            };
            text[..at].chars().count().into()
        }
        "casefold" => {
            let () = from_args(arguments)?;
            text.to_lowercase().into()
        }
        "format" if has_large_number(text) => {
            let message = "str.format: a width or precision of more than three digits is not supported";
            return Err(Error::new(ErrorKind::InvalidOperation, message));
        }
        _ => return Ok(None),
    }))
}

/// Whether a format has a number of four digits or more: as a width or precision, it would create a
/// string of that size without consuming fuel.
fn has_large_number(format: &str) -> bool {
    let mut fields = format
        .split('{')
        .skip(1)
        .map(|rest| rest.split('}').next().unwrap_or(rest));
    fields.any(|field| {
        field
            .as_bytes()
            .windows(4)
            .any(|window| window.iter().all(u8::is_ascii_digit))
    })
}

/// The parts of `text` between separators, cut at most `most` times from the right. Without a
/// separator, white space separates, and there are no empty parts.
fn rsplit(text: &str, separator: Option<&str>, most: usize) -> Result<Vec<String>, Error> {
    let mut parts = Vec::new();
    let Some(separator) = separator else {
        let mut rest = text.trim_end();
        while !rest.is_empty() {
            let cut = (parts.len() < most)
                .then(|| rest.rfind(char::is_whitespace))
                .flatten();
            let after = cut.and_then(|cut| rest[cut..].char_indices().nth(1).map(|(width, _)| cut + width));
            parts.push(rest[after.unwrap_or(0)..].to_owned());
            rest = rest[..cut.unwrap_or(0)].trim_end();
        }
        parts.reverse();
        return Ok(parts);
    };
    let separator = non_empty(separator)?;
    let mut rest = text;
    while parts.len() < most
        && let Some((before, after)) = rest.rsplit_once(separator)
    {
        parts.push(after.to_owned());
        rest = before;
    }
    parts.push(rest.to_owned());
    parts.reverse();
    Ok(parts)
}

fn non_empty(separator: &str) -> Result<&str, Error> {
    if separator.is_empty() {
        return Err(Error::new(ErrorKind::InvalidOperation, "empty separator"));
    }
    Ok(separator)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(text: &str, method: &str, arguments: &[Value]) -> String {
        string_method(text, method, arguments)
            .unwrap()
            .unwrap()
            .to_string()
    }

    #[test]
    fn results_are_pythons() {
        let text = Value::from;
        assert_eq!(call("a-b-c", "rsplit", &[text("-"), 1.into()]), "['a-b', 'c']");
        assert_eq!(call("a-b-c", "rsplit", &[text("-"), 0.into()]), "['a-b-c']");
        assert_eq!(call("-a-", "rsplit", &[text("-")]), "['', 'a', '']");
        assert_eq!(call(" a  b c ", "rsplit", &[]), "['a', 'b', 'c']");
        assert_eq!(
            call(" a  b c ", "rsplit", &[Value::from(()), 1.into()]),
            "[' a  b', 'c']"
        );
        assert_eq!(call("", "rsplit", &[]), "[]");
        assert_eq!(call("", "rsplit", &[text(",")]), "['']");
        assert_eq!(call("a=b=c", "partition", &[text("=")]), "['a', '=', 'b=c']");
        assert_eq!(call("abc", "partition", &[text("=")]), "['abc', '', '']");
        assert_eq!(call("a=b=c", "rpartition", &[text("=")]), "['a=b', '=', 'c']");
        assert_eq!(call("abc", "rpartition", &[text("=")]), "['', '', 'abc']");
        assert_eq!(call("xyz", "removeprefix", &[text("x")]), "yz");
        assert_eq!(call("xyz", "removesuffix", &[text("x")]), "xyz");
        assert_eq!(call("äbc", "index", &[text("b")]), "1");
    }

    #[test]
    fn what_python_refuses_is_an_error() {
        for (method, argument) in [
            ("rsplit", ""),
            ("partition", ""),
            ("rpartition", ""),
            ("index", "q"),
        ] {
            assert!(
                string_method("abc", method, &[argument.into()]).is_err(),
                "{method}"
            );
        }
    }
}

//! JSON as Python's `json.dumps` writes it.

use minijinja::{Error, ErrorKind, State, Value, value::ValueKind};

/// How deep a value may nest.
const MAX_DEPTH: usize = 100;

/// The widest indentation, in spaces.
const MAX_INDENT: usize = 32;

/// The options of `json.dumps`.
#[derive(Debug, Clone, Default)]
pub(super) struct Style {
    pub(super) ensure_ascii: bool,
    pub(super) sort_keys: bool,
    /// The indentation of each level; `None` is all on one line.
    pub(super) indent: Option<String>,
    /// The texts between items, and between a key and its value.
    pub(super) separators: Option<(String, String)>,
}

/// The `indent` argument: a number of spaces, or a string.
pub(super) fn indent(value: Option<&Value>) -> Result<Option<String>, Error> {
    let Some(value) = value.filter(|value| !value.is_none() && !value.is_undefined()) else {
        return Ok(None);
    };
    if let Some(text) = value.as_str() {
        return Ok(Some(text.to_owned()));
    }
    let width = usize::try_from(value.clone())
        .ok()
        .filter(|&width| width <= MAX_INDENT)
        .ok_or_else(|| {
            let message = format!("tojson: indent is {value}, not 0 to {MAX_INDENT} or a string");
            Error::new(ErrorKind::InvalidOperation, message)
        })?;
    Ok(Some(" ".repeat(width)))
}

/// The `separators` argument: a pair of strings.
pub(super) fn separators(value: Option<Vec<String>>) -> Result<Option<(String, String)>, Error> {
    let Some(separators) = value else { return Ok(None) };
    let [item, key] = <[String; 2]>::try_from(separators).map_err(|separators| {
        let message = format!("tojson: separators are {} strings, not 2", separators.len());
        Error::new(ErrorKind::InvalidOperation, message)
    })?;
    Ok(Some((item, key)))
}

/// `value` as JSON.
pub(super) fn dumps(state: &State<'_, '_>, value: &Value, style: &Style) -> Result<String, Error> {
    let (item, key) = match (&style.separators, &style.indent) {
        (Some((item, key)), _) => (item.as_str(), key.as_str()),
        (None, Some(_)) => (",", ": "),
        (None, None) => (", ", ": "),
    };
    let mut writer = Writer {
        state,
        style,
        item,
        key,
        out: String::new(),
        charged: 0,
    };
    writer.value(value, 0)?;
    Ok(writer.out)
}

struct Writer<'a, 's> {
    state: &'a State<'s, 's>,
    style: &'a Style,
    item: &'a str,
    key: &'a str,
    out: String,
    /// How many bytes of `out` have been charged to the template.
    charged: usize,
}

impl Writer<'_, '_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                "tojson: the value is nested too deeply",
            ));
        }
        self.charge()?;
        match value.kind() {
            ValueKind::None | ValueKind::Undefined => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Number => self.number(value),
            ValueKind::Seq | ValueKind::Iterable => {
                let items = value.try_iter()?.map(|item| (None, item)).collect();
                self.container('[', items, ']', depth)?;
            }
            ValueKind::Map => {
                let mut items = Vec::new();
                for key in value.try_iter()? {
                    let item = value.get_item(&key)?;
                    items.push((Some(key_text(&key)?), item));
                }
                if self.style.sort_keys {
                    items.sort_by(|(a, _), (b, _)| a.cmp(b));
                }
                self.container('{', items, '}', depth)?;
            }
            kind => {
                let message = format!("tojson: a value of kind {kind} has no JSON form");
                return Err(Error::new(ErrorKind::InvalidOperation, message));
            }
        }
        Ok(())
    }

    fn container(
        &mut self,
        open: char,
        items: Vec<(Option<String>, Value)>,
        close: char,
        depth: usize,
    ) -> Result<(), Error> {
        self.out.push(open);
        let is_empty = items.is_empty();
        for (index, (key, item)) in items.into_iter().enumerate() {
            if index > 0 {
                self.out.push_str(self.item);
            }
            self.line(depth + 1);
            if let Some(key) = key {
                self.string(&key);
                self.out.push_str(self.key);
            }
            self.value(&item, depth + 1)?;
        }
        if !is_empty {
            self.line(depth);
        }
        self.out.push(close);
        Ok(())
    }

    /// Starts a new line if the style has lines.
    fn line(&mut self, depth: usize) {
        if let Some(indent) = &self.style.indent {
            self.out.push('\n');
            for _ in 0..depth {
                self.out.push_str(indent);
            }
        }
    }

    fn number(&mut self, value: &Value) {
        let text = value.to_string();
        match text.as_str() {
            // As Python writes them; JSON has no such numbers.
            "inf" => self.out.push_str("Infinity"),
            "-inf" => self.out.push_str("-Infinity"),
            _ => self.out.push_str(&float_repr(value).unwrap_or(text)),
        }
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                c if u32::from(c) < 0x20 => self.escape(&[c as u16]),
                // DEL is ASCII and written as it is.
                c if self.style.ensure_ascii && !c.is_ascii() => {
                    let mut units = [0; 2];
                    self.escape(c.encode_utf16(&mut units));
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }

    fn escape(&mut self, units: &[u16]) {
        for unit in units {
            self.out.push_str(&format!("\\u{unit:04x}"));
        }
    }

    /// Charges the template for the text written since the last call.
    fn charge(&mut self) -> Result<(), Error> {
        let uncharged = (self.out.len() - self.charged) / 64;
        self.charged += uncharged * 64;
        self.state.consume_fuel(1 + uncharged as u64)
    }
}

/// A float as Python writes it: the shortest digits that read back the same, with an exponent below
/// 1e-4 and from 1e16 on. `None` for integers.
fn float_repr(value: &Value) -> Option<String> {
    if value.is_integer() {
        return None;
    }
    let number = f64::try_from(value.clone())
        .ok()
        .filter(|number| number.is_finite())?;
    let magnitude = number.abs();
    if magnitude == 0.0 || (1e-4..1e16).contains(&magnitude) {
        return Some(format!("{number:?}"));
    }
    let text = format!("{number:e}");
    let (digits, exponent) = text.split_once('e')?;
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    Some(format!("{digits}e{sign}{exponent:0>2}"))
}

/// A key as `json.dumps` writes it: strings as they are, numbers and constants as text.
fn key_text(key: &Value) -> Result<String, Error> {
    Ok(match key.kind() {
        ValueKind::String => key.as_str().unwrap_or_default().to_owned(),
        ValueKind::Number => float_repr(key).unwrap_or_else(|| key.to_string()),
        ValueKind::Bool => if key.is_true() { "true" } else { "false" }.to_owned(),
        ValueKind::None => "null".to_owned(),
        kind => {
            let message = format!("tojson: a value of kind {kind} cannot be a key");
            return Err(Error::new(ErrorKind::InvalidOperation, message));
        }
    })
}

//! Finds tool calls in the output of a model while it is generated.

use multigraft_text::CallFormat;

use super::{
    Tools,
    tagged::Tagged,
    xml::{self, Written},
};
use crate::http::id::call_id;

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Text outside calls.
    Text(String),
    /// A call begins.
    Call {
        /// The index of the call, from 0.
        index: usize,
        /// The id by which the client returns the result.
        id: String,
        name: String,
    },
    /// A further part of a call's arguments, as JSON.
    Arguments { index: usize, text: String },
}

/// Parses an output piece by piece. Text that may begin a call is held back until that is certain.
#[derive(Debug)]
pub(crate) struct CallParser {
    format: CallFormat,
    held: String,
    state: State,
    /// The number of calls that have begun.
    calls: usize,
    /// Whether there was text outside calls.
    has_text: bool,
    /// The text by which a possible call was recognised, if it is no longer in `held`.
    mark: &'static str,
    /// The parameters of each function, for calls whose arguments are not JSON.
    functions: Vec<(String, Vec<(String, Written)>)>,
    /// The arguments of such a call.
    tagged: Tagged,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Outside calls.
    Text,
    /// From the beginning of a call to its arguments.
    Head,
    Arguments(Json),
    /// In arguments that are not JSON.
    Tagged,
    /// After a call's arguments.
    Tail,
}

/// The position in a JSON value.
#[derive(Clone, Copy, Debug, Default)]
struct Json {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl CallParser {
    pub(crate) fn new(format: CallFormat, tools: &Tools) -> Self {
        let functions = tools.functions.iter().filter(|_| format == CallFormat::Xml);
        let functions = functions.map(|function| (function.name.clone(), xml::parameters(function)));
        Self {
            functions: functions.collect(),
            tagged: Tagged::default(),
            format,
            held: String::new(),
            state: State::Text,
            calls: 0,
            has_text: false,
            mark: "",
        }
    }

    /// The number of calls so far.
    pub(crate) fn calls(&self) -> usize {
        self.calls
    }

    /// Adds a text, and returns the pieces that have become certain.
    pub(crate) fn push(&mut self, text: &str) -> Vec<Piece> {
        self.held.push_str(text);
        let mut pieces = Vec::new();
        while self.advance(&mut pieces) {}
        pieces
    }

    /// Ends the output, and returns what was held back.
    pub(crate) fn finish(&mut self) -> Vec<Piece> {
        let mut held = std::mem::take(&mut self.held);
        match self.state {
            // A call that was cut off before its arguments is returned as text.
            State::Head => {
                held.insert_str(0, self.mark);
                vec![Piece::Text(held)]
            }
            State::Text if !held.trim().is_empty() || (self.calls == 0 && !held.is_empty()) => {
                vec![Piece::Text(held)]
            }
            State::Tagged => {
                let text = self.tagged.rest(&held);
                let index = self.calls - 1;
                let piece = Piece::Arguments { index, text };
                Some(piece).filter(|_| !held.is_empty()).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    /// One step; `false` if more text is needed.
    fn advance(&mut self, pieces: &mut Vec<Piece>) -> bool {
        match self.state {
            State::Text => self.text(pieces),
            State::Head => self.head(pieces),
            State::Arguments(json) => self.arguments(json, pieces),
            State::Tagged => self.tagged(pieces),
            State::Tail => self.tail(),
        }
    }

    fn text(&mut self, pieces: &mut Vec<Piece>) -> bool {
        let mark = match self.format {
            CallFormat::Tags | CallFormat::Xml => "<tool_call>",
            CallFormat::List => "[TOOL_CALLS]",
            // The whole answer is a call, or text.
            CallFormat::Bare => "{",
        };
        let found = match self.format {
            CallFormat::Bare => self
                .held
                .trim_start()
                .starts_with(mark)
                .then(|| self.held.find(mark))
                .flatten(),
            _ => self.held.find(mark),
        };
        let is_first = self.calls == 0 && !self.has_text;
        if let Some(at) = found.filter(|_| is_first || self.format != CallFormat::Bare) {
            let rest = self.held.split_off(at);
            let before = std::mem::replace(&mut self.held, rest);
            if self.format != CallFormat::Bare {
                self.held.drain(..mark.len());
                self.mark = mark;
            }
            if !before.trim().is_empty() {
                pieces.push(Piece::Text(before.trim_end().to_owned()));
            }
            self.state = State::Head;
            return true;
        }
        // White space may belong to a following call.
        let undecided = (1..mark.len())
            .rev()
            .find(|&length| self.held.ends_with(&mark[..length]))
            .unwrap_or(0);
        let certain = self.held.len() - undecided;
        let certain = self.held[..certain].trim_end().len();
        if certain > 0 {
            let rest = self.held.split_off(certain);
            pieces.push(Piece::Text(std::mem::replace(&mut self.held, rest)));
            self.has_text = true;
        }
        false
    }

    fn head(&mut self, pieces: &mut Vec<Piece>) -> bool {
        match Head::read(&self.held, self.format) {
            Head::Incomplete => false,
            Head::Read { name, length } => {
                self.held.drain(..length);
                self.state = match self.format {
                    CallFormat::Xml => {
                        let mut functions = self.functions.iter();
                        let known = functions.find(|(known, _)| *known == name);
                        let parameters = known.map_or(&[][..], |(_, parameters)| parameters);
                        self.tagged = Tagged::new(parameters.to_vec());
                        State::Tagged
                    }
                    CallFormat::Tags | CallFormat::List | CallFormat::Bare => {
                        State::Arguments(Json::default())
                    }
                };
                pieces.push(Piece::Call {
                    index: self.calls,
                    id: new_call_id(self.format),
                    name,
                });
                self.calls += 1;
                true
            }
            Head::NoCall => {
                // It was no call: the text counts as text, in which a call may begin.
                let mut text = std::mem::take(&mut self.mark).to_owned();
                if self.format == CallFormat::Bare {
                    text.extend(self.held.drain(..1));
                }
                pieces.push(Piece::Text(text));
                self.has_text = true;
                self.state = State::Text;
                true
            }
        }
    }

    fn arguments(&mut self, mut json: Json, pieces: &mut Vec<Piece>) -> bool {
        let end = json.end(&self.held);
        let rest = self.held.split_off(end.unwrap_or(self.held.len()));
        let text = std::mem::replace(&mut self.held, rest);
        if !text.is_empty() {
            let index = self.calls - 1;
            pieces.push(Piece::Arguments { index, text });
        }
        self.state = match end {
            Some(_) => State::Tail,
            None => State::Arguments(json),
        };
        end.is_some()
    }

    fn tagged(&mut self, pieces: &mut Vec<Piece>) -> bool {
        let mut text = String::new();
        let ended = self.tagged.advance(&mut self.held, &mut text);
        if !text.is_empty() {
            let index = self.calls - 1;
            pieces.push(Piece::Arguments { index, text });
        }
        if ended {
            self.state = State::Tail;
        }
        ended
    }

    fn tail(&mut self) -> bool {
        let text = self.held.trim_start();
        // The arguments are a part of an object, or of a tag that has been closed.
        let text = match self.format {
            CallFormat::Xml => Some(text),
            _ => text.strip_prefix('}').map(str::trim_start),
        };
        let Some(text) = text else {
            return false;
        };
        let (rest, state) = match self.format {
            CallFormat::Tags | CallFormat::Xml => (text.strip_prefix("</tool_call>"), State::Text),
            CallFormat::List => match text.strip_prefix(',') {
                Some(rest) => {
                    self.mark = ",";
                    (Some(rest), State::Head)
                }
                None => (text.strip_prefix(']'), State::Text),
            },
            CallFormat::Bare => (Some(text), State::Text),
        };
        let Some(rest) = rest.map(str::to_owned) else {
            return false;
        };
        self.held = rest;
        self.state = state;
        true
    }
}

/// The id of a new call: for Mistral's template in the one form that it accepts, for others with
/// OpenAI's prefix.
fn new_call_id(format: CallFormat) -> String {
    match format {
        CallFormat::List => call_id(),
        CallFormat::Tags | CallFormat::Bare | CallFormat::Xml => format!("call_{}", call_id()),
    }
}

/// The head of a call: the text before its arguments.
enum Head {
    Incomplete,
    Read { name: String, length: usize },
    NoCall,
}

impl Head {
    fn read(text: &str, format: CallFormat) -> Self {
        let mut reader = Reader(text);
        let head = match format {
            CallFormat::Xml => reader.function(),
            CallFormat::Tags | CallFormat::List => reader.head(format, "arguments"),
            CallFormat::Bare => reader.head(format, "parameters"),
        };
        match head {
            Ok(name) => Self::Read {
                name,
                length: text.len() - reader.0.len(),
            },
            Err(true) => Self::Incomplete,
            Err(false) => Self::NoCall,
        }
    }
}

struct Reader<'a>(&'a str);

impl Reader<'_> {
    /// The name in `{"name": "…", "KEY": `. The error says whether more text may complete it.
    fn head(&mut self, format: CallFormat, key: &str) -> Result<String, bool> {
        if format == CallFormat::List {
            self.blanks();
            if self.0.starts_with('[') {
                self.0 = &self.0[1..];
            }
        }
        self.expect("{")?;
        self.expect("\"name\"")?;
        self.expect(":")?;
        let name = self.string()?;
        self.expect(",")?;
        self.expect(&format!("\"{key}\""))?;
        self.expect(":")?;
        self.blanks();
        if self.0.is_empty() { Err(true) } else { Ok(name) }
    }

    /// The name in `<function=NAME>`; an error as above.
    fn function(&mut self) -> Result<String, bool> {
        self.expect("<function=")?;
        match self.0.split_once('>') {
            Some((name, rest)) if !name.is_empty() && !name.contains(['<', '\n']) => {
                self.0 = rest;
                Ok(name.to_owned())
            }
            None if !self.0.contains(['<', '\n']) => Err(true),
            _ => Err(false),
        }
    }

    fn blanks(&mut self) {
        self.0 = self.0.trim_start();
    }

    fn expect(&mut self, what: &str) -> Result<(), bool> {
        self.blanks();
        match self.0.strip_prefix(what) {
            Some(rest) => {
                self.0 = rest;
                Ok(())
            }
            None => Err(what.starts_with(self.0)),
        }
    }

    fn string(&mut self) -> Result<String, bool> {
        self.blanks();
        let mut json = Json::default();
        let end = json.end(self.0).ok_or(true)?;
        let name = serde_json::from_str(&self.0[..end]).map_err(|_| false)?;
        self.0 = &self.0[end..];
        Ok(name)
    }
}

impl Json {
    /// The end of the value in `text`, which continues what was read before, if the value ends
    /// there.
    fn end(&mut self, text: &str) -> Option<usize> {
        for (at, c) in text.char_indices() {
            let next = at + c.len_utf8();
            if self.in_string {
                match c {
                    _ if self.escaped => self.escaped = false,
                    '\\' => self.escaped = true,
                    '"' => {
                        self.in_string = false;
                        if self.depth == 0 {
                            return Some(next);
                        }
                    }
                    _ => {}
                }
                continue;
            }
            match c {
                '"' => self.in_string = true,
                '{' | '[' => self.depth += 1,
                // The end of the object or list that a number or a word is in.
                '}' | ']' | ',' if self.depth == 0 => return Some(at),
                '}' | ']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return Some(next);
                    }
                }
                _ => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::http::fields::Fields;

    /// Text, and calls with their whole arguments.
    type Parsed = (String, Vec<(String, String)>);

    fn tools() -> Tools {
        let properties =
            json!({"a": {"type": "string"}, "b": {"type": "array"}, "c": {"type": ["string", "null"]}});
        let tool = |name: &str| json!({"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": properties}}});
        let body = json!({"tools": [tool("f"), tool("g")]}).to_string();
        let mut fields = Fields::from_json(body.as_bytes()).expect("JSON");
        Tools::take(&mut fields).expect("valid").expect("there")
    }

    fn parse(format: CallFormat, pieces: &[&str]) -> Parsed {
        let mut parser = CallParser::new(format, &tools());
        let mut parsed = Parsed::default();
        let mut all: Vec<Piece> = pieces.iter().flat_map(|piece| parser.push(piece)).collect();
        all.extend(parser.finish());
        for piece in all {
            match piece {
                Piece::Text(text) => parsed.0.push_str(&text),
                Piece::Call { index, name, .. } => {
                    assert_eq!(index, parsed.1.len());
                    parsed.1.push((name, String::new()));
                }
                Piece::Arguments { index, text } => parsed.1[index].1.push_str(&text),
            }
        }
        parsed
    }

    fn characters(text: &str) -> Vec<&str> {
        let ends = text.char_indices().map(|(at, c)| &text[at..at + c.len_utf8()]);
        ends.collect()
    }

    fn call(name: &str, arguments: &str) -> (String, String) {
        (name.to_owned(), arguments.to_owned())
    }

    #[test]
    fn calls_are_found_wherever_the_pieces_are_cut() {
        let nothing = String::new;
        for (format, text, expected) in [
            (
                CallFormat::Tags,
                "Just text, a < b.",
                ("Just text, a < b.".to_owned(), vec![]),
            ),
            (
                CallFormat::Tags,
                "Sure.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"}<\\\"\", \"b\": [1, {}]}}\n</tool_call>",
                (
                    "Sure.".to_owned(),
                    vec![call("f", "{\"a\": \"}<\\\"\", \"b\": [1, {}]}")],
                ),
            ),
            (
                CallFormat::Tags,
                "<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>\n<tool_call>{\"name\":\"gé\",\"arguments\":7}</tool_call>\n",
                (nothing(), vec![call("f", "{}"), call("gé", "7")]),
            ),
            (
                CallFormat::List,
                "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"x\": 1}}, {\"name\": \"g\", \"arguments\": {}}]",
                (nothing(), vec![call("f", "{\"x\": 1}"), call("g", "{}")]),
            ),
            (
                CallFormat::Bare,
                "{\"name\": \"f\", \"parameters\": {\"x\": \"y\"}}",
                (nothing(), vec![call("f", "{\"x\": \"y\"}")]),
            ),
            (
                CallFormat::Bare,
                "{\"answer\": 7}",
                ("{\"answer\": 7}".to_owned(), vec![]),
            ),
            (CallFormat::Bare, "It is {7}.", ("It is {7}.".to_owned(), vec![])),
            (
                CallFormat::Tags,
                "cut <tool_ca",
                ("cut <tool_ca".to_owned(), vec![]),
            ),
            (
                CallFormat::Tags,
                "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"b",
                (nothing(), vec![call("f", "{\"a\": \"b")]),
            ),
            (
                CallFormat::Xml,
                "Sure.\n<tool_call>\n<function=f>\n<parameter=a>\nsay \"</p\" é\n\n</parameter>\n<parameter=b>\n[1, {}]\n</parameter>\n\
                 <parameter=c>\nnull\n</parameter>\n</function>\n</tool_call>",
                (
                    "Sure.".to_owned(),
                    vec![call(
                        "f",
                        "{\"a\": \"say \\\"</p\\\" é\\n\", \"b\": [1, {}], \"c\": null}",
                    )],
                ),
            ),
            (
                CallFormat::Xml,
                "<tool_call>\n<function=g>\n</function>\n</tool_call>\n<tool_call>\n<function=f>\n<parameter=c>\n\n</parameter>\n</function>\n\
                 </tool_call>\n",
                (nothing(), vec![call("g", "{}"), call("f", "{\"c\": \"\"}")]),
            ),
            (
                CallFormat::Xml,
                "<tool_call>\n<function=f>\n<parameter=a>\nno end\n</par",
                (nothing(), vec![call("f", "{\"a\": \"no end\\n</par")]),
            ),
            (
                CallFormat::Xml,
                "<tool_call>\n<function=f>\n<parameter=c>\nnu",
                (nothing(), vec![call("f", "{\"c\": \"nu")]),
            ),
            (
                CallFormat::Xml,
                "<tool_call>\n<fun=f>",
                ("<tool_call>\n<fun=f>".to_owned(), vec![]),
            ),
        ] {
            assert_eq!(parse(format, &[text]), expected, "{text}");
            assert_eq!(parse(format, &characters(text)), expected, "{text}");
        }
    }

    #[test]
    fn text_is_not_held_back_longer_than_it_must() {
        let mut parser = CallParser::new(CallFormat::Tags, &tools());
        assert_eq!(parser.push("Hi"), [Piece::Text("Hi".to_owned())]);
        assert_eq!(parser.push(" a <t"), [Piece::Text(" a".to_owned())]);
        assert_eq!(parser.push("ea"), [Piece::Text(" <tea".to_owned())]);
        // Nor is a text that is an argument.
        let mut parser = CallParser::new(CallFormat::Xml, &tools());
        parser.push("<tool_call>\n<function=f>\n<parameter=a>\n");
        let more = |text: &str| {
            vec![Piece::Arguments {
                index: 0,
                text: text.to_owned(),
            }]
        };
        assert_eq!(parser.push("long \"text\"\n<"), more("long \\\"text\\\""));
        assert_eq!(parser.push("b>"), more("\\n<b>"));
    }

    proptest! {
        /// Grammars keep models from most of it, but a parser must not rely on that.
        #[test]
        fn any_output_is_parsed_the_same_however_it_is_cut(
            format in prop::sample::select(vec![CallFormat::Tags, CallFormat::List, CallFormat::Bare, CallFormat::Xml]),
            parts in prop::collection::vec(prop::sample::select(vec![
                "<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[", "]", "{", "}", ",", " ", "\n", "\"name\"", ": ", "\"f\"",
                "\"arguments\"", "\"parameters\"", "{\"a\": 1}", "\\", "\"", "é", "text",
                "<function=f>", "<parameter=a>", "<parameter=b>", "<parameter=c>", "</parameter>", "</function>", "null",
                "{\"name\": \"f\", \"arguments\": ", "{\"name\": \"f\", \"parameters\": ",
            ]), 0..12),
        ) {
            let whole = parts.concat();
            let (at_once, by_characters) = (parse(format, &[&whole]), parse(format, &characters(&whole)));
            prop_assert_eq!(at_once.1, by_characters.1);
            // Blanks beside calls may be left out.
            let words = |text: &str| text.split_whitespace().collect::<String>();
            prop_assert_eq!(words(&at_once.0), words(&by_characters.0));
        }
    }
}

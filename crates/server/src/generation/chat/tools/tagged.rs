//! Turns the arguments of a call in tags into JSON while they are generated.

use serde_json::Value;

use super::xml::{END, Written};

const BEGIN: &str = "<parameter=";
const CLOSE: &str = "</function>";

/// The arguments of one call, after `<function=NAME>`.
#[derive(Debug, Default)]
pub(super) struct Tagged {
    /// The notation of each argument.
    parameters: Vec<(String, Written)>,
    /// Whether there was an argument.
    has_some: bool,
    /// The notation of the current argument.
    within: Option<Written>,
}

impl Tagged {
    pub(super) fn new(parameters: Vec<(String, Written)>) -> Self {
        Self {
            parameters,
            has_some: false,
            within: None,
        }
    }

    /// Moves what is certain from `held` to `json`. Returns whether the call has ended.
    pub(super) fn advance(&mut self, held: &mut String, json: &mut String) -> bool {
        loop {
            let Some(written) = self.within else {
                let text = held.trim_start();
                if let Some(rest) = text.strip_prefix(CLOSE) {
                    json.push_str(if self.has_some { "}" } else { "{}" });
                    *held = rest.to_owned();
                    return true;
                }
                // The line break after a tag belongs to the tag.
                let tag = text
                    .strip_prefix(BEGIN)
                    .and_then(|text| text.split_once('>'))
                    .filter(|(_, value)| !value.is_empty());
                let Some((name, value)) = tag else { return false };
                let known = self.parameters.iter().find(|(known, _)| known == name);
                let written = known.map_or(Written::Text, |(_, written)| *written);
                json.push_str(if self.has_some { ", " } else { "{" });
                json.push_str(&format!("{}: ", Value::from(name)));
                json.push_str(if written == Written::Text { "\"" } else { "" });
                *held = value.strip_prefix('\n').unwrap_or(value).to_owned();
                (self.has_some, self.within) = (true, Some(written));
                continue;
            };
            let Some(end) = held.find(END) else {
                // It may be about to end; and of what may be `null` all counts.
                let undecided = (1..END.len())
                    .rev()
                    .find(|&length| held.ends_with(&END[..length]))
                    .unwrap_or(0);
                let certain = match written {
                    Written::TextOrNull => 0,
                    Written::Text | Written::Json => held.len() - undecided,
                };
                let rest = held.split_off(certain);
                json.push_str(&json_text(held, written));
                *held = rest;
                return false;
            };
            let rest = held.split_off(end);
            json.push_str(&match (written, held.as_str()) {
                (Written::Text, text) => json_text(text, written) + "\"",
                (Written::TextOrNull, "null") => "null".to_owned(),
                (Written::TextOrNull, text) => format!("\"{}\"", json_text(text, written)),
                (Written::Json, text) => text.to_owned(),
            });
            *held = rest[END.len()..].to_owned();
            self.within = None;
        }
    }

    /// The arguments so far, if the answer ends within them.
    pub(super) fn rest(&self, held: &str) -> String {
        match self.within {
            Some(Written::TextOrNull) => format!("\"{}", json_text(held, Written::TextOrNull)),
            Some(written) => json_text(held, written),
            None => String::new(),
        }
    }
}

/// A part of an argument as it stands in JSON.
fn json_text(text: &str, written: Written) -> String {
    match written {
        Written::Json => text.to_owned(),
        Written::Text | Written::TextOrNull => {
            let quoted = Value::from(text).to_string();
            quoted[1..quoted.len() - 1].to_owned()
        }
    }
}

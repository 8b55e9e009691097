//! Tools that a model may call: the list, the constraint on answers, and the description in the
//! prompt.
//!
//! The model's chat template decides how the prompt describes tools and how calls are written
//! ([`CallFormat`]). If the template does not support tools, the system message describes them, and
//! calls are written in Hermes' format. In both cases a grammar enforces valid calls: the name is
//! that of a tool, and the tool's schema allows the arguments.

mod grammar;
mod parse;
mod tagged;
mod xml;

use multigraft_grammar::Constraint;
use multigraft_text::{CallFormat, ChatTemplate, Tokenizer};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{
    contract::fields::openai as row,
    http::{error::ApiError, fields::Fields},
    state::grammars::Constrained,
};

pub(crate) use parse::{CallParser, Piece};

/// The special token that calls begin with in Mistral's vocabulary.
const LIST_MARK: &str = "[TOOL_CALLS]";
/// The special token that calls may begin with in Llama 3's vocabulary, whatever the template
/// writes.
const BARE_MARK: &str = "<|python_tag|>";

/// The tools of a request.
#[derive(Debug)]
pub(crate) struct Tools {
    /// The tools in the form that chat templates expect.
    pub(crate) list: Vec<Value>,
    functions: Vec<Function>,
    pub(crate) choice: Choice,
    /// Whether one answer may have several calls.
    parallel: bool,
}

/// The tools that answers may call, and the format of calls.
#[derive(Debug)]
pub(crate) struct Calling {
    pub(crate) tools: Tools,
    pub(crate) format: CallFormat,
}

impl Calling {
    /// The constraint that keeps calls valid.
    ///
    /// # Errors
    /// If a tool's parameters cannot be kept to in this format.
    pub(crate) fn constrained(&self, tokenizer: &Tokenizer) -> Result<Constrained, ApiError> {
        Ok(Constrained {
            field: row::TOOLS.name.to_owned(),
            constraint: self.tools.constraint(self.format, tokenizer)?,
        })
    }
}

#[derive(Debug)]
struct Function {
    name: String,
    parameters: Value,
}

/// `tool_choice`, if tools may be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The model decides.
    Auto,
    /// At least one call.
    Required,
    /// One call of this tool.
    Named(String),
}

impl Tools {
    /// Reads `tools`, `tool_choice` and `parallel_tool_calls`; `None` if no tool may be called.
    pub(crate) fn take(fields: &mut Fields) -> Result<Option<Self>, ApiError> {
        let mut list = Vec::new();
        let mut functions = Vec::new();
        for mut tool in fields.objects(row::TOOLS)?.unwrap_or_default() {
            let kind = tool.required("type")?;
            if kind != "function" {
                return Err(tool.complain("type", &format!("is {kind:?}, but must be \"function\"")));
            }
            let Some(mut function) = tool.object("function")? else {
                return Err(tool.complain("function", "is missing"));
            };
            let name = function.required("name")?;
            let valid = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
            if name.len() > 64 || !name.chars().all(valid) {
                return Err(function.complain("name", "must be 1 to 64 of letters, digits, `_`, `-` and `.`"));
            }
            if functions.iter().any(|other: &Function| other.name == name) {
                return Err(function.complain("name", &format!("is {name:?}, as another tool's is")));
            }
            let description = function.string("description")?;
            let parameters = match function.take("parameters") {
                Some(parameters @ Value::Object(_)) => parameters,
                Some(_) => return Err(function.complain("parameters", "must be a JSON schema: an object")),
                None => json!({"type": "object", "properties": {}}),
            };
            // The schema of arguments is always enforced.
            function.ignore(&["strict"]);
            function.finish()?;
            tool.finish()?;
            let mut described = Map::new();
            described.insert("name".to_owned(), Value::String(name.clone()));
            if let Some(description) = description {
                described.insert("description".to_owned(), Value::String(description));
            }
            described.insert("parameters".to_owned(), parameters.clone());
            list.push(json!({"type": "function", "function": described}));
            functions.push(Function { name, parameters });
        }
        if list.len() > row::MOST_TOOLS {
            let problem = format!(
                "has {} entries, but may have at most {}",
                list.len(),
                row::MOST_TOOLS
            );
            return Err(fields.complain(row::TOOLS, &problem));
        }
        let choice = choice(fields)?;
        let parallel = fields.flag(row::PARALLEL_TOOL_CALLS)?.unwrap_or(true);
        let Some(choice) = choice else {
            return Ok(None);
        };
        if let Choice::Named(name) = &choice
            && !functions.iter().any(|function| function.name == *name)
        {
            return Err(fields.complain(
                row::TOOL_CHOICE,
                &format!("names {name:?}, which is none of `tools`"),
            ));
        }
        match (functions.is_empty(), &choice) {
            (false, _) => Ok(Some(Self {
                list,
                functions,
                choice,
                parallel,
            })),
            (true, Choice::Auto) => Ok(None),
            (true, _) => Err(fields.complain(row::TOOL_CHOICE, "asks for a call, but there are no `tools`")),
        }
    }

    fn constraint(&self, format: CallFormat, tokenizer: &Tokenizer) -> Result<Constraint, ApiError> {
        let mark = match format {
            CallFormat::Tags | CallFormat::Xml => None,
            CallFormat::List => tokenizer.token_id(LIST_MARK),
            CallFormat::Bare => tokenizer.token_id(BARE_MARK),
        };
        // Only a special token is a mark; otherwise the model writes it as text.
        let mark = mark.filter(|&id| tokenizer.is_special(id));
        grammar::grammar(self, format, mark).map(Constraint::Grammar)
    }

    /// The `finish_reason` of an answer with `calls` calls that ends by itself, if it is another
    /// than `stop`.
    pub(crate) fn finish_reason(&self, calls: usize) -> Option<&'static str> {
        // As in OpenAI's API, the reason is `stop` if `tool_choice` names the tool.
        (calls > 0 && !matches!(self.choice, Choice::Named(_))).then_some("tool_calls")
    }
}

/// `tool_choice`; `None` for none.
fn choice(fields: &mut Fields) -> Result<Option<Choice>, ApiError> {
    match fields.take(row::TOOL_CHOICE) {
        None => Ok(Some(Choice::Auto)),
        Some(Value::String(choice)) => match choice.as_str() {
            "auto" => Ok(Some(Choice::Auto)),
            "none" => Ok(None),
            "required" | "any" => Ok(Some(Choice::Required)),
            _ => {
                let problem =
                    format!("is {choice:?}, but must be \"auto\", \"none\", \"required\" or a function");
                Err(fields.complain(row::TOOL_CHOICE, &problem))
            }
        },
        Some(named) => {
            let name = named["function"]["name"].as_str();
            match name.filter(|_| named["type"] == "function") {
                Some(name) => Ok(Some(Choice::Named(name.to_owned()))),
                None => Err(fields.complain(
                    "tool_choice",
                    "must be a string or {\"type\": \"function\", \"function\": {\"name\": …}}",
                )),
            }
        }
    }
}

/// The format of calls; Hermes' if the template does not support tools.
pub(crate) fn format_of(template: &ChatTemplate) -> CallFormat {
    template.calls().unwrap_or(CallFormat::Tags)
}

/// The messages in the form that the template expects: arguments are objects, not texts. For a
/// template that does not support tools, calls and results become texts.
pub(crate) fn for_template(
    messages: Vec<Value>,
    tools: Option<&Tools>,
    template: &ChatTemplate,
) -> Vec<Value> {
    let messages = messages.into_iter().map(with_objects);
    if template.calls().is_some() {
        return messages.collect();
    }
    let mut messages: Vec<Value> = messages.map(in_words).collect();
    let Some(tools) = tools else {
        return messages;
    };
    let mut text = "You can call functions. This is what there is, one in each line:".to_owned();
    for tool in &tools.list {
        text.push('\n');
        text.push_str(&tool["function"].to_string());
    }
    text.push_str(
        "\nTo call one, write its name and arguments as JSON, once for each call:\n\
         <tool_call>\n{\"name\": \"…\", \"arguments\": {…}}\n</tool_call>",
    );
    match messages.first_mut().filter(|first| first["role"] == "system") {
        Some(system) => {
            let existing = system["content"].as_str().unwrap_or_default();
            system["content"] = format!("{existing}\n\n{text}").into();
        }
        None => messages.insert(0, json!({"role": "system", "content": text})),
    }
    messages
}

/// OpenAI's clients send arguments as texts; templates expect objects.
fn with_objects(mut message: Value) -> Value {
    if let Some(calls) = message.get_mut("tool_calls").and_then(Value::as_array_mut) {
        for call in calls {
            // Other types are left for the template to refuse.
            if let Some(arguments) = call.pointer_mut("/function/arguments")
                && let Some(text) = arguments.as_str()
                && let Ok(parsed @ Value::Object(_)) = serde_json::from_str(text)
            {
                *arguments = parsed;
            }
        }
    }
    message
}

/// A message with calls, or the result of a call, as text.
fn in_words(message: Value) -> Value {
    let content = message["content"].as_str().unwrap_or_default();
    if message["role"] == "tool" {
        return json!({"role": "user", "content": format!("<tool_response>\n{content}\n</tool_response>")});
    }
    let Some(calls) = message["tool_calls"].as_array() else {
        return message;
    };
    let mut text = content.to_owned();
    for call in calls {
        let function = &call["function"];
        let call = json!({"name": function["name"], "arguments": function["arguments"]});
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&format!("<tool_call>\n{call}\n</tool_call>"));
    }
    json!({"role": message["role"], "content": text})
}

/// The text of a token for the parser of calls: Mistral's mark is included and Llama 3's is not,
/// whether or not special tokens are shown.
pub(crate) fn text_of(token: &multigraft_engine::Token, tokenizer: &Tokenizer) -> String {
    let is = |mark| token.special && tokenizer.token_id(mark) == Some(token.id);
    let without = |mark| token.text.strip_suffix(mark).unwrap_or(&token.text);
    if is(LIST_MARK) {
        return format!("{}{LIST_MARK}", without(LIST_MARK));
    }
    if is(BARE_MARK) {
        return without(BARE_MARK).to_owned();
    }
    token.text.clone()
}

/// A call in an answer, or in a stream a part of a call.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct ToolCall {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    function: CalledFunction,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct CalledFunction {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    arguments: String,
}

impl ToolCall {
    /// The first part of a call.
    pub(crate) fn begun(index: Option<usize>, id: String, name: String) -> Self {
        Self {
            index,
            id: Some(id),
            kind: Some("function"),
            function: CalledFunction {
                name: Some(name),
                arguments: String::new(),
            },
        }
    }

    /// A further part of the arguments.
    pub(crate) fn more(index: usize, arguments: String) -> Self {
        Self {
            index: Some(index),
            id: None,
            kind: None,
            function: CalledFunction {
                name: None,
                arguments,
            },
        }
    }

    /// Adds to the arguments.
    pub(crate) fn push(&mut self, arguments: &str) {
        self.function.arguments.push_str(arguments);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn marks_of_calls_are_seen_or_not_whatever_of_special_tokens_is_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let special = |id: u32, content: &str| {
            json!({"id": id, "content": content, "special": true, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false})
        };
        let byte_level =
            json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
        let tokenizer = json!({"version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
            "pre_tokenizer": byte_level, "decoder": byte_level, "added_tokens": [special(1, LIST_MARK), special(2, BARE_MARK)],
            "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": {"a": 0}, "merges": []}});
        fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).expect("written");
        let tokenizer = Tokenizer::from_folder(folder.path()).expect("a tokenizer");
        let seen = |id, text: &str| {
            let token = multigraft_engine::Token {
                id,
                text: text.to_owned(),
                special: id > 0,
                logprob: None,
                top: Vec::new(),
            };
            text_of(&token, &tokenizer)
        };
        assert_eq!(
            (seen(1, "x"), seen(1, "x[TOOL_CALLS]")),
            ("x[TOOL_CALLS]".into(), "x[TOOL_CALLS]".into())
        );
        assert_eq!(
            (seen(2, "x"), seen(2, "x<|python_tag|>")),
            ("x".into(), "x".into())
        );
        assert_eq!(seen(0, "<|python_tag|>"), "<|python_tag|>");
    }
}

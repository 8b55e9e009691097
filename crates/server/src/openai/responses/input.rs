//! Turns a request for a response into the request for a chat.

use std::collections::{BTreeMap, HashSet};

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    contract::fields::{Body, openai as row},
    http::{error::ApiError, fields::Fields},
    openai::metadata,
};

/// Fields with other names: the name in chats, the name in responses.
const RENAMED: [(&str, &str); 5] = [
    ("messages", "input"),
    ("response_format.json_schema", "text.format"),
    ("response_format", "text.format"),
    ("max_completion_tokens", "max_output_tokens"),
    ("max_tokens", "max_output_tokens"),
];

/// The fields of the request that the answer repeats.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct Echo {
    instructions: Option<String>,
    max_output_tokens: Option<Value>,
    metadata: BTreeMap<String, String>,
    parallel_tool_calls: bool,
    text: Value,
    tool_choice: Value,
    tools: Vec<Value>,
    user: Option<String>,
}

/// The request for a chat, and what the answer repeats.
pub(super) fn chat(mut fields: Fields) -> Result<(Fields, Echo), ApiError> {
    refuse(&mut fields)?;
    let instructions = fields.string(row::INSTRUCTIONS)?;
    let messages = messages(&mut fields, instructions.as_deref())?;
    let (text, format) = format(&mut fields)?;
    let (tools, wrapped) = tools(&mut fields)?;
    let tool_choice = fields.take(row::TOOL_CHOICE).unwrap_or_else(|| "auto".into());
    let wrapped_choice = match &tool_choice {
        Value::Object(named) => match (named.get("type"), named.get("name")) {
            (Some(kind), Some(name)) if kind == "function" => {
                json!({"type": "function", "function": {"name": name}})
            }
            (Some(kind), None) if kind == "function" => {
                return Err(fields.complain(row::TOOL_CHOICE, "names no function: `name` is missing"));
            }
            (Some(kind), _) => {
                let problem = format!("is of type {kind}, but only functions can be chosen");
                return Err(fields.complain(row::TOOL_CHOICE, &problem));
            }
            (None, _) => return Err(fields.complain(row::TOOL_CHOICE, "has no `type`")),
        },
        other => other.clone(),
    };
    let parallel_tool_calls = fields.flag(row::PARALLEL_TOOL_CALLS)?.unwrap_or(true);
    let max_output_tokens = fields.take(row::MAX_OUTPUT_TOKENS);
    let echo = Echo {
        instructions,
        max_output_tokens: max_output_tokens.clone(),
        metadata: metadata::take(&mut fields)?,
        parallel_tool_calls,
        text,
        tool_choice,
        tools,
        user: fields.string(row::RESPONSE_USER)?,
    };
    for (name, value) in [
        ("messages", messages.into()),
        ("response_format", format),
        ("max_completion_tokens", max_output_tokens.unwrap_or_default()),
        ("tools", wrapped.into()),
        ("tool_choice", wrapped_choice),
        ("parallel_tool_calls", parallel_tool_calls.into()),
    ] {
        fields.set(name, value);
    }
    Ok((fields, echo))
}

/// An error about the chat, with the field names of responses.
pub(super) fn renamed(error: ApiError) -> ApiError {
    let ApiError::Invalid {
        field: Some(field),
        mut message,
    } = error
    else {
        return error;
    };
    let mut path = field.replace(".function", "");
    for (in_chats, in_responses) in RENAMED {
        if let Some(rest) = path.strip_prefix(in_chats) {
            path = format!("{in_responses}{rest}");
        }
        message = message.replace(&format!("`{in_chats}`"), &format!("`{in_responses}`"));
    }
    let message = message.replace(&format!("`{field}`"), &format!("`{path}`"));
    ApiError::invalid(path, message)
}

/// Refuses the fields of chats that have another name here, and those that are not supported.
fn refuse(fields: &mut Fields) -> Result<(), ApiError> {
    for (in_chats, in_responses) in RENAMED {
        if fields.has(in_chats) {
            let problem = format!("is a field of chats; here it is `{in_responses}`");
            return Err(fields.complain(in_chats, &problem));
        }
    }
    fields.drop_unsupported(Body::Response)?;
    if let Some(mut reasoning) = fields.object(row::REASONING)? {
        reasoning.drop_unsupported(Body::Reasoning)?;
        reasoning.finish()?;
    }
    Ok(())
}

/// Reads `text`: the form that the answer repeats, and the chat's `response_format`.
fn format(fields: &mut Fields) -> Result<(Value, Value), ApiError> {
    let plain = || json!({"type": "text"});
    let Some(mut text) = fields.object(row::RESPONSE_TEXT)? else {
        return Ok((json!({"format": plain()}), Value::Null));
    };
    text.drop_unsupported(Body::ResponseText)?;
    let given = text.object(row::TEXT_FORMAT)?;
    text.finish()?;
    let Some(mut format) = given else {
        return Ok((json!({"format": plain()}), Value::Null));
    };
    let whole = Value::Object(format.clone().into_rest());
    let kind = format.required("type")?;
    let format = match kind.as_str() {
        "json_schema" => {
            let named = format.into_rest();
            json!({"type": kind, "json_schema": named})
        }
        "text" | "json_object" => {
            format.finish()?;
            json!({"type": kind})
        }
        _ => {
            let problem = format!("is {kind:?}, but must be \"text\", \"json_object\" or \"json_schema\"");
            return Err(format.complain("type", &problem));
        }
    };
    Ok((json!({"format": whole}), format))
}

/// Reads `tools`: the form that the answer repeats, and the form of chats.
fn tools(fields: &mut Fields) -> Result<(Vec<Value>, Vec<Value>), ApiError> {
    let (mut repeated_tools, mut wrapped) = (Vec::new(), Vec::new());
    for mut tool in fields.objects(row::TOOLS)?.unwrap_or_default() {
        let kind = tool.required("type")?;
        if kind != "function" {
            let problem = format!("is {kind:?}, but this server has no tools of its own: only \"function\"");
            return Err(tool.complain("type", &problem));
        }
        let function = tool.into_rest();
        let mut repeated = function.clone();
        repeated.insert("type".to_owned(), kind.into());
        for (name, default) in [("parameters", Value::Null), ("strict", true.into())] {
            repeated.entry(name).or_insert(default);
        }
        repeated_tools.push(Value::Object(repeated));
        wrapped.push(json!({"type": "function", "function": function}));
    }
    Ok((repeated_tools, wrapped))
}

/// The messages of the conversation; `instructions` come first.
fn messages(fields: &mut Fields, instructions: Option<&str>) -> Result<Vec<Value>, ApiError> {
    let mut conversation = Conversation::default();
    if let Some(instructions) = instructions {
        conversation.say("system", instructions);
    }
    match fields.take(row::INPUT) {
        None => return Err(fields.complain(row::INPUT, "is missing")),
        Some(Value::String(text)) => conversation.say("user", &text),
        Some(items @ Value::Array(_)) => {
            fields.set(row::INPUT, items);
            let items = fields.objects(row::INPUT)?.unwrap_or_default();
            if items.is_empty() {
                return Err(fields.complain(row::INPUT, "is empty: there is nothing to answer"));
            }
            for item in items {
                conversation.item(item)?;
            }
        }
        Some(_) => return Err(fields.complain(row::INPUT, "must be a string or a list of items")),
    }
    Ok(conversation.messages)
}

/// Collects the messages of a chat from items.
#[derive(Default)]
struct Conversation {
    messages: Vec<Value>,
    /// The ids of calls so far.
    called: HashSet<String>,
}

impl Conversation {
    fn say(&mut self, role: &str, content: &str) {
        self.messages.push(json!({"role": role, "content": content}));
    }

    fn item(&mut self, mut item: Fields) -> Result<(), ApiError> {
        // Items of answers have these fields.
        item.ignore(&["id", "status", "phase"]);
        let kind = item.string("type")?;
        match kind.as_deref().unwrap_or("message") {
            "message" => {
                let role = item.required("role")?;
                if !["user", "assistant", "system", "developer"].contains(&role.as_str()) {
                    let problem = format!(
                        "is {role:?}, but must be \"user\", \"assistant\", \"system\" or \"developer\""
                    );
                    return Err(item.complain("role", &problem));
                }
                let content = content(&mut item, "content")?;
                item.finish()?;
                self.say(&role, &content);
            }
            "function_call" => {
                let (id, name) = (item.required("call_id")?, item.required("name")?);
                let Some(arguments) = item.string("arguments")? else {
                    return Err(item.complain("arguments", "is missing"));
                };
                item.finish()?;
                self.call(&id, &name, &arguments);
                self.called.insert(id);
            }
            "function_call_output" => {
                let id = item.required("call_id")?;
                if !self.called.contains(&id) {
                    let problem = format!("is {id:?}, but no `function_call` before it has that");
                    return Err(item.complain("call_id", &problem));
                }
                let output = content(&mut item, "output")?;
                item.finish()?;
                self.messages
                    .push(json!({"role": "tool", "tool_call_id": id, "content": output}));
            }
            other => {
                let problem = format!(
                    "is {other:?}, but only \"message\", \"function_call\" and \"function_call_output\" are supported"
                );
                return Err(item.complain("type", &problem));
            }
        }
        Ok(())
    }

    /// Adds a call to the assistant's message before it: in a chat, a turn is one message.
    fn call(&mut self, id: &str, name: &str, arguments: &str) {
        let call = json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
        match self.messages.last_mut() {
            Some(Value::Object(last)) if last.get("role").is_some_and(|role| role == "assistant") => {
                let calls = last.entry("tool_calls").or_insert_with(|| json!([]));
                if let Value::Array(calls) = calls {
                    calls.push(call);
                }
            }
            _ => self
                .messages
                .push(json!({"role": "assistant", "content": "", "tool_calls": [call]})),
        }
    }
}

/// The field as text; the texts of a list of parts are joined.
fn content(item: &mut Fields, name: &str) -> Result<String, ApiError> {
    match item.take(name) {
        None => Err(item.complain(name, "is missing")),
        Some(Value::String(text)) => Ok(text),
        Some(parts @ Value::Array(_)) => {
            item.set(name, parts);
            let mut text = String::new();
            for mut part in item.objects(name)?.unwrap_or_default() {
                let kind = part.required("type")?;
                if !["input_text", "output_text"].contains(&kind.as_str()) {
                    let problem =
                        format!("is {kind:?}, but only \"input_text\" and \"output_text\" are supported");
                    return Err(part.complain("type", &problem));
                }
                let Some(more) = part.string("text")? else {
                    return Err(part.complain("text", "is missing"));
                };
                text.push_str(&more);
                part.ignore(&["annotations", "logprobs"]);
                part.finish()?;
            }
            Ok(text)
        }
        Some(_) => Err(item.complain(name, "must be a string or a list of parts")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn as_chat(body: &Value) -> Result<(Value, Value), ApiError> {
        let (fields, echo) = chat(Fields::from_json(body.to_string().as_bytes())?)?;
        let echo = serde_json::to_value(echo).expect("plain data");
        Ok((Value::Object(fields.into_rest()), echo))
    }

    #[test]
    fn a_conversation_of_items_is_one_of_messages() {
        let (chat, _) = as_chat(&json!({"instructions": "Be brief.", "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]},
            {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
                "content": [{"type": "output_text", "text": "Let me see.", "annotations": []}]},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}", "id": "fc_1"},
            {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "1"},
            {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "2"}]},
            {"role": "developer", "content": "c"},
        ]}))
        .expect("valid");
        let call = |id: &str, name: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": "{}"}});
        assert_eq!(
            chat["messages"],
            json!([
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "ab"},
                {"role": "assistant", "content": "Let me see.", "tool_calls": [call("c1", "f"), call("c2", "g")]},
                {"role": "tool", "tool_call_id": "c1", "content": "1"},
                {"role": "tool", "tool_call_id": "c2", "content": "2"},
                {"role": "developer", "content": "c"},
            ])
        );
    }

    #[test]
    fn tools_and_formats_are_wrapped_as_chats_have_them() {
        let schema = json!({"type": "object"});
        let (chat, echo) = as_chat(&json!({"input": "x", "max_output_tokens": 7, "top_k": 3,
            "tools": [{"type": "function", "name": "f", "parameters": schema}],
            "tool_choice": {"type": "function", "name": "f"},
            "text": {"format": {"type": "json_schema", "name": "n", "strict": true, "schema": schema}}}))
        .expect("valid");
        assert_eq!(
            chat["tools"],
            json!([{"type": "function", "function": {"name": "f", "parameters": schema}}])
        );
        assert_eq!(
            chat["tool_choice"],
            json!({"type": "function", "function": {"name": "f"}})
        );
        assert_eq!(
            chat["response_format"],
            json!({"type": "json_schema", "json_schema": {"name": "n", "strict": true, "schema": schema}})
        );
        assert_eq!(chat["max_completion_tokens"], 7);
        assert_eq!(chat["top_k"], 3, "what chats have too is left as it is");
        assert_eq!(echo["tool_choice"], json!({"type": "function", "name": "f"}));
        assert_eq!(
            echo["tools"],
            json!([{"type": "function", "name": "f", "parameters": schema, "strict": true}])
        );
        assert_eq!(echo["text"]["format"]["name"], "n");
    }

    #[test]
    fn what_would_change_the_answer_is_refused_by_name() {
        for (body, field) in [
            (json!({}), "input"),
            (json!({"input": 7}), "input"),
            (json!({"input": []}), "input"),
            (json!({"input": ["x"]}), "input[0]"),
            (
                json!({"input": [{"role": "tool", "content": "x"}]}),
                "input[0].role",
            ),
            (json!({"input": [{"role": "user"}]}), "input[0].content"),
            (
                json!({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}),
                "input[0].content[0].type",
            ),
            (
                json!({"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]}),
                "input[0].call_id",
            ),
            (json!({"input": [{"type": "reasoning"}]}), "input[0].type"),
            (
                json!({"input": [{"role": "user", "content": "x", "y": 1}]}),
                "input[0].y",
            ),
            (json!({"input": "x", "store": true}), "store"),
            (
                json!({"input": "x", "previous_response_id": "resp_1"}),
                "previous_response_id",
            ),
            (json!({"input": "x", "conversation": "conv_1"}), "conversation"),
            (json!({"input": "x", "background": true}), "background"),
            (json!({"input": "x", "prompt": {"id": "p"}}), "prompt"),
            (json!({"input": "x", "truncation": "auto"}), "truncation"),
            (
                json!({"input": "x", "reasoning": {"effort": "high"}}),
                "reasoning.effort",
            ),
            (
                json!({"input": "x", "include": ["file_search_call.results"]}),
                "include",
            ),
            (
                json!({"input": "x", "tools": [{"type": "web_search"}]}),
                "tools[0].type",
            ),
            (
                json!({"input": "x", "tool_choice": {"type": "web_search"}}),
                "tool_choice",
            ),
            (
                json!({"input": "x", "text": {"format": {"type": "xml"}}}),
                "text.format.type",
            ),
            (
                json!({"input": "x", "text": {"verbosity": "low"}}),
                "text.verbosity",
            ),
            (json!({"input": "x", "metadata": {"a": 1}}), "metadata"),
            (json!({"input": "x", "max_tokens": 1}), "max_tokens"),
            (json!({"input": "x", "messages": []}), "messages"),
        ] {
            let error = as_chat(&body).expect_err("should be refused");
            assert_eq!(error.field(), Some(field), "{error}");
        }
        let harmless = json!({"input": "x", "store": false, "background": false, "truncation": "disabled", "include": [],
            "reasoning": {"summary": "auto"}, "previous_response_id": null, "text": {"verbosity": "medium"}});
        assert!(as_chat(&harmless).is_ok());
    }

    #[test]
    fn complaints_have_the_names_of_the_request() {
        for (theirs, ours) in [
            ("max_tokens", "max_output_tokens"),
            ("messages", "input"),
            ("response_format.json_schema.schema", "text.format.schema"),
            ("tools[1].function.name", "tools[1].name"),
            ("temperature", "temperature"),
        ] {
            let error = renamed(ApiError::invalid(theirs, format!("`{theirs}` is wrong")));
            assert_eq!(error, ApiError::invalid(ours, format!("`{ours}` is wrong")));
        }
    }
}

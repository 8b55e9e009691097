//! The grammar of answers that may call tools.

use std::fmt::Write as _;

use multigraft_grammar::with_blanks;
use multigraft_text::CallFormat;
use serde_json::{Map, Value, json};

use super::{Choice, Tools, xml};
use crate::http::error::ApiError;

/// The most calls in one answer, so that a model that keeps calling ends.
const CALLS: usize = 32;

/// The grammar, in Lark's syntax. `mark` is the special token that Mistral's calls begin with, and
/// that Llama 3's may begin with.
///
/// # Errors
/// If the format has no words for what a tool's parameters ask for.
pub(super) fn grammar(tools: &Tools, format: CallFormat, mark: Option<u32>) -> Result<String, ApiError> {
    let more = match (tools.parallel, &tools.choice) {
        (false, _) | (_, Choice::Named(_)) => 0,
        (true, _) => CALLS - 1,
    };
    let is_free = tools.choice == Choice::Auto;
    let mut lark = match format {
        CallFormat::Tags | CallFormat::Xml => {
            let call = "one \"</tool_call>\"";
            let again = repeated(&format!("\"\\n\"? \"<tool_call>\" {call}"), more);
            let first = if is_free { "opening" } else { "\"<tool_call>\"" };
            let called = format!("{first} {call} {again}");
            let one = "one: /\\n?/ body /\\n?/\n";
            format!("start: {}\n{one}", either(is_free, &called)) + "opening[lazy]: /(?s:.*)<tool_call>/\n"
        }
        CallFormat::List => {
            let list = format!("\"[\" body {} \"]\"", repeated("\", \" body", more));
            match mark {
                Some(id) => format!("start: {}\n", either(is_free, &format!("<[{id}]> \" \"? {list}"))),
                None => {
                    let first = if is_free { "opening" } else { "\"[TOOL_CALLS]\"" };
                    let called = format!("{first} \" \"? {list}");
                    format!(
                        "start: {}\nopening[lazy]: /(?s:.*)\\[TOOL_CALLS\\]/\n",
                        either(is_free, &called)
                    )
                }
            }
        }
        CallFormat::Bare => {
            let mark = mark.map_or_else(String::new, |id| format!("<[{id}]>? "));
            match is_free {
                true => format!("start: {mark}body | PLAIN\nPLAIN: /[^{{\\s](?s:.*)/\n"),
                false => format!("start: {mark}body\n"),
            }
        }
    };
    if is_free && format != CallFormat::Bare {
        lark.push_str("text: /(?s:.*)/\n");
    }
    let functions = tools.functions.iter().filter(|function| match &tools.choice {
        Choice::Named(name) => function.name == *name,
        _ => true,
    });
    let mut names = Vec::new();
    let mut bodies = String::new();
    for (index, function) in functions.enumerate() {
        let rule = format!("f{index}");
        match format {
            CallFormat::Xml => {
                let rules = xml::rules(&rule, function).map_err(|what| {
                    let name = &function.name;
                    let message = format!(
                        "`tools`: the parameters of `{name}` have {what}: this model writes each argument by itself, so it cannot be \
                         kept to that"
                    );
                    ApiError::invalid("tools", message)
                })?;
                bodies.push_str(&rules);
            }
            CallFormat::Tags | CallFormat::List | CallFormat::Bare => {
                let key = if format == CallFormat::Bare {
                    "parameters"
                } else {
                    "arguments"
                };
                let _ = writeln!(
                    bodies,
                    "{rule}: %json {}",
                    body(&function.name, key, &function.parameters)
                );
            }
        }
        names.push(rule);
    }
    let _ = writeln!(lark, "body: {}", names.join(" | "));
    if bodies.contains("argument ") {
        lark.push_str(xml::ARGUMENT);
    }
    Ok(lark + &bodies)
}

fn repeated(what: &str, most: usize) -> String {
    match most {
        0 => String::new(),
        most => format!("({what}){{0,{most}}}"),
    }
}

fn either(is_free: bool, called: &str) -> String {
    match is_free {
        true => format!("text | {called}"),
        false => called.to_owned(),
    }
}

/// The schema of a call.
fn body(name: &str, key: &str, parameters: &Value) -> Value {
    let mut parameters = parameters.clone();
    let mut schema = Map::new();
    // References start at the root of a schema.
    for definitions in ["$defs", "definitions"] {
        if let Some(moved) = parameters
            .as_object_mut()
            .and_then(|schema| schema.remove(definitions))
        {
            schema.insert(definitions.to_owned(), moved);
        }
    }
    for (keyword, value) in [
        ("type", json!("object")),
        ("required", json!(["name", key])),
        ("additionalProperties", json!(false)),
        ("properties", json!({"name": {"const": name}, key: parameters})),
    ] {
        schema.insert(keyword.to_owned(), value);
    }
    with_blanks(schema)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use multigraft_grammar::{Constraint, Grammars};
    use multigraft_text::Tokenizer;

    use super::*;
    use crate::http::fields::Fields;

    fn tools(choice: &Value, parallel: bool) -> Tools {
        let parameters = json!({"type": "object", "properties": {"city": {"$ref": "#/$defs/city"}},
            "required": ["city"], "additionalProperties": false, "$defs": {"city": {"enum": ["Oslo", "Rome"]}}});
        let tool =
            |name: &str| json!({"type": "function", "function": {"name": name, "parameters": parameters}});
        let body = json!({"tools": [tool("weather"), tool("time")], "tool_choice": choice,
            "parallel_tool_calls": parallel});
        let mut fields = Fields::from_json(body.to_string().as_bytes()).expect("JSON");
        Tools::take(&mut fields).expect("valid").expect("there")
    }

    /// Whether the grammar allows `text` as a whole answer.
    fn allows(tools: &Tools, format: CallFormat, text: &str) -> bool {
        allows_after(tools, format, None, text)
    }

    /// The same after the special token that calls may begin with, if there is one.
    fn allows_after(tools: &Tools, format: CallFormat, mark: Option<u32>, text: &str) -> bool {
        let folder = multigraft_testing::fixtures().join("tokenizer/smollm");
        let tokenizer = Arc::new(Tokenizer::from_folder(&folder).expect("a tokenizer"));
        let grammars = Grammars::new(Arc::clone(&tokenizer)).expect("grammars");
        let constraint = Constraint::Grammar(grammar(tools, format, mark).expect("plain parameters"));
        let mut grammar = grammars.compile(&constraint).expect("a grammar");
        for id in mark
            .into_iter()
            .chain(tokenizer.encode(text, false).expect("tokens"))
        {
            if grammar.accept(id).is_err() {
                return false;
            }
        }
        let allowed = grammar.allowed().expect("bounded");
        allowed.is_none_or(|allowed| tokenizer.eos().iter().any(|&eos| allowed.contains(eos)))
    }

    #[test]
    fn arguments_in_tags_are_texts_as_they_are_or_json() {
        let parameters = json!({"type": "object", "required": ["text", "count"], "properties": {
            "text": {"type": "string"}, "count": {"type": "integer", "minimum": 1}, "note": {"type": ["string", "null"]},
            "code": {"type": "string", "pattern": "^[a-z]+$"}}});
        let body = json!({"tools": [{"type": "function", "function": {"name": "f", "parameters": parameters}}],
            "tool_choice": "required"});
        let mut fields = Fields::from_json(body.to_string().as_bytes()).expect("JSON");
        let tools = Tools::take(&mut fields).expect("valid").expect("there");
        let call = |arguments: &[(&str, &str)]| {
            let arguments: String = arguments
                .iter()
                .map(|(name, value)| format!("<parameter={name}>\n{value}\n</parameter>\n"))
                .collect();
            format!("<tool_call>\n<function=f>\n{arguments}</function>\n</tool_call>")
        };
        let allowed = |arguments: &[(&str, &str)]| allows(&tools, CallFormat::Xml, &call(arguments));
        assert!(allowed(&[
            ("text", "any \"thing\"\n</function> <é"),
            ("count", "12")
        ]));
        assert!(allowed(&[
            ("text", ""),
            ("count", "1"),
            ("note", "null"),
            ("code", "\"abc\"")
        ]));
        for wrong in [
            &[("text", "x"), ("count", "0")][..],
            &[("text", "x"), ("count", "one")],
            &[("text", "x")],
            &[("count", "1")],
            &[("text", "x"), ("count", "1"), ("code", "\"ABC\"")],
            &[("text", "x"), ("count", "1"), ("code", "abc")],
            &[("text", "x"), ("count", "1"), ("other", "y")],
        ] {
            assert!(!allowed(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn answers_call_what_there_is_as_they_may_and_nothing_else() {
        let call = |name: &str, city: &str| {
            format!("{{\"name\": \"{name}\", \"arguments\": {{\"city\": \"{city}\"}}}}")
        };
        let tagged = |call: String| format!("<tool_call>\n{call}\n</tool_call>");
        let oslo = tagged(call("weather", "Oslo"));
        let two = format!("{oslo}\n{}", tagged(call("time", "Rome")));
        let (auto, required) = (tools(&json!("auto"), true), tools(&json!("required"), true));
        let named = tools(&json!({"type": "function", "function": {"name": "time"}}), true);
        let single = tools(&json!("auto"), false);
        let tags = |tools: &Tools, text: &str| allows(tools, CallFormat::Tags, text);
        assert!(tags(&auto, "It is cold in Oslo, a < b."));
        assert!(tags(&auto, &oslo) && tags(&auto, &two) && tags(&required, &two));
        assert!(tags(&auto, &format!("Let me see.\n{oslo}")));
        assert!(!tags(&auto, &tagged(call("weather", "Paris"))));
        assert!(!tags(&auto, &tagged(call("whether", "Oslo"))));
        assert!(!tags(&required, "It is cold in Oslo."));
        assert!(tags(&single, &oslo) && !tags(&single, &two));
        assert!(tags(&named, &tagged(call("time", "Rome"))) && !tags(&named, &oslo) && !tags(&named, &two));

        let list = format!(
            "[TOOL_CALLS] [{}, {}]",
            call("weather", "Oslo"),
            call("time", "Rome")
        );
        assert!(allows(&auto, CallFormat::List, &list) && allows(&required, CallFormat::List, &list));
        assert!(allows(&auto, CallFormat::List, "Just [text]."));
        assert!(!allows(&single, CallFormat::List, &list));

        let bare = "{\"name\": \"time\", \"parameters\": {\"city\": \"Rome\"}}";
        assert!(allows(&auto, CallFormat::Bare, bare) && allows(&required, CallFormat::Bare, bare));
        assert!(allows(&auto, CallFormat::Bare, "Text {as it} is."));
        assert!(!allows(&required, CallFormat::Bare, "Text."));
        let tags = |name: &str, city: &str| {
            format!(
                "<tool_call>\n<function={name}>\n<parameter=city>\n{city}\n</parameter>\n</function>\n</tool_call>"
            )
        };
        let xml = |tools: &Tools, text: &str| allows(tools, CallFormat::Xml, text);
        let two = format!("{}\n{}", tags("weather", "Oslo"), tags("time", "Rome"));
        assert!(xml(&auto, "It is cold in Oslo, a < b.") && !xml(&required, "It is cold."));
        assert!(xml(&auto, &format!("Let me see.\n{two}")) && xml(&required, &two) && !xml(&single, &two));
        assert!(!xml(&auto, &tags("weather", "Paris")) && !xml(&auto, &tags("whether", "Oslo")));
        assert!(xml(&named, &tags("time", "Rome")) && !xml(&named, &tags("weather", "Oslo")));

        // Some token that is special, as Llama 3's <|python_tag|> is; `bare` is allowed without it
        // too.
        let mark = Some(1);
        for tools in [&auto, &required] {
            assert!(allows_after(tools, CallFormat::Bare, mark, bare));
            assert!(!allows_after(tools, CallFormat::Bare, mark, "Text."));
        }
    }
}

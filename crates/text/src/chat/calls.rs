//! How a model writes tool calls, detected from its chat template.

use serde_json::{Map, Value, json};

use super::{ChatInput, ChatTemplate};

/// The format of tool calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFormat {
    /// `<tool_call>{"name": …, "arguments": …}</tool_call>`, once for each call: Hermes, Qwen and
    /// others.
    Tags,
    /// `[TOOL_CALLS] [{"name": …, "arguments": …}, …]`: Mistral.
    List,
    /// `{"name": …, "parameters": …}` as the whole answer: Llama 3.
    Bare,
    /// `<tool_call><function=NAME><parameter=KEY>…</parameter></function></tool_call>`, once for
    /// each call, with a line for each tag and value, and strings without quotes: Qwen3-Coder.
    Xml,
}

/// Names that no template contains by itself.
const TOOL: &str = "probed_tool";
const KEY: &str = "probed_key";

/// The format in which a template shows calls; `None` if it shows no tools or calls, or shows calls
/// in an unknown format.
pub(super) fn probe(template: &ChatTemplate) -> Option<CallFormat> {
    let tools = [
        json!({"type": "function", "function": {"name": TOOL, "description": "d",
        "parameters": {"type": "object", "properties": {}}}}),
    ];
    let user = json!({"role": "user", "content": "x"});
    let call = json!({"type": "function", "id": "abcdefghi", "function": {"name": "probed_call", "arguments": {KEY: 1}}});
    let called = json!({"role": "assistant", "content": "", "tool_calls": [call]});
    let nothing = Map::new();
    let render = |messages: &[Value]| {
        let input = ChatInput {
            messages,
            tools: Some(&tools),
            add_generation_prompt: false,
            bos: "",
            eos: "",
            extra: &nothing,
        };
        template.render(&input).ok()
    };
    let shown = render(std::slice::from_ref(&user))?;
    if !shown.contains(TOOL) {
        return None;
    }
    let shown = render(&[user, called])?;
    // The template's description of the tools may contain examples; the call itself comes last.
    let call = &shown[..shown.rfind(KEY)?];
    let name = call.rfind("probed_call")?;
    let before = &call[..name];
    let key = &call[name..];
    let in_tags = |before: &str| {
        let before = before.strip_suffix("<function=").map(str::trim_end);
        before.is_some_and(|before| before.ends_with("<tool_call>"))
    };
    if in_tags(before) && key.ends_with("<parameter=") {
        Some(CallFormat::Xml)
    } else if before.trim_end_matches(|c| c != '>').ends_with("<tool_call>") && key.contains("\"arguments\"")
    {
        Some(CallFormat::Tags)
    } else if before.contains("[TOOL_CALLS]") && key.contains("\"arguments\"") {
        Some(CallFormat::List)
    } else if key.contains("\"parameters\"") {
        Some(CallFormat::Bare)
    } else {
        None
    }
}

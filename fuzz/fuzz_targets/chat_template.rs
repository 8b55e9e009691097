//! Any bytes as a chat template: refused, or one that ends, in a prompt or an error, and whose
//! format of calls can be looked for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use multigraft_text::{ChatInput, ChatTemplate, TEMPLATE_FILES};
use serde_json::{Map, json};

/// Longer texts find nothing that shorter ones do not, later.
const LONGEST: usize = 8 << 10;

fuzz_target!(|bytes: &[u8]| {
    for name in TEMPLATE_FILES.into_iter().filter(|_| bytes.len() <= LONGEST) {
        let _ = ChatTemplate::from_file(name, bytes);
    }
    let Some(text) = std::str::from_utf8(bytes)
        .ok()
        .filter(|text| text.len() <= LONGEST)
    else {
        return;
    };
    let Ok(template) = ChatTemplate::new(text) else {
        return;
    };
    let _ = template.calls();
    let call = json!({"type": "function", "id": "abcdefghi", "function": {"name": "f", "arguments": {"k": [1, "x"]}}});
    let messages = [
        json!({"role": "system", "content": "s"}),
        json!({"role": "user", "content": [{"type": "text", "text": "u"}]}),
        json!({"role": "assistant", "content": null, "tool_calls": [call]}),
        json!({"role": "tool", "tool_call_id": "abcdefghi", "content": "1"}),
    ];
    let tools = [json!({"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}})];
    let _ = template.render(&ChatInput {
        messages: &messages,
        tools: Some(&tools),
        add_generation_prompt: true,
        bos: "<s>",
        eos: "</s>",
        extra: &Map::new(),
    });
});

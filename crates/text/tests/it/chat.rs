//! Chat templates against what `transformers` renders.

use std::fs;

use multigraft_text::{CallFormat, ChatInput, ChatTemplate, TextError};
use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Deserialize)]
struct Case {
    template: String,
    messages: Vec<Value>,
    tools: Option<Vec<Value>>,
    add_generation_prompt: bool,
    bos_token: String,
    eos_token: String,
    expected: Option<String>,
    error: Option<String>,
}

impl Case {
    fn render(&self) -> Result<String, TextError> {
        ChatTemplate::new(&self.template)?.render(&ChatInput {
            messages: &self.messages,
            tools: self.tools.as_deref(),
            add_generation_prompt: self.add_generation_prompt,
            bos: &self.bos_token,
            eos: &self.eos_token,
            extra: &Map::new(),
        })
    }
}

#[test]
fn templates_render_to_the_letter() {
    let (mut checked, mut failures) = (0, Vec::new());
    for entry in fs::read_dir(multigraft_testing::fixtures().join("chat")).unwrap() {
        let path = entry.unwrap().path();
        let case: Case = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let agrees = match (case.render(), &case.expected, &case.error) {
            (Ok(text), Some(expected), None) if text == *expected => true,
            (Err(TextError::TemplateRefused(message)), None, Some(expected)) if message == *expected => true,
            // Python's own errors read differently here, but are errors too.
            (Err(TextError::TemplateFailed(_)), None, Some(expected)) if expected.starts_with('\'') => true,
            (result, ..) => {
                failures.push(format!(
                    "{}:\n{result:#?}\nnot {:#?}{:#?}",
                    path.display(),
                    case.expected,
                    case.error
                ));
                false
            }
        };
        checked += usize::from(agrees);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(checked >= 50, "only {checked} cases");
}

#[test]
fn templates_say_how_calls_are_written() {
    let template = |name: &str| {
        let path = multigraft_testing::fixtures().join("chat").join(name);
        let case: Case = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        ChatTemplate::new(&case.template).unwrap().calls()
    };
    assert_eq!(template("qwen25-tools.json"), Some(CallFormat::Tags));
    assert_eq!(template("mistral-tools.json"), Some(CallFormat::List));
    assert_eq!(template("llama3-tools.json"), Some(CallFormat::Bare));
    assert_eq!(template("coder-tools.json"), Some(CallFormat::Xml));
    assert_eq!(template("smollm2-chat.json"), None);
    assert_eq!(template("gemma-chat.json"), None);
}

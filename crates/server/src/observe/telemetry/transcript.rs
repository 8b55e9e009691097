//! Prompts and answers in the log (`--log-prompts`).

use multigraft_engine::Event;
use tracing::Span;

/// The text of one answer, which is logged when the answer ends or its client disconnects.
#[derive(Debug)]
pub(crate) struct Transcript {
    model: String,
    /// The span of the request, to which log lines from the engine's thread belong too.
    span: Span,
    text: String,
}

impl Transcript {
    pub(super) fn new(model: &str) -> Self {
        Self {
            model: model.to_owned(),
            span: Span::current(),
            text: String::new(),
        }
    }

    /// Logs the text of the prompt.
    pub(super) fn prompt(&self, text: &str) {
        tracing::info!(parent: &self.span, model = self.model, text, "prompt");
    }

    pub(super) fn event(&mut self, event: &Event) {
        match event {
            Event::Token(token) => self.text.push_str(&token.text),
            Event::Finished(finish) => self.text.push_str(&finish.text),
            Event::Started { .. }
            | Event::Prompt(_)
            | Event::Embedding(_)
            | Event::Failed(_)
            | Event::Refused(_)
            | Event::Cancelled(_) => {}
        }
    }
}

impl Drop for Transcript {
    fn drop(&mut self) {
        tracing::info!(parent: &self.span, model = self.model, text = self.text, "answer");
    }
}

//! Prompts and answers in the log, where `--log-prompts` asks for them.

use multigraft_engine::Event;
use tracing::Span;

/// One answer as it is written down: when it ends, or when its client hangs up.
#[derive(Debug)]
pub(crate) struct Transcript {
    model: String,
    /// Its request's: lines from the engine's thread belong there too.
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

    /// The text that it answers.
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

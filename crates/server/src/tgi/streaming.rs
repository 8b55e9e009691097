//! `/generate_stream`: one event per token, the last with the whole text.

use std::sync::Arc;

use multigraft_engine::{Event, Finish, Token};
use multigraft_text::Tokenizer;

use super::types::{MadeBy, StreamDetails, StreamEvent, WireToken, finish_reason};
use crate::{
    generation::stream::{Chunks, StreamFormat},
    http::dialect::Dialect,
};

/// The answer as it comes.
///
/// A token's event cannot be sent while the token may turn out to be the last, since the last event
/// carries the whole text. That is known one step later, or at once if nothing can end the answer
/// yet.
pub(super) struct GenerateStream {
    pub tokenizer: Arc<Tokenizer>,
    pub made_by: MadeBy,
    /// Whether the last event has details.
    pub details: bool,
    /// How many alternatives events have.
    pub top_n_tokens: usize,
    /// How many alternatives tokens have.
    pub alternatives: usize,
    /// Whether tokens are drawn, so that the seed means something.
    pub draws: bool,
    /// Whether a text can end the answer.
    pub stop_strings: bool,
    pub max_tokens: usize,
    /// The text so far; at first the prompt, if it is to be returned.
    pub text: String,
    /// Tokens so far.
    pub count: usize,
    /// The token whose event is held back.
    pub held: Option<Token>,
}

impl GenerateStream {
    fn may_be_last(&self, token: &Token) -> bool {
        self.stop_strings
            || self.count >= self.max_tokens
            || token.special
            || self.tokenizer.eos().contains(&token.id)
    }

    fn event_of(&self, token: Token) -> StreamEvent {
        let count = self.top_n_tokens;
        let top_tokens = (count > 0).then(|| WireToken::top(&self.tokenizer, &token, count));
        let mut wire = WireToken::whole(&self.tokenizer, &token, self.alternatives);
        if !token.special {
            // Not the token's own text: what became certain with it, so that the texts add up.
            wire.text = token.text;
        }
        StreamEvent {
            index: self.count,
            token: wire,
            top_tokens,
            generated_text: None,
            details: None,
        }
    }

    fn last(&mut self, finish: &Finish) -> StreamEvent {
        self.text.push_str(&finish.text);
        let mut event = match self.held.take() {
            Some(token) => self.event_of(token),
            // Every answer has a token, and the last is held back: this is for an engine that
            // breaks that.
            None => StreamEvent {
                index: self.count,
                token: WireToken {
                    id: 0,
                    text: String::new(),
                    logprob: 0.0,
                    special: true,
                    alternative_tokens: None,
                    skipped: false,
                },
                top_tokens: None,
                generated_text: None,
                details: None,
            },
        };
        event.token.text.push_str(&finish.text);
        event.generated_text = Some(std::mem::take(&mut self.text));
        event.details = self.details.then(|| StreamDetails {
            finish_reason: finish_reason(finish),
            generated_tokens: finish.completion_tokens,
            seed: self.draws.then_some(finish.seed),
            input_length: finish.prompt_tokens,
            prompt_tokens: finish.prompt_tokens,
            made_by: self.made_by.clone(),
        });
        event
    }
}

impl StreamFormat for GenerateStream {
    const DIALECT: Dialect = Dialect::Tgi;

    fn open(&mut self, _: &mut Chunks) {}

    fn event(&mut self, _: usize, event: Event, chunks: &mut Chunks) {
        match event {
            Event::Token(token) => {
                if let Some(held) = self.held.take() {
                    chunks.push(&self.event_of(held));
                }
                self.count += 1;
                self.text.push_str(&token.text);
                if self.may_be_last(&token) {
                    self.held = Some(token);
                } else {
                    chunks.push(&self.event_of(token));
                }
            }
            Event::Finished(finish) => {
                let last = self.last(&finish);
                chunks.push(&last);
            }
            _ => {}
        }
    }

    fn close(&mut self, _: &mut Chunks) {}
}

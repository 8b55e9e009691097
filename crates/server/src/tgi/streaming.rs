//! The stream of `/generate_stream`: one event per token; the last event has the whole text.

use std::sync::Arc;

use multigraft_engine::{Event, Finish, Token};
use multigraft_text::Tokenizer;

use super::types::{AnsweringAdapter, StreamDetails, StreamEvent, WireToken, finish_reason};
use crate::{
    generation::stream::{Chunks, StreamFormat},
    http::dialect::Dialect,
};

/// The format of the stream.
///
/// The event of a token is held back while the token may be the last, because the last event has
/// the whole text. That is known one step later, or at once if nothing can end the answer yet.
pub(super) struct GenerateStream {
    pub tokenizer: Arc<Tokenizer>,
    pub adapter: AnsweringAdapter,
    /// Whether the last event has details.
    pub details: bool,
    /// The number of alternatives in each event.
    pub top_n_tokens: usize,
    /// The number of alternatives in each token.
    pub alternatives: usize,
    /// Whether tokens are sampled, so that events have the seed.
    pub draws: bool,
    /// Whether the request has stop strings.
    pub stop_strings: bool,
    pub max_tokens: usize,
    /// The text so far. It begins with the prompt if `return_full_text` is set.
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
            // The text that became certain with the token, not the token's own text, so that the
            // texts add up to the answer.
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
            // Not reached: every answer has a token, and the last one is held back. Kept for an
            // engine that breaks this rule.
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
            adapter: self.adapter.clone(),
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

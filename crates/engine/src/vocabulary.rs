//! What the engine must know of the tokenizer, as small traits: tests bring their own.

use std::sync::Arc;

use multigraft_text::{Detokenizer, Tokenizer};

/// From tokens to text.
pub(crate) trait Vocabulary: Send + Sync {
    /// A decoder for one output, which goes on from a prompt.
    fn decoder(&self) -> Box<dyn Decoder>;
    /// The text of one token on its own.
    fn token_text(&self, id: u32) -> String;
    /// Whether it is a special token, which has no text in an output.
    fn is_special(&self, id: u32) -> bool;
    /// The tokens that end a turn.
    fn eos(&self) -> &[u32];
}

/// Turns tokens into text as they come.
pub(crate) trait Decoder {
    /// The text that is complete with this token; never half a character.
    fn push(&mut self, id: u32) -> String;
    /// What is left at the end.
    fn finish(&mut self) -> String;
}

impl Vocabulary for Arc<Tokenizer> {
    fn decoder(&self) -> Box<dyn Decoder> {
        Box::new(Detokenizer::continuing(Self::clone(self), true))
    }

    fn token_text(&self, id: u32) -> String {
        Tokenizer::token_text(self, id)
    }

    fn is_special(&self, id: u32) -> bool {
        Tokenizer::is_special(self, id)
    }

    fn eos(&self) -> &[u32] {
        Tokenizer::eos(self)
    }
}

impl Decoder for Detokenizer {
    fn push(&mut self, id: u32) -> String {
        Self::push(self, id)
    }

    fn finish(&mut self) -> String {
        Self::finish(self)
    }
}

//! Log-probabilities in the two shapes of OpenAI's API.

use multigraft_engine::{PromptToken, Token};
use multigraft_text::Tokenizer;
use serde::Serialize;
use serde_json::Map;

/// JSON has no infinities; this stands for "never", as in OpenAI's API.
const NEVER: f32 = -9999.0;

/// Chat: the tokens of an answer, each with its alternatives.
#[derive(Debug, Serialize)]
pub(super) struct ChatLogprobs {
    content: Vec<ChatToken>,
    refusal: Option<()>,
}

#[derive(Debug, Serialize)]
struct ChatToken {
    #[serde(flatten)]
    scored: Scored,
    top_logprobs: Vec<Scored>,
}

#[derive(Debug, Serialize)]
struct Scored {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
}

impl Scored {
    fn new(tokenizer: &Tokenizer, id: u32, logprob: f32) -> Self {
        Self {
            token: tokenizer.token_text(id),
            // The bytes tell the parts of a character apart, whose texts are all the replacement character.
            bytes: tokenizer.token_bytes(id).to_vec(),
            logprob: finite(logprob),
        }
    }
}

impl ChatLogprobs {
    pub(super) fn new(tokenizer: &Tokenizer, tokens: &[Token]) -> Self {
        let content = tokens
            .iter()
            .map(|token| ChatToken {
                scored: Scored::new(tokenizer, token.id, token.logprob.unwrap_or(NEVER)),
                top_logprobs: token
                    .top
                    .iter()
                    .map(|&(id, logprob)| Scored::new(tokenizer, id, logprob))
                    .collect(),
            })
            .collect();
        Self {
            content,
            refusal: None,
        }
    }
}

/// Completions: parallel lists over the tokens.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Logprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<Option<f32>>,
    /// The alternatives' texts and log-probabilities; the token itself is always among them.
    top_logprobs: Vec<Option<Map<String, serde_json::Value>>>,
    /// Where each token begins in the text, in characters.
    text_offset: Vec<usize>,
}

/// Builds [`Logprobs`], in one piece or chunk by chunk.
#[derive(Debug, Default)]
pub(super) struct LogprobsWriter {
    offset: usize,
}

impl LogprobsWriter {
    pub(super) fn prompt(&mut self, tokenizer: &Tokenizer, tokens: &[PromptToken], into: &mut Logprobs) {
        for token in tokens {
            self.push(tokenizer, token.id, token.logprob, &token.top, into);
        }
    }

    pub(super) fn tokens(&mut self, tokenizer: &Tokenizer, tokens: &[Token], into: &mut Logprobs) {
        for token in tokens {
            self.push(tokenizer, token.id, token.logprob, &token.top, into);
        }
    }

    fn push(
        &mut self,
        tokenizer: &Tokenizer,
        id: u32,
        logprob: Option<f32>,
        top: &[(u32, f32)],
        into: &mut Logprobs,
    ) {
        let text = tokenizer.token_text(id);
        let characters = text.chars().count();
        into.top_logprobs.push(logprob.map(|logprob| {
            let mut alternatives = Map::new();
            // Different tokens can have the same text (parts of characters do): the likeliest stays.
            for &(id, logprob) in top {
                alternatives
                    .entry(tokenizer.token_text(id))
                    .or_insert_with(|| finite(logprob).into());
            }
            alternatives
                .entry(text.clone())
                .or_insert_with(|| finite(logprob).into());
            alternatives
        }));
        into.tokens.push(text);
        into.token_logprobs.push(logprob.map(finite));
        into.text_offset.push(self.offset);
        self.offset += characters;
    }
}

fn finite(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob } else { NEVER }
}

//! Log-probabilities in the two shapes of OpenAI's API, and prompt log-probabilities in vLLM's
//! shape.

use std::sync::Arc;

use multigraft_engine::{PromptToken, Token};
use multigraft_text::Tokenizer;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};

/// JSON has no infinities; this stands for "never", as in OpenAI's API.
const NEVER: f32 = -9999.0;

/// How log-probabilities name tokens: by their texts, or by their ids, because different tokens can
/// have the same text.
#[derive(Clone, Debug)]
pub(super) struct Names {
    pub(super) tokenizer: Arc<Tokenizer>,
    pub(super) by_id: bool,
}

impl Names {
    fn of(&self, id: u32) -> String {
        match self.by_id {
            true => format!("token_id:{id}"),
            false => self.tokenizer.token_text(id),
        }
    }
}

/// vLLM's `prompt_logprobs`: for every token but the first, a map from ids to log-probability, rank
/// and text. It has the token of the prompt first, then the `top` most likely tokens in its place.
pub(super) fn of_prompt(
    tokenizer: &Tokenizer,
    prompt: &[PromptToken],
    top: usize,
) -> Vec<Option<Map<String, Value>>> {
    let entry = |id: u32, logprob: f32, rank: usize| {
        let value =
            json!({"logprob": finite(logprob), "rank": rank, "decoded_token": tokenizer.token_text(id)});
        (id.to_string(), value)
    };
    let of = |token: &PromptToken| {
        let mut map: Map<String, Value> = [entry(token.id, token.logprob?, token.rank?)]
            .into_iter()
            .collect();
        let alternatives = token.top.iter().take(top).zip(1..);
        map.extend(alternatives.map(|(&(id, logprob), rank)| entry(id, logprob, rank)));
        Some(map)
    };
    prompt.iter().map(of).collect()
}

/// Chat: the tokens of an answer, each with its alternatives.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ChatLogprobs {
    content: Vec<ChatToken>,
    refusal: Option<()>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ChatToken {
    #[serde(flatten)]
    scored: Scored,
    top_logprobs: Vec<Scored>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Scored {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
}

impl Scored {
    fn new(names: &Names, id: u32, logprob: f32) -> Self {
        Self {
            token: names.of(id),
            // The bytes distinguish the parts of a character, whose texts are all the replacement
            // character.
            bytes: names.tokenizer.token_bytes(id).to_vec(),
            logprob: finite(logprob),
        }
    }
}

impl ChatLogprobs {
    pub(super) fn new(names: &Names, tokens: &[Token]) -> Self {
        let content = tokens
            .iter()
            .map(|token| ChatToken {
                scored: Scored::new(names, token.id, token.logprob.unwrap_or(NEVER)),
                top_logprobs: token
                    .top
                    .iter()
                    .map(|&(id, logprob)| Scored::new(names, id, logprob))
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
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub(crate) struct Logprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<Option<f32>>,
    /// The alternatives' texts and log-probabilities; the token itself is always among them.
    top_logprobs: Vec<Option<Map<String, serde_json::Value>>>,
    /// Where each token begins in the text, in characters.
    text_offset: Vec<usize>,
}

/// Builds [`Logprobs`], for a whole answer or chunk by chunk.
#[derive(Debug, Default)]
pub(super) struct LogprobsWriter {
    offset: usize,
}

impl LogprobsWriter {
    /// Adds the prompt's tokens, each with the `top` most likely tokens.
    pub(super) fn prompt(&mut self, names: &Names, tokens: &[PromptToken], top: usize, into: &mut Logprobs) {
        for token in tokens {
            let top = &token.top[..token.top.len().min(top)];
            self.push(names, token.id, token.logprob, top, into);
        }
    }

    pub(super) fn tokens(&mut self, names: &Names, tokens: &[Token], into: &mut Logprobs) {
        for token in tokens {
            self.push(names, token.id, token.logprob, &token.top, into);
        }
    }

    fn push(
        &mut self,
        names: &Names,
        id: u32,
        logprob: Option<f32>,
        top: &[(u32, f32)],
        into: &mut Logprobs,
    ) {
        let name = names.of(id);
        let characters = names.tokenizer.token_text(id).chars().count();
        into.top_logprobs.push(logprob.map(|logprob| {
            let mut alternatives = Map::new();
            // Different tokens can have the same text (parts of characters do): the most likely one
            // stays.
            for &(id, logprob) in top {
                alternatives
                    .entry(names.of(id))
                    .or_insert_with(|| finite(logprob).into());
            }
            alternatives
                .entry(name.clone())
                .or_insert_with(|| finite(logprob).into());
            alternatives
        }));
        into.tokens.push(name);
        into.token_logprobs.push(logprob.map(finite));
        into.text_offset.push(self.offset);
        self.offset += characters;
    }
}

fn finite(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob } else { NEVER }
}

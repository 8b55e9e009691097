//! The shapes of TGI's answers.

use multigraft_engine::{Finish, FinishReason, PromptToken, Token};
use multigraft_text::Tokenizer;
use serde::Serialize;

use crate::admission::Served;

/// JSON has no infinities; this stands for "never".
const NEVER: f32 = -9999.0;

/// An answer.
#[derive(Debug, Serialize)]
pub(super) struct Answered {
    pub generated_text: String,
    pub details: Option<Details>,
}

/// How an answer came about.
#[derive(Debug, Serialize)]
pub(super) struct Details {
    pub finish_reason: &'static str,
    /// LoRAX's clients ask for it.
    pub prompt_tokens: usize,
    pub generated_tokens: usize,
    /// The seed of the draws; null if nothing was drawn.
    pub seed: Option<u64>,
    pub prefill: Vec<PrefillToken>,
    pub tokens: Vec<WireToken>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_tokens: Option<Vec<Vec<WireToken>>>,
    #[serde(flatten)]
    pub made_by: MadeBy,
}

/// What the last event of a stream says of the whole.
#[derive(Debug, Serialize)]
pub(super) struct StreamDetails {
    pub finish_reason: &'static str,
    pub generated_tokens: usize,
    pub seed: Option<u64>,
    pub input_length: usize,
    /// The same, as LoRAX calls it.
    pub prompt_tokens: usize,
    #[serde(flatten)]
    pub made_by: MadeBy,
}

/// Which adapter made the answer: more than TGI says.
#[derive(Clone, Debug, Serialize)]
pub(super) struct MadeBy {
    pub adapter_id: String,
    pub adapter_hash: String,
    /// What the adapter's updates were multiplied by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter_scale: Option<f32>,
}

impl MadeBy {
    pub(super) fn new(served: &Served) -> Self {
        Self {
            adapter_id: served.name.clone(),
            adapter_hash: served.hash.clone(),
            adapter_scale: served.scale,
        }
    }
}

/// One event of a stream.
#[derive(Debug, Serialize)]
pub(super) struct StreamEvent {
    /// Counted from 1.
    pub index: usize,
    pub token: WireToken,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_tokens: Option<Vec<WireToken>>,
    pub generated_text: Option<String>,
    pub details: Option<StreamDetails>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct WireToken {
    pub id: u32,
    pub text: String,
    pub logprob: f32,
    pub special: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct PrefillToken {
    pub id: u32,
    pub text: String,
    /// Null for the first token.
    pub logprob: Option<f32>,
}

impl PrefillToken {
    pub(super) fn new(token: PromptToken) -> Self {
        Self {
            id: token.id,
            text: token.text,
            logprob: token.logprob.map(finite),
        }
    }
}

impl WireToken {
    /// The token under its own text, which for a part of a character is the replacement character.
    pub(super) fn whole(tokenizer: &Tokenizer, token: &Token) -> Self {
        Self::alternative(tokenizer, token.id, token.logprob.unwrap_or(NEVER))
    }

    /// A token that could have been generated.
    pub(super) fn alternative(tokenizer: &Tokenizer, id: u32, logprob: f32) -> Self {
        Self {
            id,
            text: tokenizer.token_text(id),
            logprob: finite(logprob),
            special: tokenizer.is_special(id),
        }
    }

    /// The alternatives to a generated token.
    pub(super) fn top(tokenizer: &Tokenizer, token: &Token) -> Vec<Self> {
        token
            .top
            .iter()
            .map(|&(id, logprob)| Self::alternative(tokenizer, id, logprob))
            .collect()
    }
}

pub(super) fn finish_reason(finish: &Finish) -> &'static str {
    match finish.reason {
        FinishReason::Eos(_) | FinishReason::Complete => "eos_token",
        FinishReason::StopToken(_) | FinishReason::StopString(_) => "stop_sequence",
        FinishReason::Length => "length",
    }
}

fn finite(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob } else { NEVER }
}

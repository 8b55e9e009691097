//! The answers of TGI's dialect.

use multigraft_engine::{Finish, FinishReason, PromptToken, Token};
use multigraft_text::Tokenizer;
use schemars::JsonSchema;
use serde::Serialize;

use crate::contract::model::ResolvedModel;

/// JSON has no infinities; this stands for "never".
const NEVER: f32 = -9999.0;

/// An answer.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Answered {
    pub generated_text: String,
    pub details: Option<Details>,
}

/// The details of an answer.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Details {
    #[serde(flatten)]
    pub sequence: Sequence,
    /// A field that LoRAX's clients expect.
    pub prompt_tokens: usize,
    /// A field that LoRAX's clients expect: tokens of a draft model. There is none, so it is 0.
    pub skipped_tokens: usize,
    /// The other answers of `best_of`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best_of_sequences: Option<Vec<BestOf>>,
    #[serde(flatten)]
    pub adapter: AnsweringAdapter,
}

/// One generated sequence.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Sequence {
    pub finish_reason: &'static str,
    pub generated_tokens: usize,
    /// The seed of sampling; null if nothing was sampled.
    pub seed: Option<u64>,
    pub prefill: Vec<PrefillToken>,
    pub tokens: Vec<WireToken>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_tokens: Option<Vec<Vec<WireToken>>>,
}

/// An answer of `best_of` that was not the best.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct BestOf {
    pub generated_text: String,
    #[serde(flatten)]
    pub sequence: Sequence,
}

/// The details in the last event of a stream.
#[derive(Debug, Serialize)]
pub(super) struct StreamDetails {
    pub finish_reason: &'static str,
    pub generated_tokens: usize,
    pub seed: Option<u64>,
    pub input_length: usize,
    /// The same, as LoRAX calls it.
    pub prompt_tokens: usize,
    #[serde(flatten)]
    pub adapter: AnsweringAdapter,
}

/// The adapter that made the answer: fields that TGI does not have.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct AnsweringAdapter {
    pub adapter_id: String,
    pub adapter_hash: String,
    /// What the adapter's updates were multiplied by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter_scale: Option<f32>,
}

impl AnsweringAdapter {
    pub(super) fn new(model: &ResolvedModel) -> Self {
        Self {
            adapter_id: model.name.clone(),
            adapter_hash: model.hash.clone(),
            adapter_scale: model.scale,
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

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct WireToken {
    pub id: u32,
    pub text: String,
    pub logprob: f32,
    pub special: bool,
    /// LoRAX's alternatives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alternative_tokens: Option<Vec<Alternative>>,
    /// Whether a draft model made the token. There is none, but LoRAX's clients expect the field.
    pub skipped: bool,
}

/// An alternative to a token, in LoRAX's form.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct Alternative {
    pub id: u32,
    pub text: String,
    pub logprob: f32,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct PrefillToken {
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
    /// The token with its own text and so many of its alternatives. The text of a part of a
    /// character is the replacement character.
    pub(super) fn whole(tokenizer: &Tokenizer, token: &Token, alternatives: usize) -> Self {
        let top = token.top.iter().take(alternatives);
        let top = top.map(|&(id, logprob)| Alternative {
            id,
            text: tokenizer.token_text(id),
            logprob: finite(logprob),
        });
        Self {
            alternative_tokens: (alternatives > 0).then(|| top.collect()),
            ..Self::alternative(tokenizer, token.id, token.logprob.unwrap_or(NEVER))
        }
    }

    /// An alternative to a generated token.
    pub(super) fn alternative(tokenizer: &Tokenizer, id: u32, logprob: f32) -> Self {
        Self {
            id,
            text: tokenizer.token_text(id),
            logprob: finite(logprob),
            special: tokenizer.is_special(id),
            alternative_tokens: None,
            skipped: false,
        }
    }

    /// So many alternatives to a generated token.
    pub(super) fn top(tokenizer: &Tokenizer, token: &Token, count: usize) -> Vec<Self> {
        token
            .top
            .iter()
            .take(count)
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

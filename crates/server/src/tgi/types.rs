//! The shapes of TGI's answers.

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

/// How an answer came about.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Details {
    #[serde(flatten)]
    pub sequence: Sequence,
    /// LoRAX's clients ask for it.
    pub prompt_tokens: usize,
    /// As are these: how many tokens a draft model has made, which there is none of.
    pub skipped_tokens: usize,
    /// The answers that were not the best, if several were made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best_of_sequences: Option<Vec<BestOf>>,
    #[serde(flatten)]
    pub made_by: MadeBy,
}

/// One generated sequence.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Sequence {
    pub finish_reason: &'static str,
    pub generated_tokens: usize,
    /// The seed of the draws; null if nothing was drawn.
    pub seed: Option<u64>,
    pub prefill: Vec<PrefillToken>,
    pub tokens: Vec<WireToken>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_tokens: Option<Vec<Vec<WireToken>>>,
}

/// An answer that was not the best.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct BestOf {
    pub generated_text: String,
    #[serde(flatten)]
    pub sequence: Sequence,
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
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct MadeBy {
    pub adapter_id: String,
    pub adapter_hash: String,
    /// What the adapter's updates were multiplied by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter_scale: Option<f32>,
}

impl MadeBy {
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
    /// LoRAX's way to give alternatives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alternative_tokens: Option<Vec<Alternative>>,
    /// Whether a draft model has made it, which there is none of; LoRAX's clients ask for it.
    pub skipped: bool,
}

/// A token that could have been generated, as LoRAX has it.
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
    /// The token under its own text, which for a part of a character is the replacement character,
    /// with so many of its alternatives.
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

    /// A token that could have been generated.
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

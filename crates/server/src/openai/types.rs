//! The parts of answers that both kinds of completion have.

use std::time::SystemTime;

use multigraft_engine::{Finish, FinishReason};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    contract::model::ResolvedModel,
    http::id::{seconds, unique_id},
};

/// The tokens of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Usage {
    pub prompt_tokens: usize,
    pub completion_tokens: usize,
    pub total_tokens: usize,
    /// Absent in the middle of a stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_tokens_details: Option<PromptTokensDetails>,
}

/// Details of the prompts' tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct PromptTokensDetails {
    /// Tokens that came from the prefix cache.
    pub cached_tokens: usize,
}

impl Usage {
    /// Adds a finished choice. `first` is whether it is the first of its prompt, which counts once.
    pub(super) fn add(&mut self, finish: &Finish, first: bool) {
        if first {
            self.prompt_tokens += finish.prompt_tokens;
            let details = self.prompt_tokens_details.get_or_insert_default();
            details.cached_tokens += finish.cached_tokens;
        }
        self.completion_tokens += finish.completion_tokens;
        self.total_tokens = self.prompt_tokens + self.completion_tokens;
    }
}

/// The usage of a stream.
#[derive(Debug)]
pub(super) struct StreamUsage {
    /// The usage of the choices that have finished.
    finished: Usage,
    /// The usage so far, if every chunk has it.
    running: Option<Usage>,
}

impl StreamUsage {
    /// The usage of a stream whose prompts have so many tokens together.
    pub(super) fn new(prompt_tokens: usize, continuous: bool) -> Self {
        let running = Usage {
            prompt_tokens,
            total_tokens: prompt_tokens,
            ..Usage::default()
        };
        Self {
            finished: Usage::default(),
            running: continuous.then_some(running),
        }
    }

    /// A token was generated.
    pub(super) fn token(&mut self) {
        if let Some(running) = &mut self.running {
            running.completion_tokens += 1;
            running.total_tokens += 1;
        }
    }

    /// A choice has finished. `first` is whether it is the first of its prompt.
    pub(super) fn finish(&mut self, finish: &Finish, first: bool) {
        self.finished.add(finish, first);
    }

    /// The `usage` of a chunk: null, or the usage so far.
    pub(super) fn so_far(&self) -> Option<Usage> {
        self.running
    }

    /// The usage of the extra last chunk.
    pub(super) fn all(&self) -> Usage {
        self.finished
    }
}

/// The fields at the top of every answer and chunk.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct Head {
    pub id: String,
    pub object: &'static str,
    pub created: u64,
    pub model: String,
    pub system_fingerprint: String,
}

impl Head {
    pub(super) fn new(prefix: &str, object: &'static str, model: &ResolvedModel) -> Self {
        Self {
            id: unique_id(&format!("{prefix}-")),
            object,
            created: seconds(SystemTime::now()),
            model: model.name.clone(),
            system_fingerprint: model.fingerprint(),
        }
    }
}

/// An answer or a chunk of a stream: its head, its choices, its usage.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Body<'a, C> {
    #[serde(flatten)]
    pub head: &'a Head,
    pub choices: Vec<C>,
    /// In a stream with usage, every chunk has null or the usage so far, and an extra last chunk
    /// has the usage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Option<Usage>>,
    /// vLLM's `prompt_logprobs` of a chat.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_logprobs: Option<Vec<Option<Map<String, Value>>>>,
    /// vLLM's `prompt_token_ids` of a chat.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_token_ids: Option<Vec<u32>>,
}

impl<'a, C> Body<'a, C> {
    pub(super) fn new(head: &'a Head, choices: Vec<C>, usage: Option<Option<Usage>>) -> Self {
        Self {
            head,
            choices,
            usage,
            prompt_logprobs: None,
            prompt_token_ids: None,
        }
    }
}

/// vLLM's `stop_reason`: the `stop` string or stop token that ended an answer.
#[derive(Debug, Serialize, PartialEq, JsonSchema)]
#[serde(untagged)]
pub(crate) enum StopReason {
    Token(u32),
    String(String),
}

impl StopReason {
    pub(super) fn of(reason: &FinishReason) -> Option<Self> {
        match reason {
            FinishReason::StopToken(id) => Some(Self::Token(*id)),
            FinishReason::StopString(string) => Some(Self::String(string.clone())),
            FinishReason::Eos(_) | FinishReason::Complete | FinishReason::Length => None,
        }
    }
}

pub(super) fn finish_reason(reason: &FinishReason) -> &'static str {
    match reason {
        FinishReason::Length => "length",
        FinishReason::Eos(_)
        | FinishReason::StopToken(_)
        | FinishReason::StopString(_)
        | FinishReason::Complete => "stop",
    }
}

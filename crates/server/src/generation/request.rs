//! A request to generate, whatever its dialect: from here on there is one path to the engine.

use std::sync::Arc;

use multigraft_engine::{Request, Sampling, Stop, Tenant};
use multigraft_text::ChatTemplate;

use super::{
    answers::Answers,
    chat::{
        conversation::Conversation,
        tools::{self, Calling, Tools},
    },
    choice::ModelChoice,
    defaults::Defaults,
    tokens::encode,
    truncation::Truncation,
};
use crate::{
    caller::session::Session,
    contract::model::ResolvedModel,
    http::{dialect::Dialect, error::ApiError},
    state::grammars::Constrained,
};

/// A request to generate.
#[derive(Debug)]
pub(crate) struct GenerationRequest {
    /// The model that is to answer.
    pub(crate) choice: ModelChoice,
    /// What the answers continue.
    pub(crate) input: Input,
    /// How tokens are chosen. With a seed, answer `i` to a prompt has the seed plus `i`.
    pub(crate) sampling: Sampling,
    /// What ends an answer.
    pub(crate) stop: Stop,
    /// What an answer must be.
    pub(crate) constrained: Option<Constrained>,
    /// The most tokens of an answer; `None` is `default_max_tokens`, or fewer where the context
    /// ends before.
    pub(crate) max_tokens: Option<usize>,
    /// The most tokens of an answer if the request does not say.
    pub(crate) default_max_tokens: usize,
    /// What happens if an answer would have no tokens.
    pub(crate) without_tokens: WithoutTokens,
    /// How prompts that are too long are truncated, if at all.
    pub(crate) truncation: Option<Truncation>,
    /// Answers to each prompt.
    pub(crate) answers: usize,
    /// Whether the answers are streamed: then each has the log-probabilities of its prompt, else
    /// only the first has them.
    pub(crate) stream: bool,
    /// Alternatives to each token of an answer; `None` is no log-probabilities at all.
    pub(crate) logprobs: Option<usize>,
    /// The same for the tokens of prompts.
    pub(crate) prompt_logprobs: Option<usize>,
    /// Whether special tokens are in the text of answers.
    pub(crate) show_special: bool,
    /// The priority among the waiting requests of one share; the lowest number starts first.
    pub(crate) priority: i64,
    /// The partition of the prefix cache.
    pub(crate) tenant: Option<Tenant>,
}

/// Decides about an answer that would have no tokens, by the length of its prompt and the
/// `max_tokens` of the request: returns another maximum, or an error.
pub(crate) type WithoutTokens = fn(&Session, usize, Option<usize>) -> Result<usize, ApiError>;

/// The input that answers continue.
#[derive(Debug)]
pub(crate) enum Input {
    /// The tokens of each prompt.
    Tokens(Vec<Vec<u32>>),
    /// A text. The tokenizer's own special tokens (BOS) are added if `add_special`.
    Text {
        /// The field that holds the text, for errors.
        field: &'static str,
        text: String,
        add_special: bool,
    },
    /// A conversation.
    Chat(Box<Chat>),
}

/// A conversation, which the model's chat template turns into a text.
#[derive(Debug)]
pub(crate) struct Chat {
    /// The field that holds the conversation, for errors.
    pub(crate) field: &'static str,
    pub(crate) conversation: Conversation,
    pub(crate) tools: Option<Tools>,
    /// The defaults of the adapter, which may have a template.
    pub(crate) defaults: Defaults,
    /// Whether the tokenizer's own special tokens are added to the template's.
    pub(crate) add_special: bool,
    /// The error if the model has no chat template.
    pub(crate) no_template: ApiError,
}

/// Answers that are being generated.
pub(crate) struct Generation {
    pub(crate) answers: Answers,
    pub(crate) model: ResolvedModel,
    /// The tokens of the prompts, after truncation.
    pub(crate) prompts: Vec<Vec<u32>>,
    /// The tools that answers may call.
    pub(crate) calling: Option<Calling>,
    /// The most tokens of an answer to the last prompt.
    pub(crate) max_tokens: usize,
}

impl Chat {
    /// Renders the text, and says which tools answers may call. `adapter_template` is the template
    /// in the adapter's folder.
    pub(crate) fn text(
        self,
        state: &Session,
        adapter_template: Option<&Arc<ChatTemplate>>,
    ) -> Result<(String, Option<Calling>), ApiError> {
        let template = self
            .defaults
            .template(adapter_template, state)?
            .ok_or(self.no_template)?;
        let text = self
            .conversation
            .templated(&template, self.tools.as_ref(), state.tokenizer())?;
        let calling = self.tools.map(|tools| Calling {
            format: tools::format_of(&template),
            tools,
        });
        Ok((text, calling))
    }
}

impl GenerationRequest {
    /// Waits for the adapter, tokenises the prompts, and submits a request to the engine for each
    /// answer.
    pub(crate) async fn begin(&mut self, state: &Session, dialect: Dialect) -> Result<Generation, ApiError> {
        // A conversation's grammar is compiled once its model is reserved: a tool call depends on
        // the template, and a request over its limits must not cost a compilation.
        let mut constrained = self.constrained.take();
        let mut grammar = None;
        if !matches!(self.input, Input::Chat(_)) {
            grammar = state.constraints().compile(constrained.take()).await?;
        }
        let mut reservation = state.reserve(&self.choice).await?;
        let mut calling = None;
        let mut prompts = match std::mem::replace(&mut self.input, Input::Tokens(Vec::new())) {
            Input::Tokens(prompts) => prompts,
            Input::Text {
                field,
                text,
                add_special,
            } => vec![encode(state.tokenizer(), field, &text, add_special).await?],
            Input::Chat(chat) => {
                let (field, add_special) = (chat.field, chat.add_special);
                let (text, tools) = chat.text(state, reservation.template.as_ref())?;
                // With a constraint, no part of an answer is a tool call, whatever it looks like.
                calling = tools.filter(|_| constrained.is_none());
                if let Some(calling) = &calling {
                    constrained = Some(calling.constrained(state.tokenizer())?);
                }
                grammar = state.constraints().compile(constrained.take()).await?;
                vec![encode(state.tokenizer(), field, &text, add_special).await?]
            }
        };
        let limits = state.engine().limits();
        let mut max_tokens = 0;
        let mut requests = Vec::with_capacity(prompts.len() * self.answers);
        for prompt in &mut prompts {
            if let Some(truncation) = self.truncation {
                let room = limits.room_after(self.max_tokens.unwrap_or(1));
                truncation.apply(prompt, room);
            }
            let room = limits.room_after(prompt.len());
            max_tokens = self
                .max_tokens
                .unwrap_or_else(|| room.min(self.default_max_tokens));
            if max_tokens == 0 {
                max_tokens = (self.without_tokens)(state, prompt.len(), self.max_tokens)?;
            }
            // Checked before the prompt is copied for each answer.
            state.check_room(prompt.len(), max_tokens, dialect)?;
            requests.extend((0..self.answers).map(|index| Request {
                adapter: reservation.adapter.clone(),
                sampling: seeded(&self.sampling, index),
                stop: self.stop.clone(),
                grammar: grammar.clone(),
                logprobs: self.logprobs,
                // All answers have the same log-probabilities of the prompt.
                prompt_logprobs: self.prompt_logprobs.filter(|_| self.stream || index == 0),
                show_special: self.show_special,
                priority: self.priority,
                tenant: self.tenant,
                ..Request::new(prompt.clone(), max_tokens)
            }));
        }
        let answers = state.submit(requests, &mut reservation, dialect)?;
        Ok(Generation {
            answers,
            model: reservation.model,
            prompts,
            calling,
            max_tokens,
        })
    }
}

/// The sampling of answer `index` to a prompt: with a seed, each has its own.
fn seeded(sampling: &Sampling, index: usize) -> Sampling {
    Sampling {
        seed: sampling.seed.map(|seed| seed.wrapping_add(index as u64)),
        ..sampling.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_with_a_seed_differ_and_repeat() {
        let sampling = Sampling {
            seed: Some(u64::MAX),
            ..Sampling::default()
        };
        assert_eq!(seeded(&sampling, 0).seed, Some(u64::MAX));
        assert_eq!(seeded(&sampling, 1).seed, Some(0));
    }
}

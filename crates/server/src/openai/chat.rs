//! `POST /v1/chat/completions`.

use std::sync::Arc;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use multigraft_engine::{Event, Request};
use multigraft_text::{ChatInput, Tokenizer};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    logprobs::ChatLogprobs,
    messages::normalise,
    parameters::Parameters,
    types::{Body, Head, Usage, finish_reason},
};
use crate::{
    Dialect,
    answers::Answer,
    asked::Asked,
    constraints,
    defaults::Defaults,
    error::ApiError,
    fields::Fields,
    session::Session,
    state::AppState,
    stream::{self, Chunks, Wording},
    tokens::encode,
};

/// A choice of a whole answer.
#[derive(Debug, Serialize)]
struct Choice {
    index: usize,
    message: Message,
    logprobs: Option<ChatLogprobs>,
    finish_reason: &'static str,
}

#[derive(Debug, Serialize)]
struct Message {
    role: &'static str,
    content: String,
    refusal: Option<()>,
}

/// A choice of a chunk.
#[derive(Debug, Serialize)]
struct Delta {
    index: usize,
    delta: DeltaMessage,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<&'static str>,
}

#[derive(Debug, Default, Serialize)]
struct DeltaMessage {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
}

/// The handler.
pub(crate) async fn chat(state: Session, mut fields: Fields) -> Result<Response, ApiError> {
    let asked = Asked::openai(&state, &mut fields)?;
    let defaults = state.defaults(&asked);
    defaults.fill(&mut fields);
    let parameters = Parameters::take(&mut fields, &state.limits)?;
    let logprobs = logprobs(&mut fields, &state)?;
    let constrained = constraints::of_openai(&mut fields)?;
    let text = templated(&state, &mut fields, &defaults)?;
    fields.finish()?;

    let grammar = state.constraints.compile(constrained).await?;
    let prompt = encode(&state.tokenizer, "messages", &text, false).await?;
    let max_tokens = parameters
        .max_tokens
        .unwrap_or_else(|| state.default_max_tokens(prompt.len()));
    if max_tokens == 0 {
        return Err(no_room(&state, prompt.len(), parameters.max_tokens));
    }
    state.check_room(prompt.len(), max_tokens, Dialect::OpenAi)?;
    let mut served = state.model(&asked).await?;
    let choices = (0..parameters.n)
        .map(|index| Request {
            prompt: prompt.clone(),
            adapter: served.adapter.clone(),
            sampling: parameters.sampling_of(index),
            stop: parameters.stop.clone(),
            grammar: grammar.clone(),
            max_tokens,
            logprobs,
            prompt_logprobs: None,
            tenant: parameters.tenant,
            payer: None,
            weight: 1.0,
        })
        .collect();
    let answers = state.submit(choices, &mut served, Dialect::OpenAi)?;

    let mut response = if parameters.stream {
        let wording = ChatStream {
            head: Head::new("chatcmpl", "chat.completion.chunk", &served),
            tokenizer: Arc::clone(&state.tokenizer),
            choices: parameters.n,
            logprobs: logprobs.is_some(),
            usage: parameters.include_usage.then(Usage::default),
        };
        stream::respond(answers, wording)
    } else {
        let head = Head::new("chatcmpl", "chat.completion", &served);
        let answers = answers.collect().await?;
        let mut usage = Usage::default();
        let choices = answers
            .into_iter()
            .enumerate()
            .map(|(index, answer)| {
                usage.add(&answer.finish, index == 0);
                choice(&state.tokenizer, index, answer, logprobs.is_some())
            })
            .collect();
        Json(Body {
            head: &head,
            choices,
            usage: Some(Some(usage)),
        })
        .into_response()
    };
    served.label(response.headers_mut());
    Ok(response)
}

fn choice(tokenizer: &Tokenizer, index: usize, answer: Answer, logprobs: bool) -> Choice {
    Choice {
        index,
        logprobs: logprobs.then(|| ChatLogprobs::new(tokenizer, &answer.tokens)),
        finish_reason: finish_reason(&answer.finish.reason),
        message: Message {
            role: "assistant",
            content: answer.text,
            refusal: None,
        },
    }
}

/// How many alternatives each token comes with; `None` if log-probabilities are not wanted at all.
fn logprobs(fields: &mut Fields, state: &AppState) -> Result<Option<usize>, ApiError> {
    let wanted = fields.flag("logprobs")?.unwrap_or(false);
    match fields.count_within("top_logprobs", 0, state.limits.alternatives)? {
        Some(top) if top > 0 && !wanted => {
            Err(fields.complain("top_logprobs", "is only allowed with `logprobs`: true"))
        }
        top => Ok(wanted.then_some(top.unwrap_or(0))),
    }
}

/// The conversation as the model's chat template writes it.
pub(crate) fn templated(
    state: &AppState,
    fields: &mut Fields,
    defaults: &Defaults,
) -> Result<String, ApiError> {
    let own = defaults.template();
    let Some(template) = own.as_ref().or(state.template.as_ref()) else {
        let message = "the model has no chat template, so it cannot be chatted with; use /v1/completions";
        return Err(ApiError::invalid("messages", message));
    };
    fields.refuse("chat_template", "another chat template", |value| value == "")?;
    fields.refuse("add_generation_prompt", "leaving the turn open", |value| {
        value == true
    })?;
    fields.refuse("continue_final_message", "continuing a message", |value| {
        value == false
    })?;
    fields.refuse("add_special_tokens", "adding tokens to the template's", |value| {
        value == false
    })?;
    let mut messages = match fields.list("messages")? {
        Some(messages) => normalise(messages)?,
        None => return Err(fields.complain("messages", "is missing")),
    };
    let has_system = messages.iter().any(|message| message["role"] == "system");
    if let Some(system) = defaults.system().filter(|_| !has_system) {
        messages.insert(0, json!({"role": "system", "content": system}));
    }
    let extra = fields
        .object("chat_template_kwargs")?
        .map_or_else(Map::<String, Value>::new, Fields::into_rest);
    let special = |id: Option<u32>| id.map_or_else(String::new, |id| state.tokenizer.token_text(id));
    template
        .render(&ChatInput {
            messages: &messages,
            tools: None,
            add_generation_prompt: true,
            bos: &special(state.tokenizer.bos()),
            eos: &special(state.tokenizer.eos().first().copied()),
            extra: &extra,
        })
        .map_err(|error| ApiError::invalid("messages", error.to_string()))
}

/// A chat answer of no tokens: asked for, or all that fits.
fn no_room(state: &AppState, prompt: usize, asked: Option<usize>) -> ApiError {
    match asked {
        Some(_) => ApiError::invalid("max_tokens", "`max_tokens` is 0, but must be 1 or more"),
        None => {
            let limits = state.engine.limits();
            let context = limits.context.min(limits.cache_tokens);
            let message = format!(
                "the messages have {prompt} tokens, which leaves no room for an answer in the context of {context} \
                 tokens"
            );
            ApiError::invalid("messages", message)
        }
    }
}

/// The answer as it comes.
struct ChatStream {
    head: Head,
    tokenizer: Arc<Tokenizer>,
    choices: usize,
    logprobs: bool,
    /// The sum so far, if the client wants it at the end.
    usage: Option<Usage>,
}

impl ChatStream {
    fn push(&self, chunks: &mut Chunks, delta: Delta) {
        chunks.push(&Body {
            head: &self.head,
            choices: vec![delta],
            usage: self.usage.map(|_| None),
        });
    }

    fn delta(index: usize, content: String) -> Delta {
        Delta {
            index,
            delta: DeltaMessage {
                role: None,
                content: Some(content),
            },
            logprobs: None,
            finish_reason: None,
        }
    }
}

impl Wording for ChatStream {
    const DIALECT: Dialect = Dialect::OpenAi;

    fn open(&mut self, chunks: &mut Chunks) {
        for index in 0..self.choices {
            let mut delta = Self::delta(index, String::new());
            delta.delta.role = Some("assistant");
            self.push(chunks, delta);
        }
    }

    fn event(&mut self, choice: usize, event: Event, chunks: &mut Chunks) {
        match event {
            Event::Token(token) if self.logprobs || !token.text.is_empty() => {
                let logprobs = self
                    .logprobs
                    .then(|| ChatLogprobs::new(&self.tokenizer, std::slice::from_ref(&token)));
                let mut delta = Self::delta(choice, token.text);
                delta.logprobs = logprobs;
                self.push(chunks, delta);
            }
            Event::Finished(finish) => {
                if !finish.text.is_empty() {
                    self.push(chunks, Self::delta(choice, finish.text.clone()));
                }
                if let Some(usage) = &mut self.usage {
                    usage.add(&finish, choice == 0);
                }
                self.push(
                    chunks,
                    Delta {
                        index: choice,
                        delta: DeltaMessage::default(),
                        logprobs: None,
                        finish_reason: Some(finish_reason(&finish.reason)),
                    },
                );
            }
            _ => {}
        }
    }

    fn close(&mut self, chunks: &mut Chunks) {
        if let Some(usage) = self.usage {
            chunks.push(&Body::<Delta> {
                head: &self.head,
                choices: Vec::new(),
                usage: Some(Some(usage)),
            });
        }
        chunks.done();
    }
}

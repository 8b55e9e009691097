//! `POST /v1/completions`.

use std::sync::Arc;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use multigraft_engine::{Event, Request};
use multigraft_text::Tokenizer;
use serde::Serialize;
use serde_json::Value;

use super::{
    logprobs::{Logprobs, LogprobsWriter},
    parameters::Parameters,
    types::{Body, Head, Usage, finish_reason},
};
use crate::{
    Dialect,
    answers::Answer,
    asked::Asked,
    constraints,
    error::ApiError,
    fields::{Fields, whole},
    session::Session,
    state::AppState,
    stream::{self, Chunks, Wording},
    tokens::encode,
};

/// A choice of an answer; also, with less in it, of a chunk.
#[derive(Debug, Serialize)]
struct Choice {
    index: usize,
    text: String,
    logprobs: Option<Logprobs>,
    finish_reason: Option<&'static str>,
}

/// One prompt: its tokens, and its text for the echo.
#[derive(Clone, Debug)]
pub(super) struct Prompt {
    pub tokens: Vec<u32>,
    pub text: String,
}

/// The handler.
pub(crate) async fn completions(state: Session, mut fields: Fields) -> Result<Response, ApiError> {
    let asked = Asked::openai(&state, &mut fields)?;
    state.defaults(&asked).fill(&mut fields);
    let parameters = Parameters::take(&mut fields, &state.limits)?;
    let logprobs = fields.count_within("logprobs", 0, state.limits.alternatives)?;
    let echo = fields.flag("echo")?.unwrap_or(false);
    let constrained = constraints::of_openai(&mut fields)?;
    let prompts = prompts(&state, &mut fields, "prompt", state.limits.choices, echo).await?;
    fields.finish()?;
    let grammar = state.constraints.compile(constrained).await?;

    let choices = prompts.len() * parameters.n;
    if choices > state.limits.choices {
        let message = format!(
            "{} prompts with `n` = {} are {choices} answers, but one request may have at most {}",
            prompts.len(),
            parameters.n,
            state.limits.choices
        );
        return Err(ApiError::invalid("prompt", message));
    }
    let mut served = state.model(&asked).await?;
    let mut requests = Vec::with_capacity(choices);
    for prompt in &prompts {
        let max_tokens = parameters
            .max_tokens
            .unwrap_or_else(|| state.default_max_tokens(prompt.tokens.len()));
        if max_tokens == 0 && !echo {
            let message =
                "`max_tokens` is 0, or the prompt fills the whole context: nothing would be generated";
            return Err(ApiError::invalid("max_tokens", message));
        }
        state.check_room(prompt.tokens.len(), max_tokens, Dialect::OpenAi)?;
        requests.extend((0..parameters.n).map(|index| Request {
            prompt: prompt.tokens.clone(),
            adapter: served.adapter.clone(),
            sampling: parameters.sampling_of(index),
            stop: parameters.stop.clone(),
            grammar: grammar.clone(),
            max_tokens,
            logprobs,
            prompt_logprobs: logprobs.filter(|_| echo),
            embedding: None,
            tenant: parameters.tenant,
            payer: None,
            weight: 1.0,
        }));
    }
    let answers = state.submit(requests, &mut served, Dialect::OpenAi)?;
    let head = Head::new("cmpl", "text_completion", &served);
    let echoes: Vec<String> = prompts
        .into_iter()
        .flat_map(|prompt| std::iter::repeat_n(prompt.text, parameters.n))
        .collect();

    let mut response = if parameters.stream {
        let wording = CompletionStream {
            head,
            tokenizer: Arc::clone(&state.tokenizer),
            per_prompt: parameters.n,
            usage: parameters.include_usage.then(Usage::default),
            logprobs: logprobs.is_some(),
            writers: echoes.iter().map(|_| LogprobsWriter::default()).collect(),
            echoes,
        };
        stream::respond(answers, wording)
    } else {
        let answers = answers.collect().await?;
        let mut usage = Usage::default();
        let choices = answers
            .into_iter()
            .zip(echoes)
            .enumerate()
            .map(|(index, (answer, echo))| {
                usage.add(&answer.finish, index % parameters.n == 0);
                choice(&state.tokenizer, index, &answer, echo, logprobs.is_some())
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

fn choice(tokenizer: &Tokenizer, index: usize, answer: &Answer, echo: String, logprobs: bool) -> Choice {
    let logprobs = logprobs.then(|| {
        let mut logprobs = Logprobs::default();
        let mut writer = LogprobsWriter::default();
        writer.prompt(tokenizer, &answer.prompt, &mut logprobs);
        writer.tokens(tokenizer, &answer.tokens, &mut logprobs);
        logprobs
    });
    Choice {
        index,
        text: echo + &answer.text,
        logprobs,
        finish_reason: Some(finish_reason(&answer.finish.reason)),
    }
}

/// The field `name`: a text, a list of texts, a list of tokens, or a list of such lists; `most` of them.
pub(super) async fn prompts(
    state: &AppState,
    fields: &mut Fields,
    name: &'static str,
    most: usize,
    echo: bool,
) -> Result<Vec<Prompt>, ApiError> {
    let add_special = fields.flag("add_special_tokens")?.unwrap_or(true);
    let items = match fields.take(name) {
        None => return Err(fields.complain(name, "is missing")),
        Some(Value::Array(items)) if items.is_empty() => return Err(fields.complain(name, "is empty")),
        Some(Value::Array(items)) if !items.iter().all(Value::is_number) => items,
        Some(one) => vec![one],
    };
    if items.len() > most {
        let problem = format!("has {} entries, but may have at most {most}", items.len());
        return Err(fields.complain(name, &problem));
    }
    let mut prompts = Vec::with_capacity(items.len());
    for item in items {
        prompts.push(match item {
            Value::String(text) => Prompt {
                tokens: encode(&state.tokenizer, name, &text, add_special).await?,
                text: if echo { text } else { String::new() },
            },
            Value::Array(ids) => {
                let tokens = token_ids(&ids, state.engine.limits().vocab).ok_or_else(|| {
                    fields.complain(name, "has something that is no token of the vocabulary")
                })?;
                let text = if echo {
                    state.tokenizer.decode(&tokens, true)
                } else {
                    String::new()
                };
                Prompt { tokens, text }
            }
            _ => return Err(fields.complain(name, "must be text, token ids, or a list of either")),
        });
    }
    Ok(prompts)
}

fn token_ids(values: &[Value], vocab: usize) -> Option<Vec<u32>> {
    values
        .iter()
        .map(|value| {
            let id = u32::try_from(whole(value)?).ok()?;
            ((id as usize) < vocab).then_some(id)
        })
        .collect()
}

/// The answers as they come.
struct CompletionStream {
    head: Head,
    tokenizer: Arc<Tokenizer>,
    /// Choices per prompt.
    per_prompt: usize,
    usage: Option<Usage>,
    logprobs: bool,
    /// Per choice.
    writers: Vec<LogprobsWriter>,
    /// Per choice: the prompt's text, empty if it is not to be echoed. Sent before the choice's first token.
    echoes: Vec<String>,
}

impl CompletionStream {
    fn push(&self, chunks: &mut Chunks, choice: Choice) {
        chunks.push(&Body {
            head: &self.head,
            choices: vec![choice],
            usage: self.usage.map(|_| None),
        });
    }

    fn text(index: usize, text: String) -> Choice {
        Choice {
            index,
            text,
            logprobs: None,
            finish_reason: None,
        }
    }
}

impl Wording for CompletionStream {
    const DIALECT: Dialect = Dialect::OpenAi;

    fn open(&mut self, chunks: &mut Chunks) {
        if self.logprobs {
            // The echo comes with the prompt's log-probabilities.
            return;
        }
        for index in 0..self.echoes.len() {
            let echo = std::mem::take(&mut self.echoes[index]);
            if !echo.is_empty() {
                self.push(chunks, Self::text(index, echo));
            }
        }
    }

    fn event(&mut self, choice: usize, event: Event, chunks: &mut Chunks) {
        match event {
            Event::Prompt(tokens) => {
                let mut logprobs = Logprobs::default();
                self.writers[choice].prompt(&self.tokenizer, &tokens, &mut logprobs);
                let mut chunk = Self::text(choice, std::mem::take(&mut self.echoes[choice]));
                chunk.logprobs = Some(logprobs);
                self.push(chunks, chunk);
            }
            Event::Token(token) if self.logprobs => {
                let mut logprobs = Logprobs::default();
                self.writers[choice].tokens(&self.tokenizer, std::slice::from_ref(&token), &mut logprobs);
                let mut chunk = Self::text(choice, token.text);
                chunk.logprobs = Some(logprobs);
                self.push(chunks, chunk);
            }
            Event::Token(token) if !token.text.is_empty() => {
                self.push(chunks, Self::text(choice, token.text));
            }
            Event::Finished(finish) => {
                if let Some(usage) = &mut self.usage {
                    usage.add(&finish, choice.is_multiple_of(self.per_prompt));
                }
                let mut chunk = Self::text(choice, finish.text);
                chunk.finish_reason = Some(finish_reason(&finish.reason));
                self.push(chunks, chunk);
            }
            _ => {}
        }
    }

    fn close(&mut self, chunks: &mut Chunks) {
        if let Some(usage) = self.usage {
            chunks.push(&Body::<Choice> {
                head: &self.head,
                choices: Vec::new(),
                usage: Some(Some(usage)),
            });
        }
        chunks.done();
    }
}

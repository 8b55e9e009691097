//! `POST /v1/completions`.

use std::sync::Arc;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use multigraft_engine::{Event, PromptToken};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    logprobs::{self, Logprobs, LogprobsWriter, Names},
    parameters::Parameters,
    types::{Body, Head, StopReason, StreamUsage, Usage, finish_reason},
};
use crate::{
    caller::session::Session,
    contract::{
        fields::{self, openai as row},
        limits::Limits,
    },
    generation::{
        answers::Answer,
        choice::ModelChoice,
        constraints,
        request::{Generation, GenerationRequest, Input, WithoutTokens},
        stream::{self, Chunks, StreamFormat},
        tokens::encode,
    },
    http::{
        dialect::Dialect,
        error::ApiError,
        fields::{Fields, whole},
    },
};

/// A choice of an answer, or of a chunk of a stream.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(crate) struct Choice {
    index: usize,
    text: String,
    logprobs: Option<Logprobs>,
    finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_reason: Option<StopReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<Vec<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_token_ids: Option<Vec<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_logprobs: Option<Vec<Option<Map<String, Value>>>>,
}

/// A prompt: its tokens, and its text if the request has one.
#[derive(Clone, Debug)]
pub(super) struct Prompt {
    pub tokens: Vec<u32>,
    pub text: Option<String>,
}

/// The handler.
pub(crate) async fn completions(state: Session, mut fields: Fields) -> Result<Response, ApiError> {
    let choice = ModelChoice::openai(&state, &mut fields)?;
    state
        .defaults(&choice)
        .fill(&mut fields, fields::Body::Completion);
    let parameters = Parameters::take(&mut fields, fields::Body::Completion, state.limits())?;
    let logprobs = fields.count(&row::COMPLETION_LOGPROBS, state.limits())?;
    let echo = fields.flag(row::ECHO)?.unwrap_or(false);
    let best_of = best_of(&mut fields, &parameters, state.limits())?;
    let constrained = constraints::of_openai(&mut fields, state.limits())?;
    let mut prompts = prompts(&state, &mut fields, row::PROMPT.name, state.limits().choices).await?;
    fields.finish()?;
    let choices = prompts.len() * best_of;
    if choices > state.limits().choices {
        let name = if best_of > parameters.n { "best_of" } else { "n" };
        let message = format!(
            "{} prompts with `{name}` = {best_of} are {choices} answers, but one request may have at most {}",
            prompts.len(),
            state.limits().choices
        );
        return Err(ApiError::invalid("prompt", message));
    }
    let tokens = prompts
        .iter_mut()
        .map(|prompt| std::mem::take(&mut prompt.tokens));
    let tokens: Vec<Vec<u32>> = tokens.collect();
    let lengths: Vec<usize> = tokens.iter().map(Vec::len).collect();
    let is_scored = echo || parameters.prompt_logprobs.is_some();
    let without_tokens: WithoutTokens = if is_scored { |_, _, _| Ok(0) } else { nothing };
    let mut request = GenerationRequest {
        constrained,
        answers: best_of,
        // `best_of` chooses by log-probabilities.
        logprobs: match best_of > parameters.n {
            true => logprobs.or(Some(0)),
            false => logprobs,
        },
        prompt_logprobs: logprobs.filter(|_| echo).max(parameters.prompt_logprobs),
        ..parameters.request(choice, Input::Tokens(tokens), state.limits(), without_tokens)
    };
    let Generation {
        answers,
        model,
        prompts: tokens,
        ..
    } = request.begin(&state, Dialect::OpenAi).await?;
    for ((prompt, tokens), length) in prompts.iter_mut().zip(tokens).zip(lengths) {
        let is_cut = tokens.len() < length;
        prompt.text = match prompt.text.take().filter(|_| !is_cut) {
            _ if !echo => None,
            Some(text) => Some(text),
            None => Some(state.tokenizer().decode(&tokens, !parameters.show_special)),
        };
        prompt.tokens = tokens;
    }
    let head = Head::new("cmpl", "text_completion", &model);
    let names = Names {
        tokenizer: Arc::clone(state.tokenizer()),
        by_id: parameters.named_by_id,
    };

    let mut response = if parameters.stream {
        let prompt_tokens = prompts.iter().map(|prompt| prompt.tokens.len()).sum();
        let prompts: Vec<Prompt> = prompts
            .into_iter()
            .flat_map(|prompt| std::iter::repeat_n(prompt, parameters.n))
            .collect();
        let format = CompletionStream {
            head,
            names,
            per_prompt: parameters.n,
            usage: parameters
                .include_usage
                .then(|| StreamUsage::new(prompt_tokens, parameters.continuous_usage)),
            logprobs,
            token_ids: parameters.token_ids,
            writers: prompts.iter().map(|_| LogprobsWriter::default()).collect(),
            echoes: prompts
                .iter()
                .map(|prompt| prompt.text.clone().unwrap_or_default())
                .collect(),
            prompts: prompts
                .into_iter()
                .map(|prompt| parameters.token_ids.then_some(prompt.tokens))
                .collect(),
        };
        stream::respond(answers, format)
    } else {
        let mut answers = answers.collect().await?.into_iter();
        let mut usage = Usage::default();
        let mut choices = Vec::with_capacity(prompts.len() * parameters.n);
        for prompt in prompts {
            let mut of_prompt: Vec<Answer> = answers.by_ref().take(best_of).collect();
            for (index, answer) in of_prompt.iter().enumerate() {
                usage.add(&answer.finish, index == 0);
            }
            let scores = of_prompt
                .first_mut()
                .map(|first| std::mem::take(&mut first.prompt));
            let parts = ChoiceParts {
                names: &names,
                parameters: &parameters,
                logprobs,
                echo,
                prompt: &prompt,
                scores: &scores.unwrap_or_default(),
            };
            if best_of > parameters.n {
                // The sort is stable: of equals the earlier one wins.
                of_prompt.sort_by(|a, b| b.mean_logprob().total_cmp(&a.mean_logprob()));
                of_prompt.truncate(parameters.n);
            }
            choices.extend(of_prompt.iter().map(|answer| parts.choice(answer)));
        }
        for (index, choice) in choices.iter_mut().enumerate() {
            choice.index = index;
        }
        Json(Body::new(&head, choices, Some(Some(usage)))).into_response()
    };
    model.label(response.headers_mut());
    Ok(response)
}

/// What the choices of one prompt are made of.
struct ChoiceParts<'a> {
    names: &'a Names,
    parameters: &'a Parameters,
    logprobs: Option<usize>,
    echo: bool,
    prompt: &'a Prompt,
    /// The prompt's log-probabilities, if the request wants them.
    scores: &'a [PromptToken],
}

impl ChoiceParts<'_> {
    fn choice(&self, answer: &Answer) -> Choice {
        let logprobs = self.logprobs.map(|top| {
            let mut logprobs = Logprobs::default();
            let mut writer = LogprobsWriter::default();
            if self.echo {
                writer.prompt(self.names, self.scores, top, &mut logprobs);
            }
            writer.tokens(self.names, &answer.tokens, &mut logprobs);
            logprobs
        });
        let ids = self.parameters.token_ids;
        let prompt_logprobs = self.parameters.prompt_logprobs;
        Choice {
            index: 0,
            text: format!(
                "{}{}",
                self.prompt.text.as_deref().unwrap_or_default(),
                answer.text
            ),
            logprobs,
            finish_reason: Some(finish_reason(&answer.finish.reason)),
            stop_reason: StopReason::of(&answer.finish.reason),
            token_ids: ids.then(|| answer.tokens.iter().map(|token| token.id).collect()),
            prompt_token_ids: ids.then(|| self.prompt.tokens.clone()),
            prompt_logprobs: prompt_logprobs
                .map(|top| logprobs::of_prompt(&self.names.tokenizer, self.scores, top)),
        }
    }
}

/// The error if there would be neither an answer nor log-probabilities of the prompt.
fn nothing(_: &Session, _: usize, _: Option<usize>) -> Result<usize, ApiError> {
    let message = "`max_tokens` is 0, or the prompt fills the whole context: nothing would be generated";
    Err(ApiError::invalid("max_tokens", message))
}

/// `best_of`: so many answers are generated to each prompt, and the `n` best are returned.
fn best_of(fields: &mut Fields, parameters: &Parameters, limits: &Limits) -> Result<usize, ApiError> {
    let n = parameters.n;
    match fields.count(&row::BEST_OF, limits)? {
        None => Ok(n),
        Some(best_of) if best_of < n => {
            let problem = format!("is {best_of}, but `n` is {n}: it must be as many or more");
            Err(fields.complain(row::BEST_OF, &problem))
        }
        Some(best_of) if best_of > n && parameters.stream => {
            let problem = "cannot be streamed: which answers are the best is known when all are made";
            Err(fields.complain(row::BEST_OF, problem))
        }
        Some(best_of) => Ok(best_of),
    }
}

/// Reads the prompts in the field `name`: a text, a list of texts, a list of token ids, or a list
/// of such lists; at most `most`.
pub(super) async fn prompts(
    state: &Session,
    fields: &mut Fields,
    name: &'static str,
    most: usize,
) -> Result<Vec<Prompt>, ApiError> {
    let add_special = fields.flag(row::ADD_SPECIAL_TOKENS)?.unwrap_or(true);
    let items = match fields.take(name) {
        None => return Err(fields.complain(name, "is missing")),
        Some(Value::Array(items)) if items.is_empty() => return Err(fields.complain(name, "is empty")),
        Some(Value::Array(items)) if !items.iter().all(Value::is_number) => items,
        Some(prompt) => vec![prompt],
    };
    if items.len() > most {
        let problem = format!("has {} entries, but may have at most {most}", items.len());
        return Err(fields.complain(name, &problem));
    }
    let mut prompts = Vec::with_capacity(items.len());
    for item in items {
        prompts.push(match item {
            Value::String(text) => Prompt {
                tokens: encode(state.tokenizer(), name, &text, add_special).await?,
                text: Some(text),
            },
            Value::Array(ids) => {
                let tokens = token_ids(&ids, state.engine().limits().vocab).ok_or_else(|| {
                    fields.complain(name, "has something that is no token of the vocabulary")
                })?;
                Prompt { tokens, text: None }
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

/// The format of streamed completions.
struct CompletionStream {
    head: Head,
    names: Names,
    /// Choices per prompt.
    per_prompt: usize,
    usage: Option<StreamUsage>,
    logprobs: Option<usize>,
    /// Whether chunks have the ids of tokens.
    token_ids: bool,
    /// The writer of each choice.
    writers: Vec<LogprobsWriter>,
    /// The prompt's text for each choice, empty without `echo`. It is sent before the choice's
    /// first token.
    echoes: Vec<String>,
    /// The prompt's tokens for each choice until its first chunk, if the client wants them.
    prompts: Vec<Option<Vec<u32>>>,
}

impl CompletionStream {
    fn push(&mut self, chunks: &mut Chunks, mut choice: Choice) {
        choice.prompt_token_ids = self.prompts[choice.index].take();
        let usage = self.usage.as_ref().map(StreamUsage::so_far);
        chunks.push(&Body::new(&self.head, vec![choice], usage));
    }

    fn text(index: usize, text: String) -> Choice {
        Choice {
            index,
            text,
            ..Choice::default()
        }
    }
}

impl StreamFormat for CompletionStream {
    const DIALECT: Dialect = Dialect::OpenAi;

    fn open(&mut self, chunks: &mut Chunks) {
        if self.logprobs.is_some() {
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
                let top = self.logprobs.unwrap_or(0);
                self.writers[choice].prompt(&self.names, &tokens, top, &mut logprobs);
                let mut chunk = Self::text(choice, std::mem::take(&mut self.echoes[choice]));
                chunk.logprobs = Some(logprobs);
                self.push(chunks, chunk);
            }
            Event::Token(token) => {
                if let Some(usage) = &mut self.usage {
                    usage.token();
                }
                let logprobs = self.logprobs.map(|_| {
                    let mut logprobs = Logprobs::default();
                    self.writers[choice].tokens(&self.names, std::slice::from_ref(&token), &mut logprobs);
                    logprobs
                });
                if token.text.is_empty() && logprobs.is_none() && !self.token_ids {
                    return;
                }
                let mut chunk = Self::text(choice, token.text);
                chunk.logprobs = logprobs;
                chunk.token_ids = self.token_ids.then(|| vec![token.id]);
                self.push(chunks, chunk);
            }
            Event::Finished(finish) => {
                if let Some(usage) = &mut self.usage {
                    usage.finish(&finish, choice.is_multiple_of(self.per_prompt));
                }
                let mut chunk = Self::text(choice, finish.text);
                chunk.finish_reason = Some(finish_reason(&finish.reason));
                chunk.stop_reason = StopReason::of(&finish.reason);
                self.push(chunks, chunk);
            }
            _ => {}
        }
    }

    fn close(&mut self, chunks: &mut Chunks) {
        if let Some(usage) = &self.usage {
            chunks.push(&Body::<Choice>::new(
                &self.head,
                Vec::new(),
                Some(Some(usage.all())),
            ));
        }
        chunks.done();
    }
}

//! `POST /v1/chat/completions`.

use std::sync::Arc;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use multigraft_engine::{Event, Token};
use multigraft_text::Tokenizer;
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    logprobs::{self, ChatLogprobs, Names},
    parameters::Parameters,
    types::{Body, Head, StopReason, StreamUsage, Usage, finish_reason},
};
use crate::{
    caller::session::Session,
    contract::fields::{self, openai as row},
    generation::{
        answers::Answer,
        chat::{
            conversation::Conversation,
            tools::{self, CallParser, Calling, Piece, ToolCall, Tools},
        },
        choice::ModelChoice,
        constraints,
        request::{Chat, Generation, GenerationRequest, Input},
        stream::{self, Chunks, StreamFormat},
    },
    http::{dialect::Dialect, error::ApiError, fields::Fields},
};

/// A choice of an answer that is not streamed.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Choice {
    index: usize,
    message: Message,
    logprobs: Option<ChatLogprobs>,
    finish_reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_reason: Option<StopReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<Vec<u32>>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Message {
    role: &'static str,
    /// Null if the answer consists of tool calls alone.
    content: Option<String>,
    refusal: Option<()>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToolCall>,
}

/// A choice of a chunk of a stream.
#[derive(Debug, Default, Serialize)]
struct Delta {
    index: usize,
    delta: DeltaMessage,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_reason: Option<StopReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<Vec<u32>>,
}

#[derive(Debug, Default, Serialize)]
struct DeltaMessage {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToolCall>,
}

/// A conversation whose answers are being generated.
pub(super) struct ChatGeneration {
    pub(super) parameters: Parameters,
    pub(super) generation: Generation,
    logprobs: Option<usize>,
}

/// Starts the generation of answers to the conversation in `fields`.
pub(super) async fn begin(state: &Session, mut fields: Fields) -> Result<ChatGeneration, ApiError> {
    let choice = ModelChoice::openai(state, &mut fields)?;
    let defaults = state.defaults(&choice);
    defaults.fill(&mut fields, fields::Body::Chat);
    let parameters = Parameters::take(&mut fields, fields::Body::Chat, state.limits())?;
    let logprobs = logprobs(&mut fields, state)?;
    let add_special = fields.flag(row::ADD_SPECIAL_TOKENS)?.unwrap_or(false);
    let constrained = constraints::of_openai(&mut fields, state.limits())?;
    let tools = Tools::take(&mut fields)?;
    let conversation = Conversation::take(&mut fields, &defaults)?;
    fields.finish()?;
    if let (Some(tools), Some(other)) = (&tools, &constrained)
        && tools.choice != tools::Choice::Auto
    {
        let field = &other.field;
        let message = format!("`tool_choice` asks for a call, but `{field}` for something else");
        return Err(ApiError::invalid("tool_choice", message));
    }
    let no_template = "the model has no chat template, so it cannot be chatted with; use /v1/completions";
    let input = Input::Chat(Box::new(Chat {
        field: row::MESSAGES.name,
        conversation,
        tools,
        defaults,
        add_special,
        no_template: ApiError::invalid(row::MESSAGES.name, no_template),
    }));
    let mut request = GenerationRequest {
        constrained,
        logprobs,
        ..parameters.request(choice, input, state.limits(), no_room)
    };
    Ok(ChatGeneration {
        parameters,
        generation: request.begin(state, Dialect::OpenAi).await?,
        logprobs,
    })
}

/// The handler.
pub(crate) async fn chat(state: Session, fields: Fields) -> Result<Response, ApiError> {
    let ChatGeneration {
        parameters,
        generation,
        logprobs,
    } = begin(&state, fields).await?;
    let Generation {
        answers,
        model,
        prompts,
        calling,
        ..
    } = generation;
    let prompt = prompts.into_iter().flatten().collect::<Vec<u32>>();
    let names = Names {
        tokenizer: Arc::clone(state.tokenizer()),
        by_id: parameters.named_by_id,
    };
    let mut response = if parameters.stream {
        let format = ChatStream {
            head: Head::new("chatcmpl", "chat.completion.chunk", &model),
            names,
            choices: parameters.n,
            logprobs: logprobs.is_some(),
            token_ids: parameters.token_ids,
            parsers: match &calling {
                Some(calling) => (0..parameters.n)
                    .map(|_| CallParser::new(calling.format, &calling.tools))
                    .collect(),
                None => Vec::new(),
            },
            calling,
            usage: parameters
                .include_usage
                .then(|| StreamUsage::new(prompt.len(), parameters.continuous_usage)),
            prompt: parameters.token_ids.then_some(prompt),
        };
        stream::respond(answers, format)
    } else {
        let head = Head::new("chatcmpl", "chat.completion", &model);
        let answers = answers.collect().await?;
        let mut usage = Usage::default();
        let scores = answers.first().map_or(&[][..], |first| &first.prompt);
        let prompt_logprobs = parameters
            .prompt_logprobs
            .map(|top| logprobs::of_prompt(state.tokenizer(), scores, top));
        let choices = answers
            .into_iter()
            .enumerate()
            .map(|(index, answer)| {
                usage.add(&answer.finish, index == 0);
                let ids = answer.tokens.iter().map(|token| token.id);
                let token_ids = parameters.token_ids.then(|| ids.collect());
                Choice {
                    token_ids,
                    ..choice(&names, index, answer, logprobs.is_some(), calling.as_ref())
                }
            })
            .collect();
        Json(Body {
            prompt_logprobs,
            prompt_token_ids: parameters.token_ids.then_some(prompt),
            ..Body::new(&head, choices, Some(Some(usage)))
        })
        .into_response()
    };
    model.label(response.headers_mut());
    Ok(response)
}

fn choice(names: &Names, index: usize, answer: Answer, logprobs: bool, calling: Option<&Calling>) -> Choice {
    let mut reason = finish_reason(&answer.finish.reason);
    let logprobs = logprobs.then(|| ChatLogprobs::new(names, &answer.tokens));
    let (mut content, mut tool_calls) = (Some(answer.text), Vec::new());
    if let Some(Calling { tools, format }) = calling {
        let mut parser = CallParser::new(*format, tools);
        let texts = answer
            .tokens
            .iter()
            .map(|token| tools::text_of(token, &names.tokenizer));
        let mut pieces: Vec<Piece> = texts.flat_map(|text| parser.push(&text)).collect();
        pieces.extend(parser.push(&answer.finish.text));
        pieces.extend(parser.finish());
        let mut text = String::new();
        for piece in pieces {
            match piece {
                Piece::Text(more) => text.push_str(&more),
                Piece::Call { id, name, .. } => tool_calls.push(ToolCall::begun(None, id, name)),
                Piece::Arguments { text, .. } => {
                    if let Some(call) = tool_calls.last_mut() {
                        call.push(&text);
                    }
                }
            }
        }
        if reason == "stop" {
            reason = tools.finish_reason(tool_calls.len()).unwrap_or(reason);
        }
        content = Some(text).filter(|text| tool_calls.is_empty() || !text.is_empty());
    }
    Choice {
        index,
        logprobs,
        finish_reason: reason,
        stop_reason: StopReason::of(&answer.finish.reason),
        token_ids: None,
        message: Message {
            role: "assistant",
            content,
            refusal: None,
            tool_calls,
        },
    }
}

/// The number of alternatives to each token; `None` is no log-probabilities at all.
fn logprobs(fields: &mut Fields, state: &Session) -> Result<Option<usize>, ApiError> {
    let wanted = fields.flag(row::LOGPROBS)?.unwrap_or(false);
    match fields.count(&row::TOP_LOGPROBS, state.limits())? {
        Some(top) if top > 0 && !wanted => {
            Err(fields.complain(row::TOP_LOGPROBS, "is only allowed with `logprobs`: true"))
        }
        top => Ok(wanted.then_some(top.unwrap_or(0))),
    }
}

/// A chat has no empty answer: the error names what leaves no room for tokens.
fn no_room(state: &Session, prompt: usize, requested: Option<usize>) -> Result<usize, ApiError> {
    Err(match requested {
        Some(_) => ApiError::invalid("max_tokens", "`max_tokens` is 0, but must be 1 or more"),
        None => {
            let limits = state.engine().limits();
            let context = limits.context.min(limits.cache_tokens);
            let message = format!(
                "the messages have {prompt} tokens, which leaves no room for an answer in the context of {context} \
                 tokens"
            );
            ApiError::invalid("messages", message)
        }
    })
}

/// The format of a streamed chat.
struct ChatStream {
    head: Head,
    names: Names,
    choices: usize,
    logprobs: bool,
    /// Whether chunks have the ids of tokens.
    token_ids: bool,
    calling: Option<Calling>,
    /// The parser of each choice, if tools may be called.
    parsers: Vec<CallParser>,
    /// The usage, if the client wants it.
    usage: Option<StreamUsage>,
    /// The prompt's tokens until the first chunk, if the client wants them.
    prompt: Option<Vec<u32>>,
}

impl ChatStream {
    fn push(&mut self, chunks: &mut Chunks, delta: Delta) {
        let usage = self.usage.as_ref().map(StreamUsage::so_far);
        chunks.push(&Body {
            prompt_token_ids: self.prompt.take(),
            ..Body::new(&self.head, vec![delta], usage)
        });
    }

    fn delta(index: usize, content: String) -> Delta {
        Delta {
            index,
            delta: DeltaMessage {
                content: Some(content),
                ..DeltaMessage::default()
            },
            ..Delta::default()
        }
    }

    /// The delta of a piece of an answer that may call tools.
    fn piece(index: usize, piece: Piece) -> Delta {
        let call = match piece {
            Piece::Text(text) => return Self::delta(index, text),
            Piece::Call { index, id, name } => ToolCall::begun(Some(index), id, name),
            Piece::Arguments { index, text } => ToolCall::more(index, text),
        };
        let mut delta = Self::delta(index, String::new());
        delta.delta.content = None;
        delta.delta.tool_calls.push(call);
        delta
    }

    /// The deltas of a token.
    fn deltas(
        &mut self,
        choice: usize,
        text: String,
        tokenizer: &Tokenizer,
        token: Option<&Token>,
    ) -> Vec<Delta> {
        // Every token has a delta, also if it has no text.
        let per_token = token.is_some() && (self.logprobs || self.token_ids);
        match self.parsers.get_mut(choice) {
            None if text.is_empty() && !per_token => Vec::new(),
            None => vec![Self::delta(choice, text)],
            Some(parser) => {
                let text = token.map_or(text, |token| tools::text_of(token, tokenizer));
                let pieces = parser.push(&text).into_iter();
                let mut deltas: Vec<Delta> = pieces.map(|piece| Self::piece(choice, piece)).collect();
                if deltas.is_empty() && per_token {
                    deltas.push(Self::delta(choice, String::new()));
                }
                deltas
            }
        }
    }
}

impl StreamFormat for ChatStream {
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
            Event::Token(token) => {
                if let Some(usage) = &mut self.usage {
                    usage.token();
                }
                let tokenizer = Arc::clone(&self.names.tokenizer);
                let mut logprobs = self
                    .logprobs
                    .then(|| ChatLogprobs::new(&self.names, std::slice::from_ref(&token)));
                let mut token_ids = self.token_ids.then(|| vec![token.id]);
                for mut delta in self.deltas(choice, token.text.clone(), &tokenizer, Some(&token)) {
                    delta.logprobs = logprobs.take();
                    delta.token_ids = token_ids.take();
                    self.push(chunks, delta);
                }
            }
            Event::Finished(finish) => {
                let tokenizer = Arc::clone(&self.names.tokenizer);
                for delta in self.deltas(choice, finish.text.clone(), &tokenizer, None) {
                    self.push(chunks, delta);
                }
                let mut reason = finish_reason(&finish.reason);
                if let Some(parser) = self.parsers.get_mut(choice) {
                    let (rest, calls) = (parser.finish(), parser.calls());
                    for piece in rest {
                        self.push(chunks, Self::piece(choice, piece));
                    }
                    if let Some(calling) = self.calling.as_ref().filter(|_| reason == "stop") {
                        reason = calling.tools.finish_reason(calls).unwrap_or(reason);
                    }
                }
                if let Some(usage) = &mut self.usage {
                    usage.finish(&finish, choice == 0);
                }
                self.push(
                    chunks,
                    Delta {
                        index: choice,
                        finish_reason: Some(reason),
                        stop_reason: StopReason::of(&finish.reason),
                        ..Delta::default()
                    },
                );
            }
            _ => {}
        }
    }

    fn close(&mut self, chunks: &mut Chunks) {
        if let Some(usage) = &self.usage {
            chunks.push(&Body::<Delta>::new(
                &self.head,
                Vec::new(),
                Some(Some(usage.all())),
            ));
        }
        chunks.done();
    }
}

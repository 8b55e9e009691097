//! `POST /v1/responses`: OpenAI's Responses API for text and functions. The server stores no
//! responses.
//!
//! A response is computed as a chat. [`input`] turns the request into the request for a chat, and
//! [`output`] turns the answer into the items of a response.

mod input;
mod output;

use std::{sync::Arc, time::SystemTime};

use axum::{
    Json,
    response::{IntoResponse as _, Response},
};
use multigraft_engine::{Event, Finish};
use schemars::JsonSchema;
use serde::Serialize;

use super::chat;
use crate::{
    caller::session::Session,
    generation::stream::{self, Chunks, StreamFormat},
    http::{
        dialect::Dialect,
        error::ApiError,
        fields::Fields,
        id::{seconds, unique_id},
    },
};
use input::Echo;
use output::{Item, Output};

/// The handler.
pub(crate) async fn responses(state: Session, fields: Fields) -> Result<Response, ApiError> {
    let (fields, echo) = input::chat(fields)?;
    let begun = chat::begin(&state, fields).await.map_err(input::renamed)?;
    let (parameters, generation) = (begun.parameters, begun.generation);
    let (model, answers) = (generation.model, generation.answers);
    let mut format = Responding {
        head: Head {
            id: unique_id("resp_"),
            object: "response",
            created_at: seconds(SystemTime::now()),
            model: model.name.clone(),
            temperature: parameters.sampling.temperature,
            top_p: parameters.sampling.top_p,
            store: false,
            background: false,
            truncation: "disabled",
            echo,
        },
        output: Output::new(Arc::clone(state.tokenizer()), generation.calling.as_ref()),
    };
    let mut response = if parameters.stream {
        stream::respond(answers, format)
    } else {
        for answer in answers.collect().await? {
            for token in &answer.tokens {
                format.output.token(token, None);
            }
            format.output.finished(answer.finish, None);
        }
        Json(format.body(None)).into_response()
    };
    model.label(response.headers_mut());
    Ok(response)
}

/// The fields that are the same in all events of a response.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct Head {
    id: String,
    object: &'static str,
    created_at: u64,
    model: String,
    temperature: f32,
    top_p: f32,
    store: bool,
    background: bool,
    truncation: &'static str,
    #[serde(flatten)]
    echo: Echo,
}

/// A response at one moment.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Body<'a> {
    #[serde(flatten)]
    head: &'a Head,
    status: &'static str,
    error: Option<Failure>,
    incomplete_details: Option<Incomplete>,
    output: &'a [Item],
    usage: Option<Usage>,
}

/// The data of an event that has the whole response.
#[derive(Debug, Serialize)]
struct Showing<'a> {
    response: Body<'a>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Failure {
    code: &'static str,
    message: String,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Incomplete {
    reason: &'static str,
}

/// The tokens of a response.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Usage {
    input_tokens: usize,
    input_tokens_details: InputDetails,
    output_tokens: usize,
    output_tokens_details: OutputDetails,
    total_tokens: usize,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct InputDetails {
    /// Tokens that came from the prefix cache.
    cached_tokens: usize,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct OutputDetails {
    reasoning_tokens: usize,
}

impl Usage {
    fn of(finish: &Finish) -> Self {
        Self {
            input_tokens: finish.prompt_tokens,
            input_tokens_details: InputDetails {
                cached_tokens: finish.cached_tokens,
            },
            output_tokens: finish.completion_tokens,
            output_tokens_details: OutputDetails { reasoning_tokens: 0 },
            total_tokens: finish.prompt_tokens + finish.completion_tokens,
        }
    }
}

/// The format of a response.
struct Responding {
    head: Head,
    output: Output,
}

impl Responding {
    fn body(&self, error: Option<&ApiError>) -> Body<'_> {
        let cut_off = self.output.is_cut_off();
        Body {
            head: &self.head,
            status: match (error, &self.output.finish) {
                (Some(_), _) => "failed",
                (None, None) => "in_progress",
                (None, Some(_)) if cut_off => "incomplete",
                (None, Some(_)) => "completed",
            },
            error: error.map(|error| Failure {
                code: "server_error",
                message: error.to_string(),
            }),
            incomplete_details: cut_off.then_some(Incomplete {
                reason: "max_output_tokens",
            }),
            output: self.output.items(),
            usage: self.output.finish.as_ref().map(Usage::of),
        }
    }

    /// Sends an event that has the whole response.
    fn show(&mut self, kind: &str, error: Option<&ApiError>, chunks: &mut Chunks) {
        // `output` counts the sequence numbers.
        let mut events = std::mem::take(&mut self.output.events);
        let response = self.body(error);
        events.push(Some(chunks), kind, Showing { response });
        self.output.events = events;
    }
}

impl StreamFormat for Responding {
    const DIALECT: Dialect = Dialect::OpenAi;

    fn open(&mut self, chunks: &mut Chunks) {
        self.show("response.created", None, chunks);
        self.show("response.in_progress", None, chunks);
    }

    fn event(&mut self, _: usize, event: Event, chunks: &mut Chunks) {
        self.output.event(event, Some(chunks));
    }

    fn close(&mut self, chunks: &mut Chunks) {
        let kind = match self.output.is_cut_off() {
            true => "response.incomplete",
            false => "response.completed",
        };
        self.show(kind, None, chunks);
    }

    fn fail(&mut self, error: &ApiError, chunks: &mut Chunks) {
        self.show("response.failed", Some(error), chunks);
    }
}

//! Server-sent events: turns engine events into the chunks of a dialect.

use std::{collections::VecDeque, convert::Infallible};

use axum::{
    http::{HeaderName, HeaderValue},
    response::{
        IntoResponse, Response,
        sse::{self, KeepAlive, Sse},
    },
};
use futures_util::stream;
use multigraft_engine::Event;
use serde::Serialize;

use super::answers::Answers;
use crate::http::{dialect::Dialect, error::ApiError};

/// Tells nginx and similar proxies not to buffer the stream.
const NO_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The chunks that are ready to be sent.
#[derive(Debug, Default)]
pub(crate) struct Chunks(VecDeque<sse::Event>);

impl Chunks {
    /// Adds a chunk: `data: <JSON>`.
    pub(crate) fn push(&mut self, chunk: &impl Serialize) {
        // Cannot fail: the types have string keys and no failing serialisers. JSON has no raw line
        // breaks.
        if let Ok(json) = serde_json::to_string(chunk) {
            self.0.push_back(sse::Event::default().data(json));
        }
    }

    /// Adds a chunk that has a type: `event: <kind>` and `data: <JSON>`.
    pub(crate) fn named(&mut self, kind: &str, chunk: &impl Serialize) {
        if let Ok(json) = serde_json::to_string(chunk) {
            self.0.push_back(sse::Event::default().event(kind).data(json));
        }
    }

    /// Adds OpenAI's end mark.
    pub(crate) fn done(&mut self) {
        self.0.push_back(sse::Event::default().data("[DONE]"));
    }
}

/// The format of a stream: turns engine events into chunks.
pub(crate) trait StreamFormat: Send + 'static {
    /// The dialect of errors in the middle of the stream.
    const DIALECT: Dialect;

    /// Chunks before anything was generated.
    fn open(&mut self, chunks: &mut Chunks);

    /// Chunks for an event of a choice; never called with [`Event::Failed`], [`Event::Refused`] or
    /// [`Event::Cancelled`].
    fn event(&mut self, choice: usize, event: Event, chunks: &mut Chunks);

    /// Chunks after the last choice has finished.
    fn close(&mut self, chunks: &mut Chunks);

    /// Chunks that say why the answer ends in the middle.
    fn fail(&mut self, error: &ApiError, chunks: &mut Chunks) {
        chunks.push(&Self::DIALECT.error_body(error));
        if Self::DIALECT == Dialect::OpenAi {
            chunks.done();
        }
    }
}

struct Streaming<F> {
    answers: Answers,
    format: F,
    chunks: Chunks,
    state: Progress,
}

#[derive(PartialEq)]
enum Progress {
    Unopened,
    Open,
    Closed,
}

impl<F: StreamFormat> Streaming<F> {
    async fn next(&mut self) -> Option<sse::Event> {
        loop {
            if let Some(chunk) = self.chunks.0.pop_front() {
                return Some(chunk);
            }
            match self.state {
                Progress::Unopened => {
                    self.state = Progress::Open;
                    self.format.open(&mut self.chunks);
                }
                Progress::Open => self.advance().await,
                Progress::Closed => return None,
            }
        }
    }

    async fn advance(&mut self) {
        match self.answers.next().await {
            Some(Ok((choice, event))) => self.format.event(choice, event, &mut self.chunks),
            Some(Err(error)) => {
                self.format.fail(&error, &mut self.chunks);
                self.state = Progress::Closed;
            }
            None => {
                self.format.close(&mut self.chunks);
                self.state = Progress::Closed;
            }
        }
    }
}

/// A response that streams the answers. Dropping it (the client disconnected) drops the answers.
pub(crate) fn respond<F: StreamFormat>(answers: Answers, format: F) -> Response {
    let streaming = Streaming {
        answers,
        format,
        chunks: Chunks::default(),
        state: Progress::Unopened,
    };
    let events = stream::unfold(streaming, async |mut streaming| {
        let chunk = streaming.next().await?;
        Some((Ok::<_, Infallible>(chunk), streaming))
    });
    // Comments are sent while nothing is generated, so that proxies do not close the connection of
    // a queued request.
    let mut response = Sse::new(Box::pin(events))
        .keep_alive(KeepAlive::default())
        .into_response();
    response
        .headers_mut()
        .insert(NO_BUFFERING, HeaderValue::from_static("no"));
    response
}

//! Traces: a span per request, with a child span per phase. Names and attributes follow
//! OpenTelemetry's semantic conventions for HTTP and for generative AI where these define any.
//! Spans contain no text of prompts or answers.
//!
//! ```text
//!  POST /v1/chat/completions     from the request's head to the answer's last token
//!  ├─ adapter load               the wait for an adapter that is not in memory
//!  ├─ queue                      from acceptance until the first step, for each choice
//!  ├─ prefill                    from then to the first token
//!  └─ decode                     from then to the end
//! ```
//!
//! The span of a request is in the context of its handler's task. It ends when the last holder of
//! that context is dropped: the handler, or the followers of the answers in the engine.

use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use multigraft_engine::{Event, FinishReason};
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{FutureExt as _, Span as _, SpanBuilder, SpanKind, Status, TraceContextExt as _};
use opentelemetry::{Array, Context, KeyValue, StringValue, Value};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracer;

use super::Telemetry;
use crate::{
    contract::{model::ResolvedModel, routes},
    http::error::ApiError,
};

/// Request headers for the propagator.
struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(axum::http::HeaderName::as_str).collect()
    }
}

/// Middleware: a span for each request except GET and HEAD. A `traceparent` header continues the
/// client's trace and its sampling decision.
pub(crate) async fn trace(State(telemetry): State<Telemetry>, request: Request, next: Next) -> Response {
    let Some(tracer) = &telemetry.tracer else {
        return next.run(request).await;
    };
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    let parent =
        TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(request.headers()));
    let route = routes::of(request.extensions());
    let method = request.method().as_str().to_owned();
    let (name, path) = match route {
        Some(route) => (
            format!("{method} {}", route.path),
            Some(KeyValue::new("http.route", route.path)),
        ),
        // Unknown paths are not span names: there would be arbitrarily many.
        None => (method.clone(), None),
    };
    let operation = route
        .and_then(|route| route.operation_name)
        .map(|name| KeyValue::new("gen_ai.operation.name", name));
    let attributes = [KeyValue::new("http.request.method", method)];
    let span = SpanBuilder::from_name(name)
        .with_kind(SpanKind::Server)
        .with_attributes(attributes.into_iter().chain(path).chain(operation))
        .start_with_context(tracer, &parent);
    let context = parent.with_span(span);
    let response = next.run(request).with_context(context.clone()).await;
    let span = context.span();
    let status = response.status();
    span.set_attribute(KeyValue::new(
        "http.response.status_code",
        i64::from(status.as_u16()),
    ));
    if status.is_client_error() || status.is_server_error() {
        span.set_attribute(KeyValue::new("error.type", status.as_str().to_owned()));
    }
    if status.is_server_error() {
        // By the conventions, 4xx is the client's error and not the span's.
        let error = response.extensions().get::<ApiError>();
        span.set_status(Status::error(error.map_or_else(
            || {
                StatusCode::canonical_reason(&status)
                    .unwrap_or_default()
                    .to_owned()
            },
            ToString::to_string,
        )));
    }
    response
}

/// Records on the current span that the request asks for `model`.
pub(crate) fn record_requested_model(model: &str) {
    let context = Context::current();
    if context.span().is_recording() {
        let span = context.span();
        span.set_attribute(KeyValue::new("gen_ai.provider.name", "multigraft"));
        span.set_attribute(KeyValue::new("gen_ai.request.model", model.to_owned()));
    }
}

/// A span for the wait for an adapter, which lasts until the returned value is dropped.
pub(crate) fn loading(tracer: Option<&SdkTracer>, adapter: &str) -> Option<Loading> {
    let context = Context::current();
    let tracer = tracer.filter(|_| context.span().is_recording())?;
    let span = SpanBuilder::from_name("adapter load")
        .with_attributes([KeyValue::new("multigraft.adapter.name", adapter.to_owned())])
        .start_with_context(tracer, &context);
    Some(Loading(context.with_span(span)))
}

/// The span of a wait for an adapter.
pub(crate) struct Loading(Context);

impl Loading {
    /// Ends the span with `error`.
    pub(crate) fn failed(self, error: &impl Display) {
        self.0.span().set_status(Status::error(error.to_string()));
    }
}

/// The totals of all answers of a request, which are written to its span when the last answer has
/// ended.
#[derive(Debug)]
struct Sums {
    context: Context,
    answers: Mutex<Answers>,
}

#[derive(Debug, Default)]
struct Answers {
    tokens: i64,
    reasons: Vec<StringValue>,
}

impl Sums {
    fn lock(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Sums {
    fn drop(&mut self) {
        let answers = std::mem::take(self.answers.get_mut().unwrap_or_else(PoisonError::into_inner));
        let span = self.context.span();
        span.set_attribute(KeyValue::new("gen_ai.usage.output_tokens", answers.tokens));
        if !answers.reasons.is_empty() {
            let reasons = Value::Array(Array::String(answers.reasons));
            span.set_attribute(KeyValue::new("gen_ai.response.finish_reasons", reasons));
        }
    }
}

/// The phase spans of one answer.
#[derive(Debug)]
pub(super) struct Phases {
    tracer: SdkTracer,
    sums: Arc<Sums>,
    choice: usize,
    /// Whether the request has several choices.
    is_one_of_many: bool,
    accepted: SystemTime,
    started: Option<SystemTime>,
    first: Option<SystemTime>,
    tokens: i64,
    ended: bool,
}

impl Phases {
    /// For the current request, of which `model` answers `choices` choices. `None` if its span is
    /// not recorded.
    pub(super) fn of_current(
        tracer: &SdkTracer,
        choices: usize,
        model: &ResolvedModel,
        prompt_tokens: usize,
    ) -> Option<Self> {
        let context = Context::current();
        if !context.span().is_recording() {
            return None;
        }
        context.span().set_attributes([
            KeyValue::new("gen_ai.response.model", model.name.clone()),
            KeyValue::new("multigraft.adapter.hash", model.hash.clone()),
            KeyValue::new("gen_ai.request.choice.count", choices as i64),
            KeyValue::new("gen_ai.usage.input_tokens", prompt_tokens as i64),
        ]);
        Some(Self {
            tracer: tracer.clone(),
            sums: Arc::new(Sums {
                context,
                answers: Mutex::default(),
            }),
            choice: 0,
            is_one_of_many: choices > 1,
            accepted: SystemTime::now(),
            started: None,
            first: None,
            tokens: 0,
            ended: true,
        })
    }

    /// The phases of choice number `choice`.
    pub(super) fn choice(&self, choice: usize) -> Self {
        Self {
            tracer: self.tracer.clone(),
            sums: Arc::clone(&self.sums),
            choice,
            ended: false,
            ..*self
        }
    }

    /// Handles an event of the answer.
    pub(super) fn event(&mut self, event: &Event) {
        match event {
            Event::Started { .. } => {
                self.started = Some(SystemTime::now());
                self.span("queue", self.accepted, Vec::new(), Status::Unset);
            }
            Event::Prompt(_) | Event::Embedding(_) => {}
            Event::Token(_) => {
                self.tokens += 1;
                if self.first.is_none() {
                    self.first = Some(SystemTime::now());
                    self.prefill(Vec::new(), Status::Unset);
                }
            }
            Event::Finished(finish) => {
                let cached = KeyValue::new("multigraft.cached_tokens", finish.cached_tokens as i64);
                let reason = reason(&finish.reason);
                self.sums.lock().reasons.push(reason.into());
                self.end(vec![cached], Status::Unset);
            }
            Event::Failed(why) | Event::Refused(why) | Event::Cancelled(why) => {
                let status = Status::error(why.clone());
                self.sums.context.span().set_status(status.clone());
                self.end(Vec::new(), status);
            }
        }
    }

    fn prefill(&self, attributes: Vec<KeyValue>, status: Status) {
        if let Some(started) = self.started {
            self.span("prefill", started, attributes, status);
        }
    }

    /// Ends the current phase and the answer.
    fn end(&mut self, mut attributes: Vec<KeyValue>, status: Status) {
        self.ended = true;
        self.sums.lock().tokens += self.tokens;
        match (self.started, self.first) {
            (_, Some(first)) => {
                attributes.push(KeyValue::new("gen_ai.usage.output_tokens", self.tokens));
                self.span("decode", first, attributes, status);
            }
            (Some(_), None) => self.prefill(attributes, status),
            (None, None) => self.span("queue", self.accepted, attributes, status),
        }
    }

    /// Records the phase `name`, which began at `began` and ends now.
    fn span(&self, name: &'static str, began: SystemTime, mut attributes: Vec<KeyValue>, status: Status) {
        if self.is_one_of_many {
            attributes.push(KeyValue::new("multigraft.choice", self.choice as i64));
        }
        let mut span = SpanBuilder::from_name(name)
            .with_start_time(began)
            .with_attributes(attributes)
            .start_with_context(&self.tracer, &self.sums.context);
        span.set_status(status);
        span.end();
    }
}

impl Drop for Phases {
    fn drop(&mut self) {
        if !self.ended {
            let hung_up = KeyValue::new("error.type", "client_disconnected");
            self.sums.context.span().set_attribute(hung_up.clone());
            self.end(vec![hung_up], Status::Unset);
        }
    }
}

/// OpenAI's `finish_reason`.
fn reason(reason: &FinishReason) -> &'static str {
    match reason {
        FinishReason::Length => "length",
        FinishReason::Eos(_)
        | FinishReason::StopToken(_)
        | FinishReason::StopString(_)
        | FinishReason::Complete => "stop",
    }
}

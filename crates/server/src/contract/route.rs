//! The types of a row in the table of [`super::routes`], and constructors that keep rows short.

use axum::http;

use super::{dialect::Dialect, limits::Limits};

/// Bytes of an uploaded form beyond the file in it: the boundaries, and the other fields.
const FORM_BYTES: usize = 64 << 10;

/// One path and what holds for all of its methods.
#[derive(Debug)]
pub(crate) struct Route {
    /// The path as the router writes it: `{id}` is one segment, `{*name}` is one or more.
    pub(crate) path: &'static str,
    /// The shape of its errors.
    pub(crate) dialect: Dialect,
    /// Whether a call needs an API key.
    pub(crate) access: Access,
    /// Whether a request ends when its time is over.
    pub(crate) time_limit: TimeLimit,
    /// What happens to requests that arrive while the server shuts down.
    pub(crate) at_shutdown: AtShutdown,
    /// OpenTelemetry's `gen_ai.operation.name`, if a model answers.
    pub(crate) operation_name: Option<&'static str>,
    /// Whether the lines of a batch may call it.
    pub(crate) in_batches: bool,
    /// Its group in the OpenAPI document.
    pub(crate) tag: &'static str,
    /// Its methods.
    pub(crate) endpoints: &'static [Endpoint],
}

/// One method of a path.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) method: Method,
    pub(crate) handler: Handler,
    /// What paths have to end with, if the method answers only some of the route's paths.
    pub(crate) suffix: Option<&'static str>,
    pub(crate) body_limit: BodyLimit,
    /// The action that the audit log records, if the endpoint changes adapters or keys.
    pub(crate) audit_action: Option<&'static str>,
    /// Its description in the OpenAPI document, if it is there.
    pub(crate) operation: Option<Operation>,
}

/// An operation of the OpenAPI document. Schemas are named as in its `components`.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) id: &'static str,
    pub(crate) summary: &'static str,
    /// Parameters of the query: name and description.
    pub(crate) query: &'static [(&'static str, &'static str)],
    pub(crate) request: RequestBody,
    /// Status and content. Errors of the route's dialect are added to them.
    pub(crate) answers: &'static [(u16, Content)],
}

/// The methods that routes answer. GET answers HEAD too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Post,
    Patch,
    Delete,
}

/// Whether a call needs an API key, on a server that has keys. Roles and grants are checked in the
/// handlers, which know the adapter or key that a request names, so that refusals are in the audit
/// log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Anybody, without a key: health probes, and the API description, which is the same on every
    /// server.
    Open,
    /// Clients with a valid key.
    Key,
}

/// Whether requests end with 504 after `--request-timeout` or their `x-request-timeout`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeLimit {
    /// No limit.
    Unlimited,
    /// The shorter of the server's and the request's limit.
    Request,
}

/// What happens to requests that arrive on open connections while the server shuts down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtShutdown {
    /// They are refused with 503.
    Refused,
    /// They are answered until the connection closes: probes and metrics.
    Answered,
}

/// The largest body of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyLimit {
    /// [`Limits::body_bytes`].
    Body,
    /// [`Limits::file_bytes`], and the form around the file.
    File,
    /// [`Limits::upload_bytes`].
    Upload,
}

/// The body that an operation takes.
#[derive(Debug)]
pub(crate) enum RequestBody {
    Nothing,
    /// JSON of a schema.
    Json(&'static str),
    /// `multipart/form-data` of a schema.
    Form(&'static str),
}

/// The content of an answer.
#[derive(Debug)]
pub(crate) enum Content {
    Nothing,
    /// JSON of a schema.
    Json(&'static str),
    /// JSON of a schema, or server-sent events if the request asks for a stream.
    JsonOrEvents(&'static str),
    /// A JSON array of a schema.
    List(&'static str),
    /// A JSON array of a schema, or server-sent events if the request asks for a stream.
    ListOrEvents(&'static str),
    /// Server-sent events.
    Events,
    /// Text of a content type.
    Text(&'static str),
    /// Prometheus' text format, or OpenMetrics.
    Metrics,
    /// SGLang's own answer to what cannot be done, or an error of the dialect.
    SglangRefusal,
}

/// The function that answers an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handler {
    ChatCompletions,
    Completions,
    Embeddings,
    ListModels,
    GetModel,
    Responses,
    ListFiles,
    AddFile,
    GetFile,
    RemoveFile,
    GetFileContent,
    ListBatches,
    AddBatch,
    GetBatch,
    CancelBatch,
    TgiCompatible,
    TgiGenerate,
    TgiGenerateStream,
    TgiEmbed,
    TgiTokenize,
    TgiChatTokenize,
    TgiInfo,
    ListAdapters,
    AddAdapter,
    GetAdapter,
    UploadAdapter,
    ChangeAdapter,
    RemoveAdapter,
    VllmLoad,
    VllmUnload,
    SglangLoad,
    SglangUnload,
    LlamaCppList,
    LlamaCppSet,
    ListKeys,
    AddKey,
    GetKey,
    ChangeKey,
    RevokeKey,
    RotateKey,
    Usage,
    Health,
    Ready,
    Version,
    Stats,
    Metrics,
    OpenApi,
    Docs,
}

pub(super) const fn openai(tag: &'static str, path: &'static str, endpoints: &'static [Endpoint]) -> Route {
    route(Dialect::OpenAi, tag, path, endpoints)
}

pub(super) const fn tgi(tag: &'static str, path: &'static str, endpoints: &'static [Endpoint]) -> Route {
    route(Dialect::Tgi, tag, path, endpoints)
}

/// A route with the common values: it needs a key, has no time limit and is refused at shutdown.
const fn route(
    dialect: Dialect,
    tag: &'static str,
    path: &'static str,
    endpoints: &'static [Endpoint],
) -> Route {
    Route {
        path,
        dialect,
        access: Access::Key,
        time_limit: TimeLimit::Unlimited,
        at_shutdown: AtShutdown::Refused,
        operation_name: None,
        in_batches: false,
        tag,
        endpoints,
    }
}

pub(super) const fn get(
    handler: Handler,
    id: &'static str,
    summary: &'static str,
    answers: &'static [(u16, Content)],
) -> Endpoint {
    undescribed(Method::Get, handler).described(id, summary, answers)
}

pub(super) const fn post(
    handler: Handler,
    id: &'static str,
    summary: &'static str,
    answers: &'static [(u16, Content)],
) -> Endpoint {
    undescribed(Method::Post, handler).described(id, summary, answers)
}

pub(super) const fn patch(
    handler: Handler,
    id: &'static str,
    summary: &'static str,
    answers: &'static [(u16, Content)],
) -> Endpoint {
    undescribed(Method::Patch, handler).described(id, summary, answers)
}

pub(super) const fn delete(
    handler: Handler,
    id: &'static str,
    summary: &'static str,
    answers: &'static [(u16, Content)],
) -> Endpoint {
    undescribed(Method::Delete, handler).described(id, summary, answers)
}

/// An endpoint that is not in the OpenAPI document.
pub(super) const fn undescribed(method: Method, handler: Handler) -> Endpoint {
    Endpoint {
        method,
        handler,
        suffix: None,
        body_limit: BodyLimit::Body,
        audit_action: None,
        operation: None,
    }
}

impl Route {
    pub(super) const fn open(self) -> Self {
        Self {
            access: Access::Open,
            ..self
        }
    }

    pub(super) const fn timed(self) -> Self {
        Self {
            time_limit: TimeLimit::Request,
            ..self
        }
    }

    pub(super) const fn answered_at_shutdown(self) -> Self {
        Self {
            at_shutdown: AtShutdown::Answered,
            ..self
        }
    }

    pub(super) const fn generates(self, operation_name: &'static str) -> Self {
        Self {
            operation_name: Some(operation_name),
            ..self
        }
    }

    pub(super) const fn in_batches(self) -> Self {
        Self {
            in_batches: true,
            ..self
        }
    }

    /// The endpoint for `method`.
    pub(crate) fn endpoint(&self, method: &http::Method) -> Option<&'static Endpoint> {
        let endpoints = self.endpoints;
        endpoints
            .iter()
            .find(|endpoint| endpoint.method.as_str() == method.as_str())
    }

    /// The methods of all of the route's paths, as the header `allow` lists them.
    pub(crate) fn allowed(&self) -> String {
        let endpoints = self.endpoints.iter().filter(|endpoint| endpoint.suffix.is_none());
        let names = endpoints.map(|endpoint| match endpoint.method {
            Method::Get => "GET,HEAD",
            method => method.as_str(),
        });
        names.collect::<Vec<_>>().join(",")
    }
}

impl Endpoint {
    const fn described(
        self,
        id: &'static str,
        summary: &'static str,
        answers: &'static [(u16, Content)],
    ) -> Self {
        Self {
            operation: Some(Operation {
                id,
                summary,
                query: &[],
                request: RequestBody::Nothing,
                answers,
            }),
            ..self
        }
    }

    pub(super) const fn takes(mut self, request: RequestBody) -> Self {
        if let Some(operation) = &mut self.operation {
            operation.request = request;
        }
        self
    }

    pub(super) const fn with_query(mut self, query: &'static [(&'static str, &'static str)]) -> Self {
        if let Some(operation) = &mut self.operation {
            operation.query = query;
        }
        self
    }

    pub(super) const fn with_body_limit(self, body_limit: BodyLimit) -> Self {
        Self { body_limit, ..self }
    }

    pub(super) const fn audited(self, action: &'static str) -> Self {
        Self {
            audit_action: Some(action),
            ..self
        }
    }

    /// For the paths that end with `suffix` alone.
    pub(super) const fn below(self, suffix: &'static str) -> Self {
        Self {
            suffix: Some(suffix),
            ..self
        }
    }
}

impl Method {
    /// The method's name in HTTP.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

impl BodyLimit {
    /// The largest body, in bytes.
    pub(crate) fn bytes(self, limits: &Limits) -> usize {
        match self {
            Self::Body => limits.body_bytes,
            Self::File => limits.file_bytes.saturating_add(FORM_BYTES),
            Self::Upload => limits.upload_bytes,
        }
    }
}

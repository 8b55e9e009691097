//! The router: the handlers of the routes in [`ROUTES`], and the middleware around them.

use std::any::Any;

use axum::{
    Extension, Json, Router,
    extract::{DefaultBodyLimit, Request, State},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::{MethodFilter, MethodRouter, on},
};
use multigraft_api::{Readiness, Ready};
use multigraft_engine::Engine;
use tower_http::{
    catch_panic::CatchPanicLayer,
    trace::{DefaultOnResponse, TraceLayer},
};
use tracing::{Level, Span};

use crate::{
    caller::{audit, authenticate::authenticate, time_limit},
    contract::{
        limits::Limits,
        route::{AtShutdown, Endpoint, Handler, Method, Route, TimeLimit},
        routes::{self, ROUTES},
    },
    http::{dialect, error::ApiError, request_id},
    manage::{
        adapters::{events::Stopping, llama_cpp, native, sglang, upload, vllm},
        keys, scrape, usage,
    },
    observe::{metrics, telemetry},
    openai::{batches, chat, completions, embeddings, files, models, responses},
    openapi,
    state::{AppState, stuck::stuck},
    tgi::{embed, generate, info, tokenize},
};

/// The HTTP interface over `state`.
pub fn router(state: AppState) -> Router {
    let routes = ROUTES.iter().fold(Router::new(), |router, route| {
        router.route(route.path, methods(route, state.limits()))
    });
    routes
        .fallback(unknown)
        .layer(middleware::from_fn_with_state(
            state.access().cloned(),
            audit::record,
        ))
        .layer(middleware::from_fn_with_state(state.clone(), authenticate))
        .layer(CatchPanicLayer::custom(internal_error))
        .layer(middleware::from_fn(refuse_at_shutdown))
        .layer(middleware::from_fn(check_length))
        .layer(middleware::from_fn(dialect::render_errors))
        .layer(middleware::from_fn_with_state(
            state.metrics().clone(),
            metrics::count,
        ))
        .layer(middleware::from_fn_with_state(
            state.telemetry().clone(),
            telemetry::trace,
        ))
        .layer(
            TraceLayer::new_for_http()
                .make_span_with(span)
                .on_response(DefaultOnResponse::new().level(Level::INFO)),
        )
        .layer(middleware::from_fn(request_id::assign))
        .with_state(state)
}

/// The handlers of `route` with its body limits, its time limit and the refusal of other methods.
fn methods(route: &'static Route, limits: &Limits) -> MethodRouter<AppState> {
    let endpoints = route.endpoints.iter().map(|endpoint| {
        let body_limit = DefaultBodyLimit::max(endpoint.body_limit.bytes(limits));
        handler(endpoint).layer(body_limit)
    });
    let all = endpoints
        .fold(MethodRouter::new(), MethodRouter::merge)
        .fallback(async move |request: Request| ApiError::method_not_allowed(&request, route));
    match route.time_limit {
        TimeLimit::Unlimited => all,
        TimeLimit::Request => all.layer(middleware::from_fn_with_state(limits.clone(), time_limit::limit)),
    }
}

/// The handler of `endpoint`, for its method.
fn handler(endpoint: &Endpoint) -> MethodRouter<AppState> {
    let filter = match endpoint.method {
        Method::Get => MethodFilter::GET,
        Method::Post => MethodFilter::POST,
        Method::Patch => MethodFilter::PATCH,
        Method::Delete => MethodFilter::DELETE,
    };
    match endpoint.handler {
        Handler::ChatCompletions => on(filter, chat::chat),
        Handler::Completions => on(filter, completions::completions),
        Handler::Embeddings => on(filter, embeddings::embeddings),
        Handler::Responses => on(filter, responses::responses),
        Handler::ListModels => on(filter, models::list),
        Handler::GetModel => on(filter, models::get),
        Handler::ListFiles => on(filter, files::list),
        Handler::AddFile => on(filter, files::upload),
        Handler::GetFile => on(filter, files::get),
        Handler::RemoveFile => on(filter, files::remove),
        Handler::GetFileContent => on(filter, files::content),
        Handler::ListBatches => on(filter, batches::list),
        Handler::AddBatch => on(filter, batches::create),
        Handler::GetBatch => on(filter, batches::get),
        Handler::CancelBatch => on(filter, batches::cancel),
        Handler::TgiCompatible => on(filter, generate::compatible),
        Handler::TgiGenerate => on(filter, generate::generate),
        Handler::TgiGenerateStream => on(filter, generate::generate_stream),
        Handler::TgiEmbed => on(filter, embed::embed),
        Handler::TgiTokenize => on(filter, tokenize::tokenize),
        Handler::TgiChatTokenize => on(filter, tokenize::chat_tokenize),
        Handler::TgiInfo => on(filter, info::info),
        Handler::ListAdapters => on(filter, native::list),
        Handler::AddAdapter => on(filter, native::add),
        Handler::GetAdapter => on(filter, native::get),
        Handler::UploadAdapter => on(filter, upload::upload),
        Handler::ChangeAdapter => on(filter, native::change),
        Handler::RemoveAdapter => on(filter, native::remove),
        Handler::VllmLoad => on(filter, vllm::load),
        Handler::VllmUnload => on(filter, vllm::unload),
        Handler::SglangLoad => on(filter, sglang::load),
        Handler::SglangUnload => on(filter, sglang::unload),
        Handler::LlamaCppList => on(filter, llama_cpp::list),
        Handler::LlamaCppSet => on(filter, llama_cpp::set),
        Handler::ListKeys => on(filter, keys::list),
        Handler::AddKey => on(filter, keys::add),
        Handler::GetKey => on(filter, keys::get),
        Handler::ChangeKey => on(filter, keys::change),
        Handler::RevokeKey => on(filter, keys::revoke),
        Handler::RotateKey => on(filter, keys::rotate),
        Handler::Usage => on(filter, usage::report),
        Handler::Health => on(filter, health),
        Handler::Ready => on(filter, ready),
        Handler::Version => on(filter, info::version),
        Handler::Stats => on(filter, info::stats),
        Handler::Metrics => on(filter, scrape::metrics),
        Handler::OpenApi => on(filter, openapi::openapi),
        Handler::Docs => on(filter, openapi::docs),
    }
}

/// The tracing span of a request, which prefixes its log lines.
fn span(request: &Request) -> Span {
    tracing::info_span!("request", method = %request.method(), uri = %request.uri(), id = request_id::of(request))
}

/// `GET /health`, `GET /ping` and `POST /ping`: 200 while the engine runs, 503 once it has stopped.
async fn health(State(engine): State<Engine>) -> StatusCode {
    if engine.is_stopped() {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::OK
    }
}

/// `GET /ready`: 200 while new requests are accepted, else 503 with the reason.
async fn ready(
    State(engine): State<Engine>,
    State(limits): State<Limits>,
    stopping: Option<Extension<Stopping>>,
) -> Response {
    let reason = if is_stopping(stopping.as_ref()) {
        "the server is shutting down"
    } else if engine.is_stopped() {
        "the engine has stopped"
    } else if stuck(&engine, &limits).is_some() {
        "a step of the engine does not end"
    } else {
        let ready = Ready {
            status: Readiness::Ready,
            reason: None,
        };
        return Json(ready).into_response();
    };
    let not_ready = Ready {
        status: Readiness::NotReady,
        reason: Some(reason.to_owned()),
    };
    (StatusCode::SERVICE_UNAVAILABLE, Json(not_ready)).into_response()
}

fn is_stopping(stopping: Option<&Extension<Stopping>>) -> bool {
    stopping.is_some_and(|stopping| *stopping.borrow())
}

/// Middleware: while the server shuts down, refuses requests on connections that are still open.
async fn refuse_at_shutdown(stopping: Option<Extension<Stopping>>, request: Request, next: Next) -> Response {
    let route = routes::of(request.extensions());
    let is_refused = route.is_none_or(|route| route.at_shutdown == AtShutdown::Refused);
    if is_stopping(stopping.as_ref()) && is_refused {
        return ApiError::ShuttingDown.into_response();
    }
    next.run(request).await
}

/// Longest path with query, in bytes.
const URI_BYTES: usize = 8 << 10;

/// Middleware: refuses paths longer than [`URI_BYTES`] with 414.
async fn check_length(request: Request, next: Next) -> Response {
    let uri = request.uri();
    let length = uri.path().len() + uri.query().map_or(0, |query| 1 + query.len());
    if length > URI_BYTES {
        let limit = URI_BYTES;
        return ApiError::LongUri { length, limit }.into_response();
    }
    next.run(request).await
}

async fn unknown(request: Request) -> ApiError {
    ApiError::unknown_route(&request)
}

/// A panic in a handler ends its request, not the server. The panic itself is in the log.
fn internal_error(_: Box<dyn Any + Send>) -> Response {
    ApiError::Failed("an internal error; the server's log says more".to_owned()).into_response()
}

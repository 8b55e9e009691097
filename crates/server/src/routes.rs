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

/// The whole of the HTTP interface over `state`.
pub fn router(state: AppState) -> Router {
    let routes = ROUTES.iter().fold(Router::new(), |router, route| {
        router.route(route.path, answered(route, state.limits()))
    });
    routes
        .fallback(unknown)
        .layer(middleware::from_fn_with_state(
            state.access().cloned(),
            audit::record,
        ))
        .layer(middleware::from_fn_with_state(state.clone(), authenticate))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn(refuse_at_the_end))
        .layer(middleware::from_fn(check_length))
        .layer(middleware::from_fn(dialect::word_errors))
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
        .layer(middleware::from_fn(request_id::name))
        .with_state(state)
}

/// The handlers of `route`, within what the table says of it: limits of bodies, the time limit, and
/// the refusal of other methods.
fn answered(route: &'static Route, limits: &Limits) -> MethodRouter<AppState> {
    let endpoints = route.endpoints.iter().map(|endpoint| {
        let largest = DefaultBodyLimit::max(endpoint.body_limit.bytes(limits));
        handled(endpoint).layer(largest)
    });
    let methods = endpoints
        .fold(MethodRouter::new(), MethodRouter::merge)
        .fallback(async move |request: Request| ApiError::method_not_allowed(&request, route));
    match route.time_limit {
        TimeLimit::Unlimited => methods,
        TimeLimit::Request => {
            methods.layer(middleware::from_fn_with_state(limits.clone(), time_limit::limit))
        }
    }
}

/// The handler of `endpoint`, for its method.
fn handled(endpoint: &Endpoint) -> MethodRouter<AppState> {
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

/// What the log's lines of a request have before them.
fn span(request: &Request) -> Span {
    tracing::info_span!("request", method = %request.method(), uri = %request.uri(), id = request_id::of(request))
}

/// `GET /health`, `GET /ping` and `POST /ping`: 200 while requests are answered, 503 once the
/// engine has stopped.
async fn health(State(engine): State<Engine>) -> StatusCode {
    if engine.is_stopped() {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::OK
    }
}

/// `GET /ready`: 200 while new requests are taken, else 503 with the reason.
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

/// Middleware: once the server stops, refuses requests that come on connections of before.
async fn refuse_at_the_end(stopping: Option<Extension<Stopping>>, request: Request, next: Next) -> Response {
    let route = routes::of(request.extensions());
    let is_refused = route.is_none_or(|route| route.at_shutdown == AtShutdown::Refused);
    if is_stopping(stopping.as_ref()) && is_refused {
        return ApiError::ShuttingDown.into_response();
    }
    next.run(request).await
}

/// The most bytes of a path with its query.
const URI_BYTES: usize = 8 << 10;

/// Middleware: refuses paths that are longer than any name.
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

/// A bug of ours costs its request, not the server; the panic itself is in the log.
fn panicked(_: Box<dyn Any + Send>) -> Response {
    ApiError::Failed("an internal error; the server's log says more".to_owned()).into_response()
}

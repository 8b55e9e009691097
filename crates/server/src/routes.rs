//! Every route, in one table.

use std::any::Any;

use axum::{
    Extension, Json, Router,
    extract::{DefaultBodyLimit, Request, State},
    handler::Handler,
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
    contract::limits::Limits,
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
    Router::new()
        .merge(answering(&state))
        // OpenAI
        .route(
            "/v1/files",
            on(MethodFilter::GET, files::list)
                .post(files::upload.layer(DefaultBodyLimit::max(
                    // The form around the file is small.
                    state.limits().file_bytes.saturating_add(64 << 10),
                )))
                .fallback(|request| not_allowed(request, "GET,HEAD,POST")),
        )
        .route(
            "/v1/files/{id}",
            on(MethodFilter::GET, files::get)
                .delete(files::remove)
                .fallback(|request| not_allowed(request, "GET,HEAD,DELETE")),
        )
        .route("/v1/files/{id}/content", get(files::content))
        .route(
            "/v1/batches",
            on(MethodFilter::GET, batches::list)
                .post(batches::create)
                .fallback(|request| not_allowed(request, "GET,HEAD,POST")),
        )
        .route("/v1/batches/{id}", get(batches::get))
        .route("/v1/batches/{id}/cancel", post(batches::cancel))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*name}", get(models::get))
        // TGI
        .route("/tokenize", post(tokenize::tokenize))
        .route("/chat_tokenize", post(tokenize::chat_tokenize))
        .route("/info", get(info::info))
        // Adapters: our own, vLLM's, SGLang's and llama.cpp's
        .route(
            "/v1/adapters",
            on(MethodFilter::GET, native::list)
                .post(native::add)
                .fallback(|request| not_allowed(request, "GET,HEAD,POST")),
        )
        .route(
            "/v1/adapters/{*name}",
            on(MethodFilter::GET, native::get)
                .post(upload::upload.layer(DefaultBodyLimit::max(state.limits().upload_bytes)))
                .patch(native::change)
                .delete(native::remove)
                .fallback(|request| not_allowed(request, "GET,HEAD,PATCH,DELETE")),
        )
        .route("/v1/load_lora_adapter", post(vllm::load))
        .route("/v1/unload_lora_adapter", post(vllm::unload))
        .route("/load_lora_adapter", post(sglang::load))
        .route("/unload_lora_adapter", post(sglang::unload))
        .route(
            "/lora-adapters",
            on(MethodFilter::GET, llama_cpp::list)
                .post(llama_cpp::set)
                .fallback(|request| not_allowed(request, "GET,HEAD,POST")),
        )
        // API keys
        .route(
            "/v1/keys",
            on(MethodFilter::GET, keys::list)
                .post(keys::add)
                .fallback(|request| not_allowed(request, "GET,HEAD,POST")),
        )
        .route(
            "/v1/keys/{id}",
            on(MethodFilter::GET, keys::get)
                .patch(keys::change)
                .delete(keys::revoke)
                .fallback(|request| not_allowed(request, "GET,HEAD,PATCH,DELETE")),
        )
        .route("/v1/keys/{id}/rotate", post(keys::rotate))
        // For those who run it
        .route("/v1/usage", get(usage::report))
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route(
            "/ping",
            on(MethodFilter::GET, health)
                .post(health)
                .fallback(|request| not_allowed(request, "GET,HEAD,POST")),
        )
        .route("/version", get(info::version))
        .route("/stats", get(info::stats))
        .route("/metrics", get(scrape::metrics))
        .route("/openapi.json", get(openapi::openapi))
        .route("/docs", get(openapi::docs))
        .fallback(unknown)
        .layer(DefaultBodyLimit::max(state.limits().body_bytes))
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

/// The routes that the model answers, each within its time.
fn answering(state: &AppState) -> Router<AppState> {
    Router::new()
        // OpenAI
        .route("/v1/chat/completions", post(chat::chat))
        .route("/v1/completions", post(completions::completions))
        .route("/v1/responses", post(responses::responses))
        .route("/v1/embeddings", post(embeddings::embeddings))
        // TGI
        .route("/", post(generate::compatible))
        // What SageMaker calls of a container.
        .route("/invocations", post(generate::compatible))
        .route("/generate", post(generate::generate))
        .route("/generate_stream", post(generate::generate_stream))
        .route("/embed", post(embed::embed))
        .route_layer(middleware::from_fn_with_state(
            state.limits().clone(),
            time_limit::limit,
        ))
}

fn get<H: Handler<T, AppState>, T: 'static>(handler: H) -> MethodRouter<AppState> {
    on(MethodFilter::GET, handler).fallback(|request| not_allowed(request, "GET,HEAD"))
}

fn post<H: Handler<T, AppState>, T: 'static>(handler: H) -> MethodRouter<AppState> {
    on(MethodFilter::POST, handler).fallback(|request| not_allowed(request, "POST"))
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

/// What is answered to the last: whether the server lives, whether it takes requests, and what it
/// did.
const TO_THE_LAST: [&str; 4] = ["/health", "/ping", "/ready", "/metrics"];

fn is_stopping(stopping: Option<&Extension<Stopping>>) -> bool {
    stopping.is_some_and(|stopping| *stopping.borrow())
}

/// Middleware: once the server stops, refuses requests that come on connections of before.
async fn refuse_at_the_end(stopping: Option<Extension<Stopping>>, request: Request, next: Next) -> Response {
    if is_stopping(stopping.as_ref()) && !TO_THE_LAST.contains(&request.uri().path()) {
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
    ApiError::UnknownRoute {
        path: request.uri().path().to_owned(),
    }
}

async fn not_allowed(request: Request, allowed: &str) -> ApiError {
    ApiError::MethodNotAllowed {
        path: request.uri().path().to_owned(),
        method: request.method().to_string(),
        allowed: allowed.to_owned(),
    }
}

/// A bug of ours costs its request, not the server; the panic itself is in the log.
fn panicked(_: Box<dyn Any + Send>) -> Response {
    ApiError::Failed("an internal error; the server's log says more".to_owned()).into_response()
}

//! Every route, in one table.

use std::{any::Any, sync::Arc};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    handler::Handler,
    http::StatusCode,
    middleware,
    response::{IntoResponse as _, Response},
    routing::{MethodFilter, MethodRouter, on},
};
use tower_http::{
    catch_panic::CatchPanicLayer,
    trace::{DefaultMakeSpan, DefaultOnResponse, TraceLayer},
};
use tracing::Level;

use crate::{
    adapters::{llama_cpp, own, sglang, upload, vllm},
    dialect,
    error::ApiError,
    keys, metrics,
    openai::{chat, completions, embeddings, models},
    openapi, session,
    state::{AppState, Shared},
    tgi::{embed, generate, info, tokenize},
};

/// The whole of the HTTP interface over `state`.
pub fn router(state: Arc<AppState>) -> Router {
    Router::new()
        // OpenAI
        .route("/v1/chat/completions", post(chat::chat))
        .route("/v1/completions", post(completions::completions))
        .route("/v1/embeddings", post(embeddings::embeddings))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*name}", get(models::get))
        // TGI
        .route("/", post(generate::compatible))
        // What SageMaker calls of a container.
        .route("/invocations", post(generate::compatible))
        .route("/generate", post(generate::generate))
        .route("/generate_stream", post(generate::generate_stream))
        .route("/embed", post(embed::embed))
        .route("/tokenize", post(tokenize::tokenize))
        .route("/chat_tokenize", post(tokenize::chat_tokenize))
        .route("/info", get(info::info))
        // Adapters: our own, vLLM's, SGLang's and llama.cpp's
        .route(
            "/v1/adapters",
            on(MethodFilter::GET, own::list)
                .post(own::add)
                .fallback(|request| not_allowed(request, "GET,HEAD,POST")),
        )
        .route(
            "/v1/adapters/{*name}",
            on(MethodFilter::GET, own::get)
                .post(upload::upload.layer(DefaultBodyLimit::max(state.limits.upload_bytes)))
                .patch(own::change)
                .delete(own::remove)
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
        .route("/health", get(health))
        .route(
            "/ping",
            on(MethodFilter::GET, health)
                .post(health)
                .fallback(|request| not_allowed(request, "GET,HEAD,POST")),
        )
        .route("/version", get(info::version))
        .route("/stats", get(info::stats))
        .route("/metrics", get(metrics::metrics))
        .route("/openapi.json", get(openapi::openapi))
        .route("/docs", get(openapi::docs))
        .fallback(unknown)
        .layer(DefaultBodyLimit::max(state.limits.body_bytes))
        .layer(middleware::from_fn_with_state(
            Arc::clone(&state),
            session::authenticate,
        ))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn(dialect::word_errors))
        .layer(middleware::from_fn_with_state(Arc::clone(&state), metrics::count))
        .layer(
            TraceLayer::new_for_http()
                .make_span_with(DefaultMakeSpan::new().level(Level::INFO))
                .on_response(DefaultOnResponse::new().level(Level::INFO)),
        )
        .with_state(state)
}

fn get<H: Handler<T, Shared>, T: 'static>(handler: H) -> MethodRouter<Shared> {
    on(MethodFilter::GET, handler).fallback(|request| not_allowed(request, "GET,HEAD"))
}

fn post<H: Handler<T, Shared>, T: 'static>(handler: H) -> MethodRouter<Shared> {
    on(MethodFilter::POST, handler).fallback(|request| not_allowed(request, "POST"))
}

/// `GET /health`, `GET /ping` and `POST /ping`: 200 while requests are answered, 503 once the engine has stopped.
async fn health(State(state): State<Shared>) -> StatusCode {
    if state.engine.is_stopped() {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::OK
    }
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

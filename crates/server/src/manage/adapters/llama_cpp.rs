//! llama.cpp's `/lora-adapters`: adapters by number, and scales for all requests.

use axum::Json;
use schemars::JsonSchema;
use serde::Serialize;

use crate::{caller::session::Session, http::error::ApiError};

/// An adapter as llama.cpp lists it.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Adapter {
    /// Index in the list.
    id: usize,
    path: String,
    /// The scale for requests that choose no adapter: 0, because the base answers those.
    scale: f32,
    /// The adapter's name in requests, which llama.cpp does not report.
    name: String,
}

/// `GET /lora-adapters`.
pub(crate) async fn list(session: Session) -> Json<Vec<Adapter>> {
    let listed = session.list().into_iter().enumerate();
    let adapters = listed.map(|(id, listed)| Adapter {
        id,
        path: listed
            .active()
            .map_or_else(String::new, |version| version.source.to_string()),
        scale: 0.0,
        name: listed.name,
    });
    Json(adapters.collect())
}

/// `POST /lora-adapters`: refused. With a scale for all requests, an adapter would answer under the
/// name of the base.
pub(crate) async fn set() -> ApiError {
    ApiError::Unusable(
        "scales that hold for all requests are not supported: a request chooses its adapter by its name, as `model` or \
         `adapter_id`"
            .to_owned(),
    )
}

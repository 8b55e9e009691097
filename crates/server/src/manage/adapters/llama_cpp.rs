//! llama.cpp's `/lora-adapters`: a list by number, and one scale for all requests.

use axum::Json;
use schemars::JsonSchema;
use serde::Serialize;

use crate::{caller::session::Session, http::error::ApiError};

/// An adapter as llama.cpp lists it.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Adapter {
    /// Its place in the list.
    id: usize,
    path: String,
    /// What requests that choose nothing get of it: nothing, they are answered by the base.
    scale: f32,
    /// What requests call it by, which llama.cpp does not say.
    name: String,
}

/// `GET /lora-adapters`.
pub(crate) async fn list(state: Session) -> Json<Vec<Adapter>> {
    let listed = state.list().into_iter().enumerate();
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

/// `POST /lora-adapters`: refused. A scale for everybody's requests would answer under the base's
/// name with an adapter.
pub(crate) async fn set() -> ApiError {
    ApiError::Unusable(
        "scales that hold for all requests are not supported: a request chooses its adapter by its name, as `model` or \
         `adapter_id`"
            .to_owned(),
    )
}

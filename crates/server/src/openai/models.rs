//! `GET /v1/models` and `GET /v1/models/{id}`.

use axum::{
    Json,
    extract::{Path, State},
};
use multigraft_adapters::Entry;
use serde::Serialize;

use super::types::seconds;
use crate::{
    error::ApiError,
    state::{AppState, Shared},
};

/// A model as vLLM lists it, so that tools made for it find the adapters.
#[derive(Debug, Serialize)]
pub(crate) struct Model {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    /// Where it was loaded from.
    root: String,
    /// The base, if it is an adapter.
    parent: Option<String>,
    max_model_len: usize,
    permission: [(); 0],
    /// The adapter's content hash; `base` for the base.
    hash: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct List {
    object: &'static str,
    data: Vec<Model>,
}

/// All models, the base first.
pub(crate) async fn list(State(state): State<Shared>) -> Json<List> {
    let mut data = vec![base(&state)];
    data.extend(state.catalog.entries().iter().map(|entry| adapter(&state, entry)));
    Json(List { object: "list", data })
}

/// One model. Names may contain slashes.
pub(crate) async fn get(
    State(state): State<Shared>,
    Path(name): Path<String>,
) -> Result<Json<Model>, ApiError> {
    if name == state.catalog.base() {
        return Ok(Json(base(&state)));
    }
    match state.catalog.get(&name) {
        Some(entry) => Ok(Json(adapter(&state, &entry))),
        None => Err(ApiError::unknown_model(&name, state.names())),
    }
}

fn base(state: &AppState) -> Model {
    Model {
        id: state.catalog.base().to_owned(),
        object: "model",
        created: seconds(state.started),
        owned_by: "multigraft",
        root: state.base.path.display().to_string(),
        parent: None,
        max_model_len: state.base.context,
        permission: [],
        hash: "base".to_owned(),
    }
}

fn adapter(state: &AppState, entry: &Entry) -> Model {
    Model {
        id: entry.name.clone(),
        root: entry.path.display().to_string(),
        parent: Some(state.catalog.base().to_owned()),
        hash: entry.hash.to_string(),
        ..base(state)
    }
}

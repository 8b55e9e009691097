//! `GET /v1/models` and `GET /v1/models/{id}`.

use axum::{Json, extract::Path};
use multigraft_adapters::Listed;
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    caller::session::Session,
    http::{error::ApiError, id::seconds},
};

/// A model in the form that vLLM lists it, so that tools for vLLM find the adapters.
#[derive(Debug, Serialize, JsonSchema)]
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
    /// The adapter's content hash, null until its files are read; `base` for the base.
    hash: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct List {
    object: &'static str,
    data: Vec<Model>,
}

/// All models, the base first.
pub(crate) async fn list(state: Session) -> Json<List> {
    let mut data: Vec<Model> = state.may_use_base().then(|| base(&state)).into_iter().collect();
    data.extend(state.list().iter().map(|listed| adapter(&state, listed)));
    Json(List { object: "list", data })
}

/// One model. Names may contain slashes.
pub(crate) async fn get(state: Session, Path(name): Path<String>) -> Result<Json<Model>, ApiError> {
    if name == state.base_name() && state.may_use_base() {
        return Ok(Json(base(&state)));
    }
    match state.listed(&name) {
        Some(listed) => Ok(Json(adapter(&state, &listed))),
        None => Err(ApiError::unknown_model(&name, state.names())),
    }
}

fn base(state: &Session) -> Model {
    Model {
        id: state.base_name().to_owned(),
        object: "model",
        created: seconds(state.started()),
        owned_by: "multigraft",
        root: state.base().path.display().to_string(),
        parent: None,
        max_model_len: state.base().context,
        permission: [],
        hash: Some("base".to_owned()),
    }
}

fn adapter(state: &Session, listed: &Listed) -> Model {
    let active = listed.active();
    Model {
        id: listed.name.clone(),
        created: active.map_or(seconds(state.started()), |version| seconds(version.added)),
        root: active.map_or_else(String::new, |version| version.source.to_string()),
        parent: Some(state.base_name().to_owned()),
        hash: active
            .and_then(|version| version.hash)
            .map(|hash| hash.to_string()),
        ..base(state)
    }
}

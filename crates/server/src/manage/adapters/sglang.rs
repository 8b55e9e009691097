//! SGLang's `/load_lora_adapter` and `/unload_lora_adapter`.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use multigraft_adapters::{AddedBy, Adding};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    caller::session::Session,
    http::{dialect::Dialect, error::ApiError, fields::Fields},
};

/// The answer of both routes.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Done {
    success: bool,
    error_message: Option<String>,
    /// Name → source.
    loaded_adapters: Map<String, Value>,
}

/// `POST /load_lora_adapter`.
pub(crate) async fn load(session: Session, mut fields: Fields) -> Result<Response, ApiError> {
    let name = fields.required("lora_name")?;
    let path = fields.required("lora_path")?;
    let adding = Adding {
        replace: false,
        pinned: fields.flag("pinned")?,
        by: AddedBy::Http,
        ..Adding::default()
    };
    fields.finish()?;
    let added = session.add_adapter(&name, &path, adding).await;
    Ok(done(&session, added.map(|_| ())))
}

/// `POST /unload_lora_adapter`.
pub(crate) async fn unload(session: Session, mut fields: Fields) -> Result<Response, ApiError> {
    let name = fields.required("lora_name")?;
    fields.finish()?;
    let removed = session.remove_adapter(&name, false).await;
    Ok(done(&session, removed))
}

fn done(session: &Session, outcome: Result<(), ApiError>) -> Response {
    let status = match &outcome {
        Ok(()) => StatusCode::OK,
        // SGLang answers every failure with this status.
        Err(error) if error.status(Dialect::OpenAi).is_client_error() => StatusCode::BAD_REQUEST,
        Err(error) => error.status(Dialect::OpenAi),
    };
    let listed = session.list();
    let loaded = listed.into_iter().filter_map(|listed| {
        let source = listed.active()?.source.to_string();
        Some((listed.name, source.into()))
    });
    let done = Done {
        success: outcome.is_ok(),
        error_message: outcome.err().map(|error| error.to_string()),
        loaded_adapters: loaded.collect(),
    };
    (status, Json(done)).into_response()
}

//! LoRAX's `POST /embed`.

use axum::{
    Json,
    response::{IntoResponse as _, Response},
};
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    caller::session::Session,
    generation::{
        choice::ModelChoice,
        embedding::{Embed, pooling},
        tokens::encode,
    },
    http::{dialect::Dialect, error::ApiError, fields::Fields},
};

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Embeddings {
    embeddings: Vec<f32>,
}

/// The handler: one text, one vector.
pub(crate) async fn embed(state: Session, mut fields: Fields) -> Result<Response, ApiError> {
    let inputs = fields.required("inputs")?;
    let mut parameters = match fields.object("parameters")? {
        Some(parameters) => parameters,
        None => Fields::none("parameters"),
    };
    let choice = ModelChoice::tgi(&mut parameters)?;
    parameters.refuse(
        "api_token",
        "a token of the request's own: the server fetches with its HF_TOKEN",
        |value| value == "",
    )?;
    let pooling = pooling(&mut parameters)?;
    // What LoRAX's client sends with every request, whatever it is about.
    fields.ignore(&["stream"]);
    parameters.finish()?;
    fields.finish()?;
    let tokens = encode(state.tokenizer(), "inputs", &inputs, true).await?;
    let embed = Embed {
        field: "inputs",
        inputs: vec![tokens],
        pooling,
        tenant: None,
    };
    let (model, embedded) = embed.run(&state, &choice, Dialect::Tgi).await?;
    let embeddings = embedded.vectors.into_iter().flatten().collect();
    let mut response = Json(Embeddings { embeddings }).into_response();
    model.label(response.headers_mut());
    Ok(response)
}

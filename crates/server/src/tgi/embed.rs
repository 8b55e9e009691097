//! LoRAX's `POST /embed`.

use axum::{
    Json,
    response::{IntoResponse as _, Response},
};
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    caller::session::Session,
    contract::fields::{Body, tgi as row},
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
    let inputs = fields.required(row::INPUTS)?;
    let mut parameters = match fields.object(row::EMBED_PARAMETERS)? {
        Some(parameters) => parameters,
        None => Fields::none(row::EMBED_PARAMETERS.name),
    };
    let choice = ModelChoice::tgi(&mut parameters, state.limits())?;
    parameters.drop_unsupported(Body::EmbedParameters)?;
    let pooling = pooling(&mut parameters)?;
    fields.drop_unsupported(Body::Embed)?;
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

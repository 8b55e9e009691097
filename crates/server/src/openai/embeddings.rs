//! `POST /v1/embeddings`.

use axum::{
    Json,
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use schemars::JsonSchema;
use serde::Serialize;

use super::{completions::prompts, parameters::tenant};
use crate::{
    caller::session::Session,
    contract::fields::{Body, openai as row},
    generation::{
        choice::ModelChoice,
        embedding::{Embed, most_inputs, pooling},
    },
    http::{dialect::Dialect, error::ApiError, fields::Fields},
};

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct List {
    object: &'static str,
    data: Vec<Entry>,
    model: String,
    usage: Usage,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Entry {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

/// An embedding in the format that the request chooses.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Vector {
    Floats(Vec<f32>),
    /// The bytes of the floats, little-endian.
    Base64(String),
}

/// Tokens of an embeddings request. Nothing is generated, so there are no completion tokens.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
    prompt_tokens_details: super::types::PromptTokensDetails,
}

/// The handler.
pub(crate) async fn embeddings(state: Session, mut fields: Fields) -> Result<Response, ApiError> {
    let choice = ModelChoice::openai(&state, &mut fields)?;
    let base64 = fields.one_of(&row::ENCODING_FORMAT)? == Some("base64");
    let width = state.base().hidden;
    if let Some(dimensions) = fields.count(&row::DIMENSIONS, state.limits())?
        && dimensions != width
    {
        let problem =
            format!("is {dimensions}, but embeddings of this model have {width}, and no meaning cut short");
        return Err(fields.complain(row::DIMENSIONS, &problem));
    }
    let pooling = pooling(&mut fields)?;
    let tenant = tenant(&mut fields)?;
    fields.drop_unsupported(Body::Embeddings)?;
    let inputs = prompts(
        &state,
        &mut fields,
        row::EMBEDDINGS_INPUT.name,
        most_inputs(&state),
    )
    .await?;
    fields.finish()?;
    let embed = Embed {
        field: "input",
        inputs: inputs.into_iter().map(|input| input.tokens).collect(),
        pooling,
        tenant,
    };
    let (model, embedded) = embed.run(&state, &choice, Dialect::OpenAi).await?;
    let entry = |(index, vector): (usize, Vec<f32>)| Entry {
        object: "embedding",
        index,
        embedding: if base64 {
            encoded(&vector)
        } else {
            Vector::Floats(vector)
        },
    };
    let mut response = Json(List {
        object: "list",
        data: embedded.vectors.into_iter().enumerate().map(entry).collect(),
        model: model.name.clone(),
        usage: Usage {
            prompt_tokens: embedded.prompt_tokens,
            total_tokens: embedded.prompt_tokens,
            prompt_tokens_details: super::types::PromptTokensDetails {
                cached_tokens: embedded.cached_tokens,
            },
        },
    })
    .into_response();
    model.label(response.headers_mut());
    Ok(response)
}

fn encoded(vector: &[f32]) -> Vector {
    let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
    Vector::Base64(STANDARD.encode(bytes))
}

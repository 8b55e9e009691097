//! Embeddings: a vector of length 1 for each prompt. The routes of the dialects differ in the form
//! of request and answer alone.

use multigraft_engine::{Pooling, Request, Tenant};

use super::choice::ModelChoice;
use crate::{
    caller::session::Session,
    contract::{fields::openai::POOLING, model::ResolvedModel},
    http::{dialect::Dialect, error::ApiError, fields::Fields},
};

/// OpenAI's limit of inputs in one request.
const MOST: usize = 2048;

/// A request for embeddings.
#[derive(Debug)]
pub(crate) struct Embed {
    /// The field that holds the inputs, as messages spell it.
    pub field: &'static str,
    /// The tokens of each input.
    pub inputs: Vec<Vec<u32>>,
    /// How the positions' hidden states become one vector.
    pub pooling: Pooling,
    /// The partition of the prefix cache, within that of the key.
    pub tenant: Option<Tenant>,
}

/// Computed embeddings.
#[derive(Debug)]
pub(crate) struct Embedded {
    /// One for each input, `[hidden]`, of length 1.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens of all inputs.
    pub prompt_tokens: usize,
    /// Tokens of them that came from the prefix cache.
    pub cached_tokens: usize,
}

impl Embed {
    /// Computes the embeddings with the chosen model.
    pub(crate) async fn run(
        self,
        state: &Session,
        choice: &ModelChoice,
        dialect: Dialect,
    ) -> Result<(ResolvedModel, Embedded), ApiError> {
        let room = state.engine().limits().room_after(0);
        for (index, input) in self.inputs.iter().enumerate() {
            let problem = match input.len() {
                0 => "has no tokens: there is nothing to embed".to_owned(),
                tokens if tokens > room => {
                    format!(
                        "has {tokens} tokens, but a sequence may have at most {room} here; embed it in parts"
                    )
                }
                _ => continue,
            };
            let which = match self.inputs.len() {
                1 => format!("`{}`", self.field),
                _ => format!("`{}[{index}]`", self.field),
            };
            return Err(ApiError::invalid(self.field, format!("{which} {problem}")));
        }
        let mut reservation = state.reserve(choice).await?;
        let request = |input| Request {
            adapter: reservation.adapter.clone(),
            tenant: self.tenant,
            ..Request::embedding(input, self.pooling)
        };
        let requests = self.inputs.into_iter().map(request).collect();
        let answers = state
            .submit(requests, &mut reservation, dialect)
            .map_err(|error| match error {
                // Errors about the prompt name the field of the inputs.
                ApiError::Invalid {
                    field: Some(field),
                    message,
                } if matches!(field.as_str(), "prompt" | "inputs") => ApiError::invalid(self.field, message),
                error => error,
            });
        let answers = answers?.collect().await?;
        let mut embedded = Embedded {
            vectors: Vec::with_capacity(answers.len()),
            prompt_tokens: 0,
            cached_tokens: 0,
        };
        for answer in answers {
            embedded.prompt_tokens += answer.finish.prompt_tokens;
            embedded.cached_tokens += answer.finish.cached_tokens;
            embedded.vectors.push(normalised(answer.embedding));
        }
        Ok((reservation.model, embedded))
    }
}

/// The most inputs of one request: all of them must fit into the queue.
pub(crate) fn most_inputs(state: &Session) -> usize {
    MOST.min(state.engine().limits().max_waiting)
}

/// `pooling`: `mean`, unless it says `last`.
pub(crate) fn pooling(fields: &mut Fields) -> Result<Pooling, ApiError> {
    Ok(match fields.one_of(&POOLING)? {
        Some("last") => Pooling::Last,
        _ => Pooling::Mean,
    })
}

/// The vector divided by its length. The zero vector stays as it is.
#[expect(
    clippy::cast_possible_truncation,
    reason = "no component is longer than the whole"
)]
fn normalised(vector: Vec<f32>) -> Vec<f32> {
    let length = vector
        .iter()
        .map(|&value| f64::from(value).powi(2))
        .sum::<f64>()
        .sqrt();
    if length == 0.0 {
        return vector;
    }
    vector
        .into_iter()
        .map(|value| (f64::from(value) / length) as f32)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_get_the_length_1_also_where_squares_overflow() {
        assert_eq!(normalised(vec![3.0, -4.0]), [0.6, -0.8]);
        assert_eq!(normalised(vec![0.0, 0.0]), [0.0, 0.0]);
        assert_eq!(normalised(vec![1e30, 0.0]), [1.0, 0.0]);
    }
}

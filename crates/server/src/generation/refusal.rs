//! The engine's refusals, with the field names of the request's dialect.

use multigraft_engine::SubmitError;

use crate::http::{dialect::Dialect, error::ApiError};

/// `error` as an error of the request, with the field names of `dialect`.
pub(crate) fn refusal(error: SubmitError, dialect: Dialect) -> ApiError {
    let (prompt, max_tokens, within) = match dialect {
        Dialect::OpenAi => ("prompt", "max_tokens", ""),
        Dialect::Tgi => ("inputs", "parameters.max_new_tokens", "parameters."),
    };
    let message = error.to_string();
    match error {
        SubmitError::EmptyPrompt | SubmitError::UnknownToken { .. } | SubmitError::NotInvoked { .. } => {
            ApiError::invalid(prompt, message)
        }
        SubmitError::UnknownBiasToken { .. } => ApiError::invalid(format!("{within}logit_bias"), message),
        SubmitError::TooLongForContext {
            prompt,
            max_tokens: requested,
            context: limit,
        }
        | SubmitError::TooLongForCache {
            prompt,
            max_tokens: requested,
            cache: limit,
        } => {
            let message = format!(
                "the prompt has {prompt} tokens and `{max_tokens}` is {requested}: together more than the {limit} tokens \
                 that a sequence may have here"
            );
            ApiError::invalid(max_tokens, message)
        }
        SubmitError::MinTokens {
            min_tokens: requested,
            max_tokens: most,
        } => {
            let field = format!("{within}min_tokens");
            let message =
                format!("`{field}` is {requested}, but `{max_tokens}` is {most}: an answer cannot have both");
            ApiError::invalid(field, message)
        }
        SubmitError::Scale { .. } | SubmitError::Unscalable { .. } => {
            ApiError::invalid(format!("{within}adapter_scale"), message)
        }
        SubmitError::TooManyLogprobs { field, .. } => ApiError::invalid(format!("{within}{field}"), message),
        SubmitError::EmptyStopString
        | SubmitError::StopStringTooLong { .. }
        | SubmitError::TooManyStops { .. } => ApiError::invalid(format!("{within}stop"), message),
        SubmitError::Sampling(error) => {
            let field = format!("{within}{}", error.field);
            let message = format!("`{field}` is {}, but must be {}", error.value, error.range);
            ApiError::invalid(field, message)
        }
        // Weights are checked when they are set, and no route asks for an embedding and tokens at
        // once.
        SubmitError::Weight { .. } | SubmitError::MoreThanEmbedding => ApiError::Failed(message),
        SubmitError::QueueFull { retry_after, .. } => ApiError::Overloaded { message, retry_after },
        SubmitError::Stopped => ApiError::ShuttingDown,
    }
}

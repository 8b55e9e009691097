//! Tokenises texts without blocking the other requests of an HTTP thread.

use std::sync::Arc;

use multigraft_text::Tokenizer;
use tokio::task;

use crate::http::error::ApiError;

/// Longer texts, in bytes, are tokenised on a blocking thread: they take milliseconds, a switch of
/// threads takes microseconds.
const LONG: usize = 16 << 10;

/// The tokens of `text`, which is the request's `field`.
pub(crate) async fn encode(
    tokenizer: &Arc<Tokenizer>,
    field: &str,
    text: &str,
    add_special: bool,
) -> Result<Vec<u32>, ApiError> {
    let encoded = if text.len() <= LONG {
        tokenizer.encode(text, add_special)
    } else {
        let tokenizer = Arc::clone(tokenizer);
        let text = text.to_owned();
        task::spawn_blocking(move || tokenizer.encode(&text, add_special))
            .await
            .map_err(|_| ApiError::Failed("the tokenizer failed".to_owned()))?
    };
    encoded.map_err(|error| ApiError::invalid(field, error.to_string()))
}

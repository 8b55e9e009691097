//! Answers that are not a success.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The body of such an answer, and the data of an event `error`: OpenAI's form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: Error,
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Error {
    /// A sentence for people.
    pub message: String,
    /// A word for programs.
    #[serde(rename = "type")]
    pub kind: String,
    /// The field of the request that is wrong, if it is one.
    pub param: Option<String>,
    /// The HTTP status.
    pub code: u16,
}

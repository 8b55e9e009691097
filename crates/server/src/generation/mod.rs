//! Generation without a dialect: from the fields of a request to the engine, and from the engine's
//! events to an answer.

pub(crate) mod admission;
pub(crate) mod answers;
pub(crate) mod chat;
pub(crate) mod choice;
pub(crate) mod constraints;
pub(crate) mod defaults;
pub(crate) mod embedding;
pub(crate) mod refusal;
pub(crate) mod request;
pub(crate) mod stream;
pub(crate) mod tokens;
pub(crate) mod truncation;
pub(crate) mod usage;

//! OpenAI's dialect: `/v1/chat/completions`, `/v1/completions`, `/v1/responses`, `/v1/embeddings`,
//! `/v1/files`, `/v1/batches`, `/v1/models`.
//!
//! Requests and answers follow OpenAI's reference. Further parameters (`top_k`, `min_p`,
//! `repetition_penalty`, `ignore_eos`, …) have vLLM's names.

pub(crate) mod batches;
pub(crate) mod chat;
pub(crate) mod completions;
pub(crate) mod embeddings;
pub(crate) mod files;
pub(crate) mod logprobs;
mod metadata;
pub(crate) mod models;
pub(crate) mod parameters;
pub(crate) mod responses;
pub(crate) mod types;

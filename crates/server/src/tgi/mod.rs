//! TGI's dialect: `/generate`, `/generate_stream`, `/`, `/tokenize`, `/chat_tokenize`, `/info`, and
//! LoRAX's `/embed`.
//!
//! Field names and meanings are those of Hugging Face's text-generation-inference, with LoRAX's
//! `ignore_eos_token`. Two differences, both towards more being possible: `top_p` and `typical_p`
//! of exactly 1 are accepted, and limits are larger.

pub(crate) mod embed;
pub(crate) mod generate;
pub(crate) mod info;
mod parameters;
mod streaming;
pub(crate) mod tokenize;
pub(crate) mod types;

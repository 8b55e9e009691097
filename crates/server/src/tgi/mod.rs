//! TGI's dialect: `/generate`, `/generate_stream`, `/`, `/tokenize`, `/chat_tokenize`, `/info`, and
//! LoRAX's `/embed`.
//!
//! Fields have the names and meanings of Hugging Face's text-generation-inference and of LoRAX. Two
//! differences allow more: `top_p` and `typical_p` may be exactly 1, and limits are larger.

pub(crate) mod embed;
pub(crate) mod generate;
pub(crate) mod info;
mod parameters;
mod streaming;
pub(crate) mod tokenize;
pub(crate) mod types;

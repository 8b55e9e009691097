//! The crate as its users see it: files in, tokens and prompts out.

mod chat;
mod folders;
mod gguf_metadata;
mod laws;
mod smollm2;
mod templates;
mod tokenizers;

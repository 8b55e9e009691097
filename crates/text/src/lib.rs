//! Text to tokens and back, and chat templates.
//!
//! ```text
//! tokenizer.json folder ── tokenizer::folder ─┐
//!                                             ├── Tokenizer ── encode ── ids
//! GGUF metadata ────────── gguf::* ───────────┘      │
//!                                                    └── Pieces ── Detokenizer ── text
//!
//! tokenizer.chat_template, chat_template.jinja ── ChatTemplate ── render ── prompt text
//! ```
//!
//! **Encoding** uses Hugging Face's `tokenizers`, the reference that models are trained with. A
//! GGUF file holds the vocabulary but not the pipeline around it, so [`Tokenizer::from_gguf`]
//! rebuilds that pipeline, and refuses an unknown one instead of guessing: with a wrong
//! pre-tokenizer a model's answers get worse without any error.
//!
//! **Decoding** is done here, on bytes: every token is a fixed string of bytes, computed once at
//! load. Text is the concatenation of these bytes, read as UTF-8. The pieces that a [`Detokenizer`]
//! returns therefore add up to the text of all tokens.
//!
//! **Chat templates** are programs that come with a model. [`ChatTemplate`] runs them with access
//! to the conversation only, and bounds their work, output and nesting; its documentation names the
//! limits of that protection.
//!
//! This crate opens only the files that its caller names, and no input makes it panic.

mod chat;
mod error;
mod files;
mod gguf;
mod tokenizer;

pub use chat::{CallFormat, ChatInput, ChatTemplate, TEMPLATE_FILES};
pub use error::TextError;
pub use tokenizer::{Detokenizer, Tokenizer};

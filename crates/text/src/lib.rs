//! Text to tokens and back, and chat templates.
//!
//! ```text
//! tokenizer.json folder ── tokenizer::folder ─┐
//!                                             ├── Tokenizer ── encode ── ids
//! GGUF metadata ────────── gguf::* ───────────┘      │
//!                                                    └── Pieces ── Detokenizer ── text as it becomes whole
//!
//! tokenizer.chat_template, chat_template.jinja ── ChatTemplate ── render ── prompt text
//! ```
//!
//! **Encoding** is done by Hugging Face's `tokenizers`, the reference that models are trained with.
//! A GGUF file holds the vocabulary but not the pipeline around it, so [`Tokenizer::from_gguf`]
//! rebuilds that pipeline, and refuses what it does not know instead of guessing: a wrong
//! pre-tokenizer gives a model that is merely worse, with no sign of why.
//!
//! **Decoding** is done here, on bytes: every token is a fixed string of bytes, worked out once at
//! load. Text is the concatenation of these bytes, read as UTF-8, so the pieces that a
//! [`Detokenizer`] gives out are by construction the text of the whole.
//!
//! **Chat templates** are programs that come with a model. [`ChatTemplate`] runs them without
//! access to anything but the conversation, and bounds what they compute, write and nest; its
//! documentation says where that ends.
//!
//! Nothing in this crate opens a file that it was not pointed at, and no input makes it panic.

mod chat;
mod detokenizer;
mod error;
mod files;
mod gguf;
mod tokenizer;

pub use chat::{CallFormat, ChatInput, ChatTemplate, TEMPLATE_FILES};
pub use detokenizer::Detokenizer;
pub use error::TextError;
pub use tokenizer::Tokenizer;

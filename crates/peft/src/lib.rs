//! Adapters' files: PEFT's, or llama.cpp's, to what they change of a base, checked against it.
//!
//! ```text
//! files (read once, hashed) ─┬─ PEFT's ─┬─ config ──┐
//!                            │          └─ tensors ─┴─ checked against the base ─ AdapterFile
//!                            └─ llama.cpp's GGUF ─ as PEFT would have it ┘
//! ```
//!
//! An adapter is what its files hold: its identity is their hash, names only point at it.
//! Everything that PEFT's LoRA can say is honoured or refused in a sentence that names the field or
//! tensor ([`FIELDS`] is the table of fields), and every tensor must find its place. Nothing is
//! executed or unpickled, sizes are checked before memory is taken.
//!
//! This crate reads and writes files of this machine. It knows no network and no database.

mod base;
mod base_name;
mod config;
mod derived;
mod disk;
mod effect;
mod error;
mod export;
mod files;
mod gguf;
mod info;
mod merge;
mod read;
mod refusal;
mod template;
mod tensors;
mod variants;

pub use base::BaseShape;
pub use base_name::trained_on;
pub use config::{CONFIG_LIMIT, FIELDS, Fate, Field, PeftConfig, RANK_LIMIT, parse_config};
pub use disk::read as read_file;
pub use effect::{Agreement, Effect};
pub use error::ReadError;
pub use export::{ExportError, Form, export};
pub use files::{AdapterFiles, CARD_FILE, CONFIG_FILE, WEIGHTS_FILE, WEIGHTS_LIMIT, gguf_file, gguf_files};
pub use info::{AdapterFile, AdapterInfo};
pub use merge::{Ingredient, MERGE_LIMIT, MajoritySign, MergeError, MergeMethod, merge};
pub use read::{is_adapter, read, read_for};
pub use refusal::{Quoted, Refusal};
pub use template::{TEMPLATE_LIMIT, Template};

//! Reads, checks, merges and exports adapters in PEFT's and llama.cpp's formats.
//!
//! ```text
//! files (read once, hashed) ─┬─ PEFT's ─┬─ config ──┐
//!                            │          └─ tensors ─┴─ checked against the base ─ AdapterFile
//!                            └─ llama.cpp's GGUF ─ converted to PEFT's form ┘
//! ```
//!
//! The hash of its files identifies an adapter. Everything that a LoRA of PEFT can contain is
//! either applied or refused with a message that names the field or tensor ([`FIELDS`] is the table
//! of fields), and every tensor must belong to a module of the base. Nothing is executed or
//! unpickled, and sizes are checked before memory is allocated.
//!
//! This crate accesses files on this machine only: it has no network and no database below it.

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
pub use merge::{MERGE_LIMIT, MajoritySign, MergeError, MergeInput, MergeMethod, merge};
pub use read::{is_adapter, read, read_for};
pub use refusal::{Quoted, Refusal};
pub use template::{TEMPLATE_LIMIT, Template};

//! Adapters: from PEFT's files, or llama.cpp's, to what the base can pack, and the names that they
//! are served under.
//!
//! ```text
//! files (read once, hashed) ─┬─ PEFT's ─┬─ config ──┐
//!                            │          └─ tensors ─┴─ checked against the base ─ AdapterFile
//!                            └─ llama.cpp's GGUF ─ as PEFT would have it ┘
//! names and folders ─ Registry ─ AdapterFile ─ packed by the base ─ Entry
//! ```
//!
//! An adapter is what its files hold: its identity is their hash, names only point at it.
//! Everything that PEFT's LoRA can say is honoured or refused in a sentence that names the field or
//! tensor ([`FIELDS`] is the table of fields), and every tensor must find its place. Nothing is
//! executed or unpickled, sizes are checked before memory is taken.

mod base;
mod base_name;
mod config;
mod error;
mod export;
mod files;
mod gguf;
mod info;
mod made;
mod merge;
mod read;
mod refusal;
mod registry;
mod relatives;
mod self_test;
mod source;
mod template;
mod tensors;

pub use base::BaseShape;
pub use base_name::trained_on;
pub use config::{CONFIG_LIMIT, FIELDS, Fate, Field, PeftConfig, RANK_LIMIT, parse_config};
pub use error::AdapterError;
pub use export::{ExportError, Form, export};
pub use files::gguf as gguf_file;
pub use info::{AdapterFile, AdapterInfo};
pub use merge::{MERGE_LIMIT, MajoritySign, MergeError, MergeMethod};
pub use read::{is_adapter, read, read_for};
pub use refusal::Refusal;
pub use registry::{
    ActivateError, AdapterLimits, AddedBy, Adding, ChangeError, Entry, IsBusy, Listed, ListedVersion,
    LoadError, Lookup, MergePart, OnLoad, OpenError, Outcome, Pack, Packer, Phase, Progress, Registry,
    RegistryOptions, Residency, Settings, Size, Status, StoreError, Upload, Waiting,
};
pub use self_test::{Agreement, Effect, Encode, OnFailure, SelfTest};
pub use source::{
    AllowedSource, AllowedSources, BadReference, FetchError, FetchOptions, Fetched, Fetcher, Found, Hub,
    Reference, Source,
};
pub use template::Template;

//! References to files, the sources that are allowed, and downloads from the Hugging Face Hub,
//! object stores and web servers.
//!
//! ```text
//! text ─ Reference ─ (AllowedSources) ─ Fetcher ─┬─ Hub, in its own cache ───────┐
//!                                                └─ object stores, web servers ──┴─ folder
//! ```
//!
//! The caller lists the files that it wants ([`Wanted`], [`WantedKinds`]) with the largest size of
//! each. This crate does not know what the files mean.

mod addresses;
mod allowed;
mod base_model;
mod cache;
mod error;
mod fetch;
mod hub;
mod objects;
mod reference;
mod save;
mod transport;
mod wanted;

pub use allowed::{AllowedSource, AllowedSources, FilesRead};
pub use base_model::BASE_MODEL;
pub use error::{FetchError, SourceError};
pub use fetch::{FetchOptions, Fetcher};
pub use hub::Hub;
pub use reference::{BadReference, Reference, UPLOAD};
pub use wanted::{Fetched, Need, RequiredKind, Wanted, WantedFile, WantedKinds};

//! Where files come from: references that people write, the places that they may name, and how files
//! come from there to this machine: from the Hugging Face Hub, object stores and web servers.
//!
//! ```text
//! text ─ Reference ─ (AllowedSources) ─ Fetcher ─┬─ Hub, in its own cache ───────┐
//!                                                └─ object stores, web servers ──┴─ a folder
//! ```
//!
//! Callers say which files they want ([`Wanted`]), each with the largest size that is fetched: this
//! crate does not know what the files mean.

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

pub use allowed::{AllowedSource, AllowedSources, FilesOf};
pub use base_model::BASE_MODEL;
pub use error::{FetchError, SourceError};
pub use fetch::{FetchOptions, Fetcher};
pub use hub::Hub;
pub use reference::{BadReference, Reference, UPLOAD};
pub use wanted::{Fetched, Need, Wanted, WantedFile, WantedKinds};

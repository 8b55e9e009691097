//! The adapters that are served: the names that requests call them by, and which are in memory.
//!
//! ```text
//! names and sources ─ Registry ─ files here ─ AdapterFile ─ packed by the base ─ Entry
//! ```
//!
//! What adapters' files hold is the business of `multigraft-peft`; where they come from that of
//! `multigraft-sources`.

mod error;
mod parts;
mod registry;
mod self_test;
mod source;

pub use error::AdapterError;
pub use parts::{ADAPTER_FILES, adapter_files_in};
pub use registry::{
    ActivateError, AdapterLimits, AddedBy, Adding, Catalogue, CataloguedName, CataloguedVersion, ChangeError,
    Entry, IsBusy, Listed, ListedVersion, LoadError, Lookup, MergePart, OnLoad, OpenError, Outcome, Pack,
    Packer, Phase, Progress, Registry, RegistryOptions, Residency, Settings, Size, Status, StoreError,
    Upload, Waiting,
};
pub use self_test::{Encode, OnFailure, SelfTest};
pub use source::{Found, Source};

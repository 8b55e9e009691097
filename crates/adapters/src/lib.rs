//! The adapters that are served: the names that requests use, their versions, and which are in
//! memory.
//!
//! ```text
//! names and sources ─ Registry ─ files on this machine ─ AdapterFile ─ made ready by the base ─
//! Entry
//! ```
//!
//! `multigraft-peft` reads the files, `multigraft-sources` downloads them.

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

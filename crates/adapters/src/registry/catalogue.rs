//! Stores names, their versions and settings across restarts.
//!
//! A catalogue holds what servers with the same adapters must agree on. Which adapters are in
//! memory, being loaded or failed is each server's own state. The catalogue of a single server is
//! an SQLite file ([`super::store`]). A catalogue that several servers share is another
//! implementation.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use multigraft_model::AdapterHash;
use multigraft_peft::AdapterInfo;
use multigraft_sources::Reference;
use serde_json::{Map, Value};

use super::added_by::AddedBy;
use super::limits::AdapterLimits;
use super::settings::Settings;

/// Stores names, their versions and settings. Each change is atomic, and durable when the method
/// returns.
pub trait Catalogue: fmt::Debug + Send + Sync {
    /// All names, in the order in which they were added.
    ///
    /// # Errors
    /// If the catalogue cannot be read.
    fn names(&self) -> Result<Vec<CataloguedName>, StoreError>;

    /// Adds `version` to a name and makes it the active one. Adds the name if it does not exist.
    /// Replaces a version with the same number, and deletes versions with numbers below `oldest`.
    ///
    /// # Errors
    /// If the change cannot be stored.
    fn add(
        &self,
        name: &str,
        pinned: bool,
        version: &CataloguedVersion,
        oldest: u32,
        settings: &Settings,
    ) -> Result<(), StoreError>;

    /// Stores the facts that were found when a version was loaded.
    ///
    /// # Errors
    /// If the change cannot be stored.
    fn set_info(&self, name: &str, number: u32, info: &AdapterInfo) -> Result<(), StoreError>;

    /// Makes a version the active one.
    ///
    /// # Errors
    /// If the change cannot be stored.
    fn activate(&self, name: &str, number: u32) -> Result<(), StoreError>;

    /// Pins or unpins a name.
    ///
    /// # Errors
    /// If the change cannot be stored.
    fn pin(&self, name: &str, pinned: bool) -> Result<(), StoreError>;

    /// Changes the settings of a name.
    ///
    /// # Errors
    /// If the change cannot be stored.
    fn set(&self, name: &str, settings: &Settings) -> Result<(), StoreError>;

    /// Deletes a name and its versions.
    ///
    /// # Errors
    /// If the change cannot be stored.
    fn remove(&self, name: &str) -> Result<(), StoreError>;
}

/// A name in a catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct CataloguedName {
    /// The name.
    pub name: String,
    /// Whether its adapter stays in memory.
    pub pinned: bool,
    /// Default values of request fields.
    pub defaults: Option<Map<String, Value>>,
    /// Limits of its requests; `None` stands for the default.
    pub limits: Option<AdapterLimits>,
    /// Number of the active version.
    pub active: u32,
    /// Its versions, the newest last.
    pub versions: Vec<CataloguedVersion>,
}

/// A version of a name in a catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct CataloguedVersion {
    /// The version's number, counted from the name's first version, which is 0.
    pub number: u32,
    /// The hash of its files.
    pub hash: AdapterHash,
    /// Where its files come from.
    pub source: Reference,
    /// The state of the source: a commit of the Hub, or what an object store reported about the
    /// files.
    pub revision: Option<String>,
    /// When it was added.
    pub added: SystemTime,
    /// Who added it; `None` if it was added before this was stored.
    pub added_by: Option<AddedBy>,
    /// The facts that were found when it was loaded.
    pub info: Option<Arc<AdapterInfo>>,
}

/// Why the registry's data cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file or folder.
    #[error("`{}`: {source}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The catalogue's own error.
    #[error(transparent)]
    Catalogue(Box<dyn Error + Send + Sync>),
}

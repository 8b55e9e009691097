//! Where names, their versions and settings are kept, so that they survive the process.
//!
//! What is kept here is what servers that serve the same adapters must agree on; which adapters are
//! in memory, being loaded or failed is each server's own. The catalogue of a single server is an
//! SQLite file ([`super::store`]); one that several servers share is another implementation.

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

/// Keeps names, their versions and settings. A change is whole or not made, and is kept when the
/// method returns.
pub trait Catalogue: fmt::Debug + Send + Sync {
    /// All names, in the order that they were added.
    ///
    /// # Errors
    /// If the catalogue cannot be read.
    fn names(&self) -> Result<Vec<CataloguedName>, StoreError>;

    /// Adds `version` to a name and makes it the active one; a name that is not there is added. A
    /// version of the same number is replaced. Versions before number `oldest` are forgotten.
    ///
    /// # Errors
    /// If the change cannot be kept.
    fn add(
        &self,
        name: &str,
        pinned: bool,
        version: &CataloguedVersion,
        oldest: u32,
        settings: &Settings,
    ) -> Result<(), StoreError>;

    /// Sets what was found when a version was loaded.
    ///
    /// # Errors
    /// If the change cannot be kept.
    fn set_info(&self, name: &str, number: u32, info: &AdapterInfo) -> Result<(), StoreError>;

    /// Makes a version the active one.
    ///
    /// # Errors
    /// If the change cannot be kept.
    fn activate(&self, name: &str, number: u32) -> Result<(), StoreError>;

    /// Pins a name, or no longer.
    ///
    /// # Errors
    /// If the change cannot be kept.
    fn pin(&self, name: &str, pinned: bool) -> Result<(), StoreError>;

    /// Sets what holds for a name.
    ///
    /// # Errors
    /// If the change cannot be kept.
    fn set(&self, name: &str, settings: &Settings) -> Result<(), StoreError>;

    /// Forgets a name and its versions.
    ///
    /// # Errors
    /// If the change cannot be kept.
    fn remove(&self, name: &str) -> Result<(), StoreError>;
}

/// A name of a catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct CataloguedName {
    /// The name.
    pub name: String,
    /// Whether its adapter stays in memory.
    pub pinned: bool,
    /// Values of request fields for requests that leave them out.
    pub defaults: Option<Map<String, Value>>,
    /// The share and the bounds of its requests; `None` are the usual ones.
    pub limits: Option<AdapterLimits>,
    /// Number of the active version.
    pub active: u32,
    /// The newest last.
    pub versions: Vec<CataloguedVersion>,
}

/// A version of a name of a catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct CataloguedVersion {
    /// Which of the name's versions it is, counted from 0.
    pub number: u32,
    /// The hash of its files.
    pub hash: AdapterHash,
    /// Where its files come from.
    pub source: Reference,
    /// The state of the source: a commit of the Hub, or what an object store says of its files.
    pub revision: Option<String>,
    /// When it was added.
    pub added: SystemTime,
    /// Who added it; `None` if that was before this was written down.
    pub added_by: Option<AddedBy>,
    /// What was found when it was loaded.
    pub info: Option<Arc<AdapterInfo>>,
}

/// Why the registry's data could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file of it.
    #[error("`{}`: {source}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The catalogue.
    #[error(transparent)]
    Catalogue(Box<dyn Error + Send + Sync>),
}

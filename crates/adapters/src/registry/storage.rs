//! What is stored across restarts: the catalogue, and the files of every version.

use std::path::Path;
use std::sync::Arc;

use super::catalogue::{Catalogue, StoreError};
use super::store::SqliteCatalogue;
use super::version_files::VersionFiles;

/// The catalogue and the files of its versions.
#[derive(Debug)]
pub(super) struct Storage {
    pub(super) catalogue: Arc<dyn Catalogue>,
    pub(super) files: VersionFiles,
}

impl Storage {
    /// Opens or creates the data in `folder`. Without a `catalogue`, uses an SQLite file in the
    /// folder.
    pub(super) fn open(folder: &Path, catalogue: Option<Arc<dyn Catalogue>>) -> Result<Self, StoreError> {
        let files = VersionFiles::open(folder.join("adapters"))?;
        let catalogue = match catalogue {
            Some(catalogue) => catalogue,
            None => Arc::new(SqliteCatalogue::open(&folder.join("registry.sqlite"))?),
        };
        Ok(Self { catalogue, files })
    }
}

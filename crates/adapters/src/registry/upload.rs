//! Adapters whose files clients send: a place for them until the store has them.

use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;

use multigraft_sources::Reference;

use super::state::ServedName;
use super::task::failed;
use super::{LoadError, Registry, name};
use crate::error::AdapterError;
use crate::source::Source;

/// A folder for an adapter's files that arrive. It goes with this, so this must live until the
/// adapter is loaded; what a crash leaves goes at the next start.
#[derive(Debug)]
pub struct Upload {
    name: String,
    folder: TempDir,
    /// Counts it.
    _place: Arc<()>,
}

/// Adapters that arrive at once: each may take the disk space of the largest upload, and all of the
/// network.
const UPLOADS: usize = 8;

impl Upload {
    /// Where the files belong.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What [`Registry::add`] takes.
    pub fn source(&self) -> Source {
        Source {
            name: self.name.clone(),
            at: Reference::Upload {
                folder: self.folder().to_owned(),
            },
        }
    }
}

impl Registry {
    /// A place for the files of an adapter that is to be called `name`. What `add` would say of the
    /// name is said here, before anything is sent.
    ///
    /// # Errors
    /// If the name cannot be served, is taken and may not be replaced, nothing of it would be
    /// stored, eight others are arriving, or the disk refuses a folder.
    pub fn upload(&self, name: &str, replace: bool) -> Result<Upload, LoadError> {
        name::check(&self.0.base, name).map_err(failed)?;
        let source = Source {
            name: name.to_owned(),
            at: Reference::Upload {
                folder: Path::new("").to_owned(),
            },
        };
        let (storage, place) = {
            let state = self.0.lock();
            check_kept(name, state.names.get(name), self.0.storage.is_some()).map_err(failed)?;
            if !replace {
                name::check_free(&state.names, &source).map_err(failed)?;
            }
            // One is the state's own, and all others are made under its lock.
            if Arc::strong_count(&state.uploads) > UPLOADS {
                return Err(failed(AdapterError::TooManyUploads { most: UPLOADS }));
            }
            (self.0.storage.as_ref(), Arc::clone(&state.uploads))
        };
        let storage = storage.ok_or_else(|| failed(refused(name, NO_DATA)))?;
        let folder = storage
            .files
            .arriving()
            .map_err(|error| LoadError::Store(Arc::new(error)))?;
        Ok(Upload {
            name: source.name,
            folder,
            _place: place,
        })
    }
}

const NO_DATA: &str = "this server keeps nothing; start it with a data folder (--data)";

/// Whether the store would keep the files: nothing else does. `stores` says whether it would for a
/// new name.
pub(super) fn check_kept(name: &str, named: Option<&ServedName>, stores: bool) -> Result<(), AdapterError> {
    match named {
        _ if !stores => Err(refused(name, NO_DATA)),
        Some(named) if !named.record.stored => Err(refused(
            name,
            "the name was given on the command line or by a request, so its versions are not kept; upload under another name, or \
             remove it first",
        )),
        _ => Ok(()),
    }
}

fn refused(name: &str, reason: &'static str) -> AdapterError {
    AdapterError::NoUpload {
        name: name.to_owned(),
        reason,
    }
}

//! Folders for the files of uploads, until they are stored.

use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;

use multigraft_sources::Reference;

use super::state::ServedName;
use super::task::failed;
use super::{LoadError, Registry, name};
use crate::error::AdapterError;
use crate::source::Source;

/// A folder for the files of an upload. The folder is deleted when this is dropped, so it must be
/// kept until the adapter is loaded. After a crash, the next start deletes the folder.
#[derive(Debug)]
pub struct Upload {
    name: String,
    folder: TempDir,
    /// Counts the upload.
    _permit: Arc<()>,
}

/// Limit of concurrent uploads: each may take the disk space of the largest upload and the whole
/// network bandwidth.
const UPLOADS: usize = 8;

impl Upload {
    /// The folder for the files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The source for [`Registry::add`].
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
    /// Creates a folder for the files of an adapter that will be called `name`. Checks the name as
    /// `add` does, before anything is sent.
    ///
    /// # Errors
    /// If the name cannot be served, is in use and may not be replaced, or would not be stored, if
    /// the limit of concurrent uploads is reached, or if the folder cannot be created.
    pub fn upload(&self, name: &str, replace: bool) -> Result<Upload, LoadError> {
        name::check(&self.0.base, name).map_err(failed)?;
        let source = Source {
            name: name.to_owned(),
            at: Reference::Upload {
                folder: Path::new("").to_owned(),
            },
        };
        let (storage, permit) = {
            let state = self.0.lock();
            check_kept(name, state.names.get(name), self.0.storage.is_some()).map_err(failed)?;
            if !replace {
                name::check_free(&state.names, &source).map_err(failed)?;
            }
            // The state holds one reference, and all others are created under its lock.
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
            _permit: permit,
        })
    }
}

const NO_DATA: &str = "this server keeps nothing; start it with a data folder (--data)";

/// Checks that the files would be stored, because an upload's files exist nowhere else. `stores`
/// says whether a new name would be stored.
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

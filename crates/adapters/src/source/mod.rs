//! Where adapters come from: what people write, who may write it, and how files come to this machine.

mod addresses;
mod allowed;
mod cache;
mod fetch;
mod hub;
mod objects;
mod reference;
mod save;

use std::fs;
use std::path::Path;

use crate::error::AdapterError;
use crate::files::CONFIG;

pub use allowed::{AllowedSource, AllowedSources};
pub use fetch::{FetchError, FetchOptions, Fetched, Fetcher};
pub use hub::Hub;
pub use reference::{BadReference, Reference};

/// An adapter to be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The name to serve it under.
    pub name: String,
    /// Where its files are.
    pub at: Reference,
}

/// What [`Source::in_folder`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The adapters, by name.
    pub sources: Vec<Source>,
    /// Sentences about the sub-folders that are none.
    pub skipped: Vec<String>,
}

impl Source {
    /// The adapters in a folder of folders: every sub-folder with an `adapter_config.json`, called as the sub-folder is. Links
    /// that lead out of the folder are not followed.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn in_folder(folder: &Path) -> Result<Found, AdapterError> {
        let fail = |source| AdapterError::Read {
            path: folder.to_owned(),
            source,
        };
        let root = folder.canonicalize().map_err(fail)?;
        let mut paths = Vec::new();
        for entry in fs::read_dir(folder).map_err(fail)? {
            paths.push(entry.map_err(fail)?.path());
        }
        paths.sort();
        let mut found = Found::default();
        for path in paths.into_iter().filter(|path| path.is_dir()) {
            let mut skip = |why: &str| {
                found
                    .skipped
                    .push(format!("`{}` was skipped: {why}", path.display()))
            };
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                skip("its name is not UTF-8");
                continue;
            };
            if !path.join(CONFIG).exists() {
                skip("it holds no adapter_config.json");
            } else if !path.canonicalize().is_ok_and(|target| target.starts_with(&root)) {
                skip("it is a link that leads out of the folder");
            } else {
                found.sources.push(Self {
                    name: name.to_owned(),
                    at: Reference::Folder(path),
                });
            }
        }
        Ok(found)
    }
}

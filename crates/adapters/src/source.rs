//! Adapters to serve: a name and a source.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use multigraft_peft::{CONFIG_FILE, ReadError, is_adapter};
use multigraft_sources::Reference;

/// An adapter to serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The name to serve it under.
    pub name: String,
    /// The source of its files.
    pub at: Reference,
}

/// The result of [`Source::in_folder`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The adapters, sorted by name.
    pub sources: Vec<Source>,
    /// Messages about sub-folders and `.gguf` files that are not adapters.
    pub skipped: Vec<String>,
}

impl Source {
    /// The adapters in a folder of folders. Every sub-folder with an `adapter_config.json` or one
    /// `.gguf` file is an adapter with the sub-folder's name. Every `.gguf` file that is an adapter
    /// has the file's name without the extension, unless a sub-folder has that name. Links that
    /// lead out of the folder are not followed.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn in_folder(folder: &Path) -> Result<Found, ReadError> {
        let fail = |source| ReadError::Io {
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
        let mut names = HashSet::new();
        let is_gguf = |path: &Path| path.extension().is_some_and(|end| end == "gguf");
        for path in paths {
            // Asked once, because there may be many.
            let is_dir = path.is_dir();
            if !is_dir && !is_gguf(&path) {
                continue;
            }
            let mut skip = |why: &str| {
                found
                    .skipped
                    .push(format!("`{}` was skipped: {why}", path.display()))
            };
            let name = match is_dir {
                true => path.file_name(),
                false => path.file_stem(),
            };
            let Some(name) = name.and_then(|name| name.to_str()) else {
                skip("its name is not UTF-8");
                continue;
            };
            let is_inside = |path: &Path| path.canonicalize().is_ok_and(|target| target.starts_with(&root));
            if !names.insert(name.to_owned()) {
                skip("a folder beside it has its name, and goes first");
            } else if !is_inside(&path) {
                skip("it is a link that leads out of the folder");
            } else if !is_dir && !is_adapter(&path) {
                skip("it is not an adapter: its general.type is not adapter");
            } else if is_dir && !path.join(CONFIG_FILE).exists() && !is_adapter(&path) {
                skip("it holds neither adapter_config.json nor one .gguf file that is an adapter");
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

//! Where adapters come from.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::AdapterError;
use crate::files::{self, CONFIG, WEIGHTS};
use crate::read::is_adapter;

/// An adapter to be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The name to serve it under.
    pub name: String,
    /// Where its files are: a folder, or a `.gguf` file.
    pub folder: PathBuf,
}

/// What [`Source::in_folder`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The adapters, by name.
    pub sources: Vec<Source>,
    /// Sentences about the sub-folders and `.gguf` files that are none.
    pub skipped: Vec<String>,
}

impl Source {
    /// The adapters in a folder of folders: every sub-folder with an `adapter_config.json` or one `.gguf` file, called as the
    /// sub-folder is, and every `.gguf` file that is an adapter, called as it is without the end. Links that lead out of the
    /// folder are not followed.
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
        let is_gguf = |path: &Path| path.extension().is_some_and(|end| end == "gguf");
        for path in paths.into_iter().filter(|path| path.is_dir() || is_gguf(path)) {
            let mut skip = |why: &str| {
                found
                    .skipped
                    .push(format!("`{}` was skipped: {why}", path.display()))
            };
            let name = match path.is_dir() {
                true => path.file_name(),
                false => path.file_stem(),
            };
            let Some(name) = name.and_then(|name| name.to_str()) else {
                skip("its name is not UTF-8");
                continue;
            };
            let is_inside = |path: &Path| path.canonicalize().is_ok_and(|target| target.starts_with(&root));
            if !is_inside(&path) {
                skip("it is a link that leads out of the folder");
            } else if !path.is_dir() && !is_adapter(&path) {
                skip("it is no adapter: its general.type is not adapter");
            } else if path.is_dir() && !path.join(CONFIG).exists() && !is_adapter(&path) {
                skip("it holds neither adapter_config.json nor one .gguf file that is an adapter");
            } else {
                found.sources.push(Self {
                    name: name.to_owned(),
                    folder: path,
                });
            }
        }
        Ok(found)
    }
}

/// Where adapters may be added from while the server runs: these folders and what is in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedSources {
    /// Without links.
    roots: Vec<PathBuf>,
}

impl AllowedSources {
    /// Allows `folders`.
    ///
    /// # Errors
    /// If one of them cannot be read.
    pub fn new(folders: &[PathBuf]) -> Result<Self, AdapterError> {
        let roots = folders.iter().map(|folder| {
            folder.canonicalize().map_err(|source| AdapterError::Read {
                path: folder.clone(),
                source,
            })
        });
        Ok(Self {
            roots: roots.collect::<Result<_, _>>()?,
        })
    }

    /// The folder or file that `reference` means, if adapters may come from there. Links are followed first, so none leads out.
    ///
    /// # Errors
    /// If it is not allowed, or not there. Of what is not allowed the error does not tell whether it is there.
    pub fn folder(&self, reference: &str) -> Result<PathBuf, AdapterError> {
        let path = Path::new(reference);
        let refused = || AdapterError::NotAllowed {
            reference: reference.to_owned(),
            allowed: self.roots.clone(),
        };
        let source = match path.canonicalize() {
            Ok(folder) => {
                // Nor may its files be links that lead out.
                let is_allowed = self.contain(&folder) && {
                    let files = [CONFIG, WEIGHTS].map(|name| folder.join(name)).into_iter();
                    let mut files = files.chain(files::ggufs(&folder).unwrap_or_default());
                    files.all(|file| {
                        file.canonicalize().is_ok_and(|file| self.contain(&file)) || !file.exists()
                    })
                };
                return is_allowed.then_some(folder).ok_or_else(refused);
            }
            Err(source) => source,
        };
        // What is not there is judged by what is there of its path.
        let above = path.ancestors().find_map(|above| above.canonicalize().ok());
        let is_plain = path
            .components()
            .all(|part| part != std::path::Component::ParentDir);
        match above.is_some_and(|above| self.contain(&above)) && is_plain {
            true => Err(AdapterError::Read {
                path: path.to_owned(),
                source,
            }),
            false => Err(refused()),
        }
    }

    fn contain(&self, real: &Path) -> bool {
        self.roots.iter().any(|root| real.starts_with(root))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_the_allowed_folders_is_reached_or_told_of() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("allowed");
        fs::create_dir_all(root.join("support")).unwrap();
        fs::create_dir(dir.path().join("secret")).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(dir.path().join("secret"), root.join("link")).unwrap();
        let allowed = AllowedSources::new(std::slice::from_ref(&root)).unwrap();
        let at = |path: &str| allowed.folder(&root.join(path).display().to_string());
        assert_eq!(
            at("support").unwrap(),
            root.canonicalize().unwrap().join("support")
        );
        assert!(at("support/../support").is_ok());
        for outside in [
            "../secret",
            "../none",
            "link",
            "link/none",
            "support/../../secret",
            "support/../../none",
        ] {
            let error = at(outside).unwrap_err();
            assert!(
                matches!(error, AdapterError::NotAllowed { .. }),
                "{outside}: {error}"
            );
        }
        assert!(matches!(at("none").unwrap_err(), AdapterError::Read { .. }));
        let nothing = AllowedSources::default().folder("/").unwrap_err();
        assert!(nothing.to_string().contains("--allow-source"), "{nothing}");
    }
}

//! Which sources requests may name while the server runs.

use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use crate::error::SourceError;
use crate::reference::{BadReference, Reference, UPLOAD};

/// Returns the files of a folder that will be read. They must not be links that lead out of the
/// allowed folders.
pub type FilesRead = fn(&Path) -> Vec<PathBuf>;

/// A folder, or a part of the Hub, of an object store or of a web server, with everything below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedSource {
    /// A folder on this machine.
    Folder(PathBuf),
    /// A prefix of references that ends at a path segment: `hf://org`, `s3://bucket/adapters`.
    Prefix(String),
    /// Files that clients upload. A folder of that name is written `./upload`.
    Upload,
}

impl FromStr for AllowedSource {
    type Err = BadReference;

    /// Parses `hf://` (the whole Hub), `hf://org`, `hf://org/repo`, `s3://bucket/prefix` and other
    /// URLs, `upload`, or a folder.
    fn from_str(text: &str) -> Result<Self, BadReference> {
        let bare = text.trim_end_matches('*').trim_end_matches('/');
        match text.split_once("://") {
            Some(("hf", "" | "*")) => Ok(Self::Prefix("hf:/".to_owned())),
            Some(("hf", rest)) if !rest.trim_end_matches(['*', '/']).contains('/') => {
                // Validates the organisation.
                Reference::parse(&format!("{bare}/x"))?;
                Ok(Self::Prefix(bare.to_owned()))
            }
            Some(_) => {
                let written = Reference::parse(bare)?.to_string();
                Ok(Self::Prefix(written.trim_end_matches('/').to_owned()))
            }
            None if text == UPLOAD => Ok(Self::Upload),
            None => Ok(Self::Folder(PathBuf::from(text))),
        }
    }
}

/// The sources that requests may name while the server runs: folders with their contents, and
/// references that start with one of the prefixes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedSources {
    /// Canonical paths, without links.
    roots: Vec<PathBuf>,
    prefixes: Vec<String>,
    uploads: bool,
}

impl AllowedSources {
    /// Allows `sources`.
    ///
    /// # Errors
    /// If one of the folders cannot be read.
    pub fn new(sources: &[AllowedSource]) -> Result<Self, SourceError> {
        let mut allowed = Self::default();
        for source in sources {
            match source {
                AllowedSource::Folder(folder) => {
                    allowed
                        .roots
                        .push(folder.canonicalize().map_err(|source| SourceError::Folder {
                            path: folder.clone(),
                            source,
                        })?);
                }
                AllowedSource::Prefix(prefix) => allowed.prefixes.push(prefix.clone()),
                AllowedSource::Upload => allowed.uploads = true,
            }
        }
        Ok(allowed)
    }

    /// Whether clients may upload files.
    pub fn uploads(&self) -> bool {
        self.uploads
    }

    /// The hosts of web servers that were allowed by name. They may have addresses in the local
    /// network.
    pub fn hosts(&self) -> impl Iterator<Item = String> + '_ {
        let references = self
            .prefixes
            .iter()
            .filter_map(|prefix| Reference::parse(prefix).ok());
        references.filter_map(|reference| reference.host())
    }

    /// Parses `text` and returns the reference if it is allowed. Links are followed before the
    /// check, so no link leads out of an allowed folder. The files that `files_read` returns for a
    /// folder are checked in the same way.
    ///
    /// # Errors
    /// If `text` is not a reference, is not allowed, or names a folder that does not exist. For a
    /// reference that is not allowed, the error does not reveal whether the folder exists.
    pub fn resolve(&self, text: &str, files_read: FilesRead) -> Result<Reference, SourceError> {
        let reference = Reference::parse(text)?;
        if let Reference::Folder(folder) = &reference {
            return self.folder(text, folder, files_read).map(Reference::Folder);
        }
        let written = reference.to_string();
        let is_below = |prefix: &String| {
            let rest = written.strip_prefix(prefix.as_str());
            // Only Hub references have revisions.
            let is_hub = prefix.starts_with("hf:");
            rest.is_some_and(|rest| {
                rest.is_empty() || rest.starts_with('/') || (is_hub && rest.starts_with('@'))
            })
        };
        match self.prefixes.iter().any(is_below) {
            true => Ok(reference),
            false => Err(self.not_allowed(text)),
        }
    }

    /// The reference that `text` means, whether or not it is allowed and whether or not it exists,
    /// with links on this machine followed. `None` if it is not a reference, or if it has `..`
    /// below a folder that does not exist.
    pub fn unchecked(text: &str) -> Option<Reference> {
        let reference = Reference::parse(text).ok()?;
        let Reference::Folder(path) = &reference else {
            return Some(reference);
        };
        let path = std::path::absolute(path).ok()?;
        // The part of the path that does not exist is appended to the part that does.
        let found = |above: &Path| Some((above.to_owned(), above.canonicalize().ok()?));
        let (above, real) = path.ancestors().find_map(found)?;
        let below = path.strip_prefix(above).ok()?;
        let is_plain = below.components().all(|part| part != Component::ParentDir);
        is_plain.then(|| Reference::Folder(real.components().chain(below.components()).collect()))
    }

    fn not_allowed(&self, text: &str) -> SourceError {
        let folders = self.roots.iter().map(|root| root.display().to_string());
        let prefixes = self.prefixes.iter().map(|prefix| match prefix.as_str() {
            "hf:/" => "hf://".to_owned(),
            prefix => prefix.to_owned(),
        });
        SourceError::NotAllowed {
            reference: text.to_owned(),
            allowed: folders.chain(prefixes).collect(),
        }
    }

    fn folder(&self, text: &str, path: &Path, files_read: FilesRead) -> Result<PathBuf, SourceError> {
        let source = match path.canonicalize() {
            Ok(folder) => {
                // The files in the folder must not be links that lead out either.
                let is_allowed = self.contains(&folder) && {
                    files_read(&folder).iter().all(|file| {
                        file.canonicalize().is_ok_and(|file| self.contains(&file)) || !file.exists()
                    })
                };
                return is_allowed.then_some(folder).ok_or_else(|| self.not_allowed(text));
            }
            Err(source) => source,
        };
        // A path that does not exist is checked by its longest existing ancestor.
        let above = path.ancestors().find_map(|above| above.canonicalize().ok());
        let is_plain = path.components().all(|part| part != Component::ParentDir);
        match above.is_some_and(|above| self.contains(&above)) && is_plain {
            true => Err(SourceError::Folder {
                path: path.to_owned(),
                source,
            }),
            false => Err(self.not_allowed(text)),
        }
    }

    fn contains(&self, real: &Path) -> bool {
        self.roots.iter().any(|root| real.starts_with(root))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn no_files(_: &Path) -> Vec<PathBuf> {
        Vec::new()
    }

    #[test]
    fn nothing_outside_the_allowed_folders_is_reached_or_told_of() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("allowed");
        fs::create_dir_all(root.join("support")).unwrap();
        fs::create_dir(dir.path().join("secret")).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(dir.path().join("secret"), root.join("link")).unwrap();
        let allowed = AllowedSources::new(&[AllowedSource::Folder(root.clone())]).unwrap();
        let at = |path: &str| allowed.resolve(&root.join(path).display().to_string(), no_files);
        let support = root.canonicalize().unwrap().join("support");
        assert_eq!(at("support").unwrap(), Reference::Folder(support));
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
                matches!(error, SourceError::NotAllowed { .. }),
                "{outside}: {error}"
            );
        }
        assert!(matches!(at("none").unwrap_err(), SourceError::Folder { .. }));
        let unchecked = |path: &str| AllowedSources::unchecked(&root.join(path).display().to_string());
        let real = |path: &str| Some(Reference::Folder(dir.path().canonicalize().unwrap().join(path)));
        assert_eq!(unchecked("support"), real("allowed/support"));
        assert_eq!(unchecked("none/x"), real("allowed/none/x"));
        assert_eq!(unchecked("support/../none"), real("allowed/none"));
        assert_eq!(unchecked("none/../x"), None);
        #[cfg(unix)]
        assert_eq!(unchecked("link/none"), real("secret/none"));
        let nothing = AllowedSources::default().resolve("/", no_files).unwrap_err();
        assert!(matches!(nothing, SourceError::NotAllowed { .. }), "{nothing}");
    }

    fn allowed(sources: &[&str]) -> AllowedSources {
        let sources: Vec<AllowedSource> = sources.iter().map(|text| text.parse().unwrap()).collect();
        AllowedSources::new(&sources).unwrap()
    }

    #[test]
    fn prefixes_end_where_a_part_of_the_path_does() {
        let few = allowed(&[
            "hf://team",
            "hf://other/one",
            "s3://bucket/adapters/",
            "https://example.com/a/*",
        ]);
        for inside in [
            "hf://team/x",
            "team/x@v1",
            "hf://other/one",
            "hf://other/one@main",
            "s3://bucket/adapters/x",
            "https://example.com/a/x/y",
        ] {
            assert!(few.resolve(inside, no_files).is_ok(), "{inside}");
        }
        for outside in [
            "hf://team-evil/x",
            "hf://other/one-more",
            "s3://bucket/adapters-evil/x",
            "s3://bucket/adapters@evil/x",
            "s3://bucket/adapters/../x",
            "s3://bucket/x",
            "s3://other/adapters/x",
            "gs://bucket/adapters/x",
            "https://example.com/b",
            "https://example.com/a/../b",
            "https://example.com/a/%2e%2e/b",
            "http://example.com/a/x",
            "https://example.com.evil/a/x",
        ] {
            let error = few.resolve(outside, no_files).unwrap_err();
            assert!(
                matches!(error, SourceError::NotAllowed { .. }),
                "{outside}: {error}"
            );
        }
        assert!(allowed(&["hf://"]).resolve("any/thing", no_files).is_ok());
        assert_eq!(few.hosts().collect::<Vec<_>>(), ["example.com"]);
        assert!(!few.uploads());
        let uploads = allowed(&["upload"]);
        assert!(uploads.uploads());
        // `upload` is not a source that a request can name.
        assert!(uploads.resolve("upload", no_files).is_err());
        assert_eq!(
            "./upload".parse(),
            Ok(AllowedSource::Folder(PathBuf::from("./upload")))
        );
        assert!("hf://a/b/c".parse::<AllowedSource>().is_err());
    }
}

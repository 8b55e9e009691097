//! Who may name what: the sources that adapters may be added from while the server runs.

use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use crate::error::SourceError;
use crate::reference::{BadReference, Reference, UPLOAD};

/// The files that will be read of a folder.
pub type FilesOf = fn(&Path) -> Vec<PathBuf>;

/// A folder, a part of the Hub, of an object store or of a web server, with all that is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedSource {
    /// A folder of this machine.
    Folder(PathBuf),
    /// What a reference may begin with, up to the end of a part of its path: `hf://org`,
    /// `s3://bucket/adapters`.
    Prefix(String),
    /// What clients send. A folder of that name is written as `./upload`.
    Upload,
}

impl FromStr for AllowedSource {
    type Err = BadReference;

    /// `hf://` (the whole Hub), `hf://org`, `hf://org/repo`, `s3://bucket/prefix` and its like,
    /// `upload`, or a folder.
    fn from_str(text: &str) -> Result<Self, BadReference> {
        let bare = text.trim_end_matches('*').trim_end_matches('/');
        match text.split_once("://") {
            Some(("hf", "" | "*")) => Ok(Self::Prefix("hf:/".to_owned())),
            Some(("hf", rest)) if !rest.trim_end_matches(['*', '/']).contains('/') => {
                // Checks the organisation.
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

/// Where adapters may be added from while the server runs: these folders and what is in them, and
/// references that begin with these prefixes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedSources {
    /// Without links.
    roots: Vec<PathBuf>,
    prefixes: Vec<String>,
    uploads: bool,
}

impl AllowedSources {
    /// Allows `sources`.
    ///
    /// # Errors
    /// If a folder among them cannot be read.
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

    /// Whether clients may send adapters' files.
    pub fn uploads(&self) -> bool {
        self.uploads
    }

    /// The hosts of web servers that were allowed by name: they may be in the local network.
    pub fn hosts(&self) -> impl Iterator<Item = String> + '_ {
        let references = self
            .prefixes
            .iter()
            .filter_map(|prefix| Reference::parse(prefix).ok());
        references.filter_map(|reference| reference.host())
    }

    /// What `text` means, if that is allowed. Links are followed first, so none leads out of a
    /// folder; neither does one of the files that will be read, which `files_of` says.
    ///
    /// # Errors
    /// If it is no reference, not allowed, or a folder that is not there. Of what is not allowed
    /// the error does not tell whether it is there.
    pub fn resolve(&self, text: &str, files_of: FilesOf) -> Result<Reference, SourceError> {
        let reference = Reference::parse(text)?;
        if let Reference::Folder(folder) = &reference {
            return self.folder(text, folder, files_of).map(Reference::Folder);
        }
        let written = reference.to_string();
        let is_below = |prefix: &String| {
            let rest = written.strip_prefix(prefix.as_str());
            // Only the Hub's references have revisions.
            let is_hub = prefix.starts_with("hf:");
            rest.is_some_and(|rest| {
                rest.is_empty() || rest.starts_with('/') || (is_hub && rest.starts_with('@'))
            })
        };
        match self.prefixes.iter().any(is_below) {
            true => Ok(reference),
            false => Err(self.refused(text)),
        }
    }

    /// What `text` would mean, whether or not adapters may come from there and whether or not there
    /// are any, as long as links of this machine are followed; `None` if it is no reference, or
    /// leads upwards where nothing is.
    pub fn would_be(text: &str) -> Option<Reference> {
        let reference = Reference::parse(text).ok()?;
        let Reference::Folder(path) = &reference else {
            return Some(reference);
        };
        let path = std::path::absolute(path).ok()?;
        // What is not there is below what is there of its path.
        let found = |above: &Path| Some((above.to_owned(), above.canonicalize().ok()?));
        let (above, real) = path.ancestors().find_map(found)?;
        let below = path.strip_prefix(above).ok()?;
        let is_plain = below.components().all(|part| part != Component::ParentDir);
        is_plain.then(|| Reference::Folder(real.components().chain(below.components()).collect()))
    }

    fn refused(&self, text: &str) -> SourceError {
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

    fn folder(&self, text: &str, path: &Path, files_of: FilesOf) -> Result<PathBuf, SourceError> {
        let source = match path.canonicalize() {
            Ok(folder) => {
                // Nor may its files be links that lead out.
                let is_allowed = self.contain(&folder) && {
                    files_of(&folder).iter().all(|file| {
                        file.canonicalize().is_ok_and(|file| self.contain(&file)) || !file.exists()
                    })
                };
                return is_allowed.then_some(folder).ok_or_else(|| self.refused(text));
            }
            Err(source) => source,
        };
        // What is not there is judged by what is there of its path.
        let above = path.ancestors().find_map(|above| above.canonicalize().ok());
        let is_plain = path.components().all(|part| part != Component::ParentDir);
        match above.is_some_and(|above| self.contain(&above)) && is_plain {
            true => Err(SourceError::Folder {
                path: path.to_owned(),
                source,
            }),
            false => Err(self.refused(text)),
        }
    }

    fn contain(&self, real: &Path) -> bool {
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
        let would_be = |path: &str| AllowedSources::would_be(&root.join(path).display().to_string());
        let real = |path: &str| Some(Reference::Folder(dir.path().canonicalize().unwrap().join(path)));
        assert_eq!(would_be("support"), real("allowed/support"));
        assert_eq!(would_be("none/x"), real("allowed/none/x"));
        assert_eq!(would_be("support/../none"), real("allowed/none"));
        assert_eq!(would_be("none/../x"), None);
        #[cfg(unix)]
        assert_eq!(would_be("link/none"), real("secret/none"));
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
        // It is no source that anybody could name.
        assert!(uploads.resolve("upload", no_files).is_err());
        assert_eq!(
            "./upload".parse(),
            Ok(AllowedSource::Folder(PathBuf::from("./upload")))
        );
        assert!("hf://a/b/c".parse::<AllowedSource>().is_err());
    }
}

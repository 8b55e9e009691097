//! The text that names a source, parsed.

use std::fmt;
use std::path::{Path, PathBuf};

use url::Url;

/// Where files are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    /// A folder or a file on this machine.
    Folder(PathBuf),
    /// A repository of the Hugging Face Hub.
    Hub {
        /// `organisation/name`.
        repo: String,
        /// A branch, tag or commit; `None` is `main`.
        revision: Option<String>,
    },
    /// A folder in an object store (`s3://`, `gs://`, `az://`) or on a web server (`https://`).
    Url(Url),
    /// An upload. It has no text form that [`Reference::parse`] accepts, so no request can name
    /// one.
    Upload {
        /// The folder that holds the files until they are stored. It exists at least until they are
        /// loaded.
        folder: PathBuf,
    },
}

/// Text that is not a [`Reference`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a valid source: {reason}")]
pub struct BadReference {
    text: String,
    reason: &'static str,
}

/// URL schemes of object stores and web servers.
const SCHEMES: [&str; 5] = ["s3", "gs", "az", "https", "http"];

/// How uploads are shown and stored.
pub const UPLOAD: &str = "upload";

/// Prefix of Hub references.
const HUB: &str = "hf://";

impl Reference {
    /// Parses `hf://org/repo[@revision]`, `s3://…`, `gs://…`, `az://…`, `https://…`, a path, or
    /// `org/repo[@revision]` if there is no such path.
    ///
    /// # Errors
    /// If `text` is none of these.
    pub fn parse(text: &str) -> Result<Self, BadReference> {
        Self::parse_in(text, Path::new(""))
    }

    /// As [`Reference::parse`], with paths relative to `base`.
    ///
    /// # Errors
    /// As [`Reference::parse`].
    pub fn parse_in(text: &str, base: &Path) -> Result<Self, BadReference> {
        let bad = |reason| {
            Err(BadReference {
                text: text.to_owned(),
                reason,
            })
        };
        if text.is_empty() {
            return bad("it is empty");
        }
        if let Some(rest) = text.strip_prefix(HUB) {
            return match parse_hub(rest) {
                Some(hub) => Ok(hub),
                None => bad(
                    "a repository of the Hub is written as hf://organisation/name or hf://organisation/name@revision",
                ),
            };
        }
        if let Some((scheme, _)) = text.split_once("://") {
            if !SCHEMES.contains(&scheme) {
                return bad("it begins with none of hf://, s3://, gs://, az:// and https://");
            }
            let Ok(url) = Url::parse(text) else {
                return bad("it is not a valid URL");
            };
            if url.host_str().is_none_or(str::is_empty) {
                return bad("it names no bucket or host");
            }
            if !url.username().is_empty() || url.password().is_some() {
                return bad("it holds a user or password; credentials belong in the server's environment");
            }
            if url.query().is_some() || url.fragment().is_some() {
                return bad("it must be the folder that holds the files, without a query or fragment");
            }
            return Ok(Self::Url(url));
        }
        let path = base.join(text);
        let is_path = Path::new(text).is_absolute() || text.starts_with('.') || path.exists();
        match parse_hub(text).filter(|_| !is_path) {
            Some(hub) => Ok(hub),
            None => Ok(Self::Folder(path)),
        }
    }

    /// The default name for what is here: the name of the folder or file without `.gguf`, or the
    /// repository.
    pub fn default_name(&self) -> Option<String> {
        match self {
            Self::Folder(folder) => {
                let name = folder.file_name()?.to_string_lossy();
                Some(name.strip_suffix(".gguf").unwrap_or(&name).to_owned())
            }
            Self::Hub { repo, .. } => Some(repo.clone()),
            Self::Url(url) => {
                let last = url.path_segments()?.rfind(|part| !part.is_empty())?;
                Some(last.to_owned())
            }
            Self::Upload { .. } => None,
        }
    }

    /// The path, if the files are on this machine.
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::Folder(folder) => Some(folder),
            Self::Hub { .. } | Self::Url(_) | Self::Upload { .. } => None,
        }
    }

    /// The host of a web server.
    pub fn host(&self) -> Option<String> {
        match self {
            Self::Url(url) if matches!(url.scheme(), "http" | "https") => url.host_str().map(str::to_owned),
            _ => None,
        }
    }

    /// Whether the files must be downloaded.
    pub fn is_remote(&self) -> bool {
        matches!(self, Self::Hub { .. } | Self::Url(_))
    }
}

fn parse_hub(text: &str) -> Option<Reference> {
    let (repo, revision) = match text.split_once('@') {
        Some((repo, revision)) => (repo, Some(revision)),
        None => (text, None),
    };
    let is_part = |part: &str| {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        !part.is_empty() && part.len() <= 96 && !part.starts_with('.') && part.chars().all(is_plain)
    };
    let (organisation, name) = repo.split_once('/')?;
    let is_revision = |revision: &str| {
        let mut parts = revision.split('/');
        !revision.is_empty() && parts.all(is_part)
    };
    (is_part(organisation) && is_part(name) && revision.is_none_or(is_revision)).then(|| Reference::Hub {
        repo: repo.to_owned(),
        revision: revision.map(str::to_owned),
    })
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => write!(f, "{}", folder.display()),
            Self::Hub { repo, revision: None } => write!(f, "{HUB}{repo}"),
            Self::Hub {
                repo,
                revision: Some(revision),
            } => write!(f, "{HUB}{repo}@{revision}"),
            Self::Url(url) => write!(f, "{url}"),
            Self::Upload { .. } => f.write_str(UPLOAD),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_told_apart_and_written_as_they_are_read() {
        for (text, written, name) in [
            ("/models/support", "/models/support", "support"),
            ("./org/repo", "./org/repo", "repo"),
            ("support", "support", "support"),
            ("a/b/c", "a/b/c", "c"),
            ("org/repo", "hf://org/repo", "org/repo"),
            ("org/repo@v1", "hf://org/repo@v1", "org/repo"),
            ("hf://org/repo@refs/pr/1", "hf://org/repo@refs/pr/1", "org/repo"),
            ("s3://bucket/team/support", "s3://bucket/team/support", "support"),
            (
                "https://example.com/a/support/",
                "https://example.com/a/support/",
                "support",
            ),
        ] {
            let reference = Reference::parse(text).unwrap();
            assert_eq!(reference.to_string(), written);
            assert_eq!(reference.default_name().as_deref(), Some(name));
            assert_eq!(Reference::parse(written).unwrap(), reference);
        }
    }

    #[test]
    fn a_folder_that_is_there_is_no_repository() {
        assert_eq!(
            Reference::parse("tests/it").unwrap(),
            Reference::Folder("tests/it".into())
        );
    }

    #[test]
    fn paths_are_relative_to_where_they_are_written() {
        let base = Path::new("tests");
        assert_eq!(
            Reference::parse_in("it/main.rs", base).unwrap(),
            Reference::Folder("tests/it/main.rs".into())
        );
        assert_eq!(
            Reference::parse_in("it/none", base).unwrap().to_string(),
            "hf://it/none"
        );
        assert_eq!(
            Reference::parse_in("./none", base).unwrap(),
            Reference::Folder("tests/./none".into())
        );
    }

    #[test]
    fn what_is_none_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "empty"),
            ("hf://repo", "hf://organisation/name"),
            ("hf://org/../x", "hf://organisation/name"),
            ("hf://org/repo@../../x", "hf://organisation/name"),
            ("ftp://host/x", "none of"),
            ("file:///etc", "none of"),
            ("s3:///x", "bucket"),
            ("https://user:pass@host/x", "credentials"),
            ("https://host/x?y", "query"),
        ] {
            let error = Reference::parse(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}

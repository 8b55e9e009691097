//! Finds the file or folder that a name of a model means.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};

/// Short names of models that `cargo xtask model` and the demo put into the cache.
const SHORT_NAMES: [(&str, &str); 1] = [("smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")];

/// The folders in which models are searched.
#[derive(Debug)]
pub(crate) struct SearchPath {
    /// The cache of fetched adapters: `adapters` beside `models`.
    adapters: PathBuf,
    /// multigraft's cache of models: `models` in `$MULTIGRAFT_CACHE`, `$XDG_CACHE_HOME/multigraft`
    /// or `~/.cache/multigraft`.
    models: PathBuf,
    /// Hugging Face's cache: `$HF_HUB_CACHE`, `$HF_HOME/hub` or `~/.cache/huggingface/hub`.
    hub: PathBuf,
}

/// A model that was found.
#[derive(Debug, PartialEq)]
pub(crate) struct Located {
    /// Its file or folder.
    pub path: PathBuf,
    /// Its name in requests: the given name, or its title if a path was given.
    pub name: String,
    /// The name of its file or folder; in the Hub's cache, the name of the repository.
    pub title: String,
}

impl SearchPath {
    /// The search path of this user.
    pub(crate) fn of_this_user() -> Self {
        Self::from_variables(|name| env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let path = |name: &str| variable(name).map(PathBuf::from);
        let caches =
            path("XDG_CACHE_HOME").unwrap_or_else(|| path("HOME").unwrap_or_default().join(".cache"));
        let cache = path("MULTIGRAFT_CACHE").unwrap_or_else(|| caches.join("multigraft"));
        Self {
            adapters: cache.join("adapters"),
            models: cache.join("models"),
            hub: path("HF_HUB_CACHE")
                .or_else(|| Some(path("HF_HOME")?.join("hub")))
                .unwrap_or_else(|| caches.join("huggingface").join("hub")),
        }
    }

    /// The cache of adapters from object stores and web servers.
    pub(crate) fn adapters(&self) -> PathBuf {
        self.adapters.clone()
    }

    /// The file or folder that `base` means: a path that exists, or else a name in one of the
    /// folders.
    pub(crate) fn find(&self, base: &str) -> Result<Located> {
        let path = PathBuf::from(base);
        if path.exists() {
            let title = title(&path);
            return Ok(Located {
                name: title.clone(),
                title,
                path,
            });
        }
        let mut tried = vec![path];
        if is_name(base) {
            tried.extend(self.candidates(base));
        }
        if let Some(found) = tried.iter().find(|candidate| is_model(candidate)) {
            return Ok(Located {
                path: found.clone(),
                name: base.to_owned(),
                title: title(found),
            });
        }
        let looked: Vec<String> = tried
            .iter()
            .map(|path| format!("\n  {}", path.display()))
            .collect();
        let known = SHORT_NAMES
            .iter()
            .any(|(name, _)| base.eq_ignore_ascii_case(name));
        let hint = if known {
            "\n`cargo xtask model` fetches it."
        } else {
            ""
        };
        bail!(
            "there is no model `{base}`; searched for{}{hint}",
            looked.concat()
        )
    }

    fn candidates(&self, name: &str) -> Vec<PathBuf> {
        let mut candidates = Vec::new();
        if let Some((_, file)) = SHORT_NAMES
            .iter()
            .find(|(known, _)| name.eq_ignore_ascii_case(known))
        {
            candidates.push(self.models.join(file));
        }
        candidates.push(self.models.join(name));
        candidates.push(self.models.join(format!("{name}.gguf")));
        let repository = self.hub.join(format!("models--{}", name.replace('/', "--")));
        candidates.extend(snapshot(&repository).or(Some(repository.join("snapshots").join("main"))));
        candidates
    }
}

/// The name of a file or folder; `org/name` for a snapshot in the Hub's cache, whose folder is
/// named by a hash.
fn title(path: &Path) -> String {
    // Links are not resolved: in the Hub's cache they lead to files that are named by their hashes.
    let absolute = match path.file_name() {
        Some(_) => std::path::absolute(path),
        None => path.canonicalize(),
    };
    let path = absolute.unwrap_or_else(|_| path.to_owned());
    let name = |path: &Path| {
        path.file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    let snapshots = path.parent().filter(|parent| name(parent) == "snapshots");
    let repository = snapshots.and_then(Path::parent).map(name);
    if let Some(repository) = repository
        .as_deref()
        .and_then(|name| name.strip_prefix("models--"))
    {
        return repository.replacen("--", "/", 1);
    }
    let file = name(&path);
    match file.strip_suffix(".gguf") {
        Some(stem) => stem.to_owned(),
        None => file,
    }
}

/// Whether it is `name` or `org/name`, so that it cannot lead out of a cache folder.
fn is_name(base: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part
                .chars()
                .all(|character| character.is_alphanumeric() || "._-".contains(character))
    };
    base.split('/').count() <= 2 && base.split('/').all(part)
}

fn is_model(path: &Path) -> bool {
    path.is_file() || path.join("config.json").is_file()
}

/// The snapshot of a repository in the Hub's cache that `main` points at, or else the latest.
fn snapshot(repository: &Path) -> Option<PathBuf> {
    let snapshots = repository.join("snapshots");
    if let Ok(commit) = fs::read_to_string(repository.join("refs").join("main")) {
        let pinned = snapshots.join(commit.trim());
        if is_name(commit.trim()) && pinned.is_dir() {
            return Some(pinned);
        }
    }
    fs::read_dir(snapshots)
        .ok()?
        .filter_map(Result::ok)
        .max_by_key(|entry| entry.metadata().and_then(|metadata| metadata.modified()).ok())
        .map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search_path(root: &Path) -> SearchPath {
        let root = root.to_string_lossy().into_owned();
        SearchPath::from_variables(|name| (name == "HOME").then(|| root.clone()))
    }

    fn touch(path: &Path) {
        fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        fs::write(path, "").expect("a file");
    }

    #[test]
    fn a_path_that_exists_is_itself() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("m.gguf");
        touch(&file);
        let found = search_path(folder.path()).find(&file.to_string_lossy());
        let found = found.expect("found");
        assert_eq!((found.path, found.name.as_str()), (file, "m"));
    }

    #[test]
    fn short_names_are_in_the_cache() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder
            .path()
            .join(".cache/multigraft/models")
            .join(SHORT_NAMES[0].1);
        touch(&file);
        let found = search_path(folder.path()).find("SmolLM2").expect("found");
        assert_eq!((found.path, found.name.as_str()), (file, "SmolLM2"));
        assert_eq!(found.title, "SmolLM2-135M-Instruct.Q4_1");
    }

    #[test]
    fn repositories_are_in_the_hubs_cache_at_their_main() {
        let folder = tempfile::tempdir().expect("a folder");
        let repository = folder.path().join(".cache/huggingface/hub/models--org--name");
        touch(&repository.join("snapshots/abc/config.json"));
        touch(&repository.join("snapshots/def/config.json"));
        fs::create_dir_all(repository.join("refs")).expect("a folder");
        fs::write(repository.join("refs/main"), "abc\n").expect("a file");
        let found = search_path(folder.path()).find("org/name").expect("found");
        assert_eq!(found.path, repository.join("snapshots/abc"));
        let by_path = search_path(folder.path())
            .find(&found.path.to_string_lossy())
            .expect("found");
        assert_eq!(
            (found.name.as_str(), by_path.name.as_str()),
            ("org/name", "org/name")
        );
    }

    #[test]
    fn a_missing_model_is_an_error_that_lists_the_searched_paths() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = search_path(folder.path())
            .find("smollm2")
            .expect_err("nowhere")
            .to_string();
        assert!(error.contains(".cache/multigraft/models"), "{error}");
        assert!(error.contains("models--smollm2"), "{error}");
        assert!(error.contains("cargo xtask model"), "{error}");
        let error = search_path(folder.path())
            .find("../../etc/x")
            .expect_err("no name")
            .to_string();
        assert!(!error.contains(".cache"), "{error}");
    }
}

//! Where tests find what they need: the workspace's fixtures and the small real model.
//!
//! A dev-dependency only; no shipped crate depends on it.
//!
//! A test that needs the real model must not pass without it, so [`smollm2`] panics with the
//! command that fetches it instead of returning an `Option` that a test could skip on.

mod adapter;
mod gguf;
mod web;

use std::{
    env,
    path::{Path, PathBuf},
};

pub use adapter::{Adapter, HIDDEN, LAYERS, VOCAB, WIDTH, safetensors};
pub use gguf::GgufWriter;
pub use web::WebServer;

/// The real model that tests run on: 135 million parameters, quantised to Q4_1, 98 MB.
const MODEL_FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";

/// The environment variable that names the model file, wherever it is.
const MODEL_VARIABLE: &str = "MULTIGRAFT_TEST_MODEL";

/// The GGUF file of SmolLM2-135M-Instruct (Q4_1).
///
/// Looked for at `$MULTIGRAFT_TEST_MODEL`, else in the `models` folder of the cache that `cargo
/// xtask model` fills: `$MULTIGRAFT_CACHE`, else `$XDG_CACHE_HOME/multigraft`, else
/// `~/.cache/multigraft`.
///
/// # Panics
///
/// If the file is not there, saying how to get it: a test without its model fails, it is not
/// skipped.
#[must_use]
pub fn smollm2() -> PathBuf {
    let path = model_path(|name| env::var(name).ok().filter(|value| !value.is_empty()));
    assert!(
        path.is_file(),
        "the test model is not at {}: run `cargo xtask model` to fetch it, or set {MODEL_VARIABLE} to the path \
         of {MODEL_FILE}",
        path.display()
    );
    path
}

/// The workspace's `fixtures` folder.
#[must_use]
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

/// Where the model belongs, for an environment given by `variable`.
fn model_path(variable: impl Fn(&str) -> Option<String>) -> PathBuf {
    if let Some(file) = variable(MODEL_VARIABLE) {
        return PathBuf::from(file);
    }
    let cache = variable("MULTIGRAFT_CACHE")
        .map(PathBuf::from)
        .unwrap_or_else(|| {
            variable("XDG_CACHE_HOME")
                .map(PathBuf::from)
                .unwrap_or_else(|| PathBuf::from(variable("HOME").unwrap_or_default()).join(".cache"))
                .join("multigraft")
        });
    cache.join("models").join(MODEL_FILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path_with(variables: &[(&str, &str)]) -> PathBuf {
        model_path(|name| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_named_file_wins_over_the_cache() {
        let path = path_with(&[("MULTIGRAFT_TEST_MODEL", "/m.gguf"), ("MULTIGRAFT_CACHE", "/c")]);
        assert_eq!(path, Path::new("/m.gguf"));
    }

    #[test]
    fn each_cache_variable_is_a_fallback_of_the_one_before() {
        let file = |folder: &str| Path::new(folder).join(MODEL_FILE);
        let all = [
            ("MULTIGRAFT_CACHE", "/c"),
            ("XDG_CACHE_HOME", "/x"),
            ("HOME", "/h"),
        ];
        assert_eq!(path_with(&all), file("/c/models"));
        assert_eq!(path_with(&all[1..]), file("/x/multigraft/models"));
        assert_eq!(path_with(&all[2..]), file("/h/.cache/multigraft/models"));
    }

    #[test]
    fn the_fixtures_folder_is_the_workspaces() {
        assert!(fixtures().join("../Cargo.toml").is_file());
    }
}

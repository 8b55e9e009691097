//! Where downloads and tools are kept between runs.

use std::env;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

/// `$MULTIGRAFT_CACHE`, else `$XDG_CACHE_HOME/multigraft`, else `~/.cache/multigraft`: where
/// `multigraft-testing` looks for the model too. It is made if it is not there.
pub(crate) fn folder() -> Result<PathBuf> {
    let variable = |name| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let folder = variable("MULTIGRAFT_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("multigraft")))
        .or_else(|| env::home_dir().map(|home| home.join(".cache").join("multigraft")))
        .context("no home folder: set MULTIGRAFT_CACHE to a folder for downloads")?;
    fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make the cache folder {}", folder.display()))?;
    Ok(folder)
}

//! Folders of packages for node.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::cache;
use crate::shell::{execute_aside, works};

/// What says which packages: names and versions, and the hash of each.
const LISTS: [&str; 2] = ["package.json", "package-lock.json"];

/// A folder in the cache folder that has the packages which the lists in `from` ask for; it is made
/// anew when they change. `None` without node and npm.
pub(crate) fn packages(name: &str, from: &Path) -> Result<Option<PathBuf>> {
    if !works("node", &["--version"]) || !works("npm", &["--version"]) {
        return Ok(None);
    }
    let folder = cache::folder()?.join("node").join(name);
    let lists = LISTS.map(|list| {
        let path = from.join(list);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    });
    let [package, lock] = lists;
    let lists = package? + &lock?;
    // Written last: an interrupted installation does not count.
    let installed = folder.join("installed.txt");
    if fs::read_to_string(&installed).is_ok_and(|text| text == lists) {
        return Ok(Some(folder));
    }
    fs::create_dir_all(&folder)?;
    for list in LISTS {
        fs::copy(from.join(list), folder.join(list))?;
    }
    execute_aside(
        Command::new("npm")
            .args(["ci", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"])
            .arg(&folder),
    )?;
    fs::write(&installed, lists)?;
    Ok(Some(folder))
}

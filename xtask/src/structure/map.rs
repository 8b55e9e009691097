//! The paths that `ARCHITECTURE.md` names exist.

use std::fs;

use anyhow::{Context, Result};

use crate::shell::root;

/// The paths of `ARCHITECTURE.md` at which there is nothing.
pub(super) fn dead_paths() -> Result<Vec<String>> {
    let map = root().join("ARCHITECTURE.md");
    let text = fs::read_to_string(&map).with_context(|| format!("cannot read {}", map.display()))?;
    let crates = root().join("crates");
    let found = paths(&text)
        .into_iter()
        .filter(|path| !root().join(path).exists() && !crates.join(path).exists())
        .map(|path| format!("ARCHITECTURE.md names {path}, which does not exist"));
    Ok(found.collect())
}

/// What is set as code and has a slash and no spaces, and link targets that are no addresses.
fn paths(text: &str) -> Vec<String> {
    let code = text.split('`').skip(1).step_by(2);
    let links = text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split([')', '#']).next());
    let is_path = |word: &&str| {
        let signs = |sign: char| sign.is_ascii_alphanumeric() || "/._-{},".contains(sign);
        word.contains('/') && !word.starts_with('/') && word.chars().all(signs)
    };
    code.chain(links).filter(is_path).flat_map(spelled_out).collect()
}

/// `a/{b,c}.rs` is `a/b.rs` and `a/c.rs`.
fn spelled_out(path: &str) -> Vec<String> {
    let parts = path
        .split_once('{')
        .and_then(|(before, rest)| Some((before, rest.split_once('}')?)));
    let Some((before, (names, after))) = parts else {
        return vec![path.to_owned()];
    };
    names
        .split(',')
        .map(|name| format!("{before}{name}{after}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::paths;

    #[test]
    fn code_with_slashes_and_links_are_paths() {
        let text = "`a/{b,c}.rs` and [`d`](crates/d.rs#x), but not `/v1/models`, `e` or `f(g/h)`";
        assert_eq!(paths(text), ["a/b.rs", "a/c.rs", "crates/d.rs"]);
    }
}

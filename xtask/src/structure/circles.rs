//! Circles of imports: files of one crate that use each other, directly or through others.
//!
//! A parent module may use its children while they use what it defines; every other circle ties
//! files together that should be readable one by one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::modules::Modules;
use crate::shell::root;

/// For each file those that it uses.
type Uses = BTreeMap<PathBuf, BTreeSet<PathBuf>>;

/// The circles of all crates of the workspace.
pub(super) fn all() -> Result<Vec<String>> {
    let mut sources = vec![root().join("xtask/src")];
    let crates = root().join("crates");
    for entry in fs::read_dir(&crates).with_context(|| format!("cannot list {}", crates.display()))? {
        sources.push(entry?.path().join("src"));
    }
    sources.sort();
    let mut found = Vec::new();
    for source in sources {
        for name in ["lib.rs", "main.rs"] {
            let file = source.join(name);
            if file.exists() {
                let uses = Modules::read(&file)?.uses();
                found.extend(circles(&uses).iter().map(|circle| told(circle, &uses)));
            }
        }
    }
    Ok(found)
}

/// The circles among `uses` in which more meet than a parent module and its own children.
fn circles(uses: &Uses) -> Vec<BTreeSet<PathBuf>> {
    let mut found = Vec::new();
    for circle in strongly_connected(uses) {
        let parent = circle
            .iter()
            .find(|file| circle.iter().all(|other| other == *file || is_child(other, file)));
        let Some(parent) = parent else {
            found.push(circle);
            continue;
        };
        // Without what the parent uses of its children, the children must be free of circles too.
        let rest: Uses = circle
            .iter()
            .filter(|file| *file != parent)
            .map(|file| (file.clone(), &uses[file] & &circle))
            .collect();
        found.extend(circles(&rest));
    }
    found
}

/// Whether `file` is of a module within the module of `parent`.
fn is_child(file: &Path, parent: &Path) -> bool {
    let folder = match parent.file_stem().and_then(|stem| stem.to_str()) {
        Some("mod" | "lib" | "main") => parent.parent().map(Path::to_owned),
        _ => Some(parent.with_extension("")),
    };
    folder.is_some_and(|folder| file.starts_with(folder))
}

/// The sets of more than one file in which each reaches each. Small graphs: by reachability.
fn strongly_connected(uses: &Uses) -> Vec<BTreeSet<PathBuf>> {
    let reached: BTreeMap<&PathBuf, BTreeSet<&PathBuf>> =
        uses.keys().map(|file| (file, reachable(file, uses))).collect();
    let mut placed: BTreeSet<&PathBuf> = BTreeSet::new();
    let mut sets = Vec::new();
    for (&file, others) in &reached {
        if placed.contains(file) {
            continue;
        }
        let back = |other: &&&PathBuf| reached.get(**other).is_some_and(|back| back.contains(file));
        let set: Vec<&PathBuf> = others.iter().filter(back).copied().collect();
        if set.len() > 1 {
            placed.extend(&set);
            sets.push(set.into_iter().cloned().collect());
        }
    }
    sets
}

fn reachable<'a>(from: &'a PathBuf, uses: &'a Uses) -> BTreeSet<&'a PathBuf> {
    let mut reached = BTreeSet::new();
    let mut open = vec![from];
    while let Some(file) = open.pop() {
        for next in uses.get(file).into_iter().flatten() {
            if reached.insert(next) {
                open.push(next);
            }
        }
    }
    reached
}

/// The files of a circle, and for each the others that it uses.
fn told(circle: &BTreeSet<PathBuf>, uses: &Uses) -> String {
    let name = |file: &PathBuf| file.strip_prefix(root()).unwrap_or(file).display().to_string();
    let mut text = format!("{} files import each other in a circle:", circle.len());
    for file in circle {
        let others: Vec<_> = uses[file].intersection(circle).map(name).collect();
        text += &format!("\n    {} uses {}", name(file), others.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uses(arrows: &[(&str, &[&str])]) -> Uses {
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect();
        arrows
            .iter()
            .map(|(from, to)| (PathBuf::from(from), paths(to)))
            .collect()
    }

    #[test]
    fn neighbours_that_use_each_other_are_a_circle() {
        let arrows = uses(&[("src/a.rs", &["src/b.rs"]), ("src/b.rs", &["src/a.rs"])]);
        assert_eq!(circles(&arrows).len(), 1);
    }

    #[test]
    fn a_parent_and_its_children_are_none() {
        let arrows = uses(&[
            ("src/a/mod.rs", &["src/a/b.rs", "src/a/c.rs"]),
            ("src/a/b.rs", &["src/a/mod.rs"]),
            ("src/a/c.rs", &["src/a/mod.rs", "src/a/b.rs"]),
        ]);
        assert_eq!(circles(&arrows), Vec::<BTreeSet<PathBuf>>::new());
    }

    #[test]
    fn children_that_use_each_other_are_a_circle_whatever_their_parent_does() {
        let arrows = uses(&[
            ("src/a/mod.rs", &["src/a/b.rs"]),
            ("src/a/b.rs", &["src/a/mod.rs", "src/a/c.rs"]),
            ("src/a/c.rs", &["src/a/b.rs"]),
        ]);
        assert_eq!(circles(&arrows).len(), 1);
    }

    #[test]
    fn two_rooms_that_use_each_other_are_a_circle() {
        let arrows = uses(&[
            ("src/a/mod.rs", &["src/a/b.rs"]),
            ("src/a/b.rs", &["src/c/d.rs"]),
            ("src/c/d.rs", &["src/a/mod.rs"]),
        ]);
        assert_eq!(circles(&arrows).len(), 1);
    }
}

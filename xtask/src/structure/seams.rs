//! Seams between crates: what a crate must not depend on, directly or through others.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::shell::root;

/// Crates of this workspace, and what they must not depend on outside their tests.
const APART: &[(&str, &[&str])] = &[
    (
        "multigraft-kernels",
        &["multigraft-weights", "multigraft-model", "tokio", "rusqlite"],
    ),
    ("multigraft-weights", &["multigraft-model"]),
    ("multigraft-text", &["multigraft-model"]),
    ("multigraft-grammar", &["multigraft-model", "multigraft-engine"]),
    (
        "multigraft-database",
        &["multigraft-access", "multigraft-batches", "multigraft-adapters"],
    ),
    (
        "multigraft-api",
        &["multigraft-server", "multigraft-engine", "axum"],
    ),
    (
        "multigraft-access",
        &["multigraft-adapters", "multigraft-engine", "axum"],
    ),
    ("multigraft-batches", &["multigraft-engine", "axum"]),
    (
        "multigraft-planner",
        &["multigraft-cpu", "multigraft-server", "axum"],
    ),
    (
        "multigraft-cpu",
        &["multigraft-engine", "multigraft-adapters", "axum"],
    ),
    ("multigraft-model", &["multigraft-cpu", "multigraft-engine"]),
    (
        "multigraft-engine",
        &["multigraft-cpu", "multigraft-adapters", "axum", "hyper"],
    ),
    (
        "multigraft-peft",
        &[
            "multigraft-cpu",
            "multigraft-engine",
            "reqwest",
            "object_store",
            "rusqlite",
        ],
    ),
    (
        "multigraft-sources",
        &[
            "multigraft-cpu",
            "multigraft-peft",
            "multigraft-engine",
            "rusqlite",
        ],
    ),
    (
        "multigraft-adapters",
        &["multigraft-cpu", "multigraft-engine", "axum"],
    ),
    ("multigraft-server", &["multigraft-cpu"]),
    ("multigraft-loadgen", &["multigraft-server", "multigraft-engine"]),
    ("multigraft", &["multigraft-stress", "multigraft-testing"]),
];

/// The only file outside `crates/cpu` that may name its types: it chooses the backend.
const CHOOSES_BACKEND: &str = "crates/multigraft/src/device.rs";

/// Every seam that is crossed.
pub(super) fn crossed() -> Result<Vec<String>> {
    let depends = normal_dependencies()?;
    let mut found = Vec::new();
    for (from, apart) in APART {
        let reached = reachable(from, &depends);
        for to in *apart {
            if reached.contains(*to) {
                found.push(format!(
                    "{from} depends on {to}, which it must not (see `cargo tree -e normal -p {from} -i {to}`)"
                ));
            }
        }
    }
    for folder in fs::read_dir(root().join("crates"))? {
        let source = folder?.path().join("src");
        names_cpu(&source, &mut found)?;
    }
    Ok(found)
}

/// Source files that name the crate `cpu` although they do not choose the backend.
fn names_cpu(folder: &Path, found: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            names_cpu(&path, found)?;
            continue;
        }
        let name = path.strip_prefix(root()).unwrap_or(&path);
        if name.starts_with("crates/cpu") || name == Path::new(CHOOSES_BACKEND) {
            continue;
        }
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        if text.contains("multigraft_cpu") {
            found.push(format!(
                "{} names the crate `cpu`: only {CHOOSES_BACKEND} may",
                name.display()
            ));
        }
    }
    Ok(())
}

/// The names of the packages that each package depends on when it is built for use.
fn normal_dependencies() -> Result<BTreeMap<String, BTreeSet<String>>> {
    let output = Command::new("cargo")
        .args(["metadata", "--format-version=1", "--locked"])
        .current_dir(root())
        .output()
        .context("cannot run cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let names: BTreeMap<String, String> = list(&metadata["packages"])
        .iter()
        .filter_map(|package| Some((text(&package["id"])?, text(&package["name"])?)))
        .collect();
    let mut depends: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for node in list(&metadata["resolve"]["nodes"]) {
        let name = &names[&text(&node["id"]).context("a package has an id")?];
        let to = list(&node["deps"])
            .into_iter()
            .filter(|dependency| {
                // A kind that is null is a normal dependency.
                list(&dependency["dep_kinds"])
                    .iter()
                    .any(|kind| kind["kind"].is_null())
            })
            .filter_map(|dependency| names.get(dependency["pkg"].as_str()?).cloned());
        depends.entry(name.clone()).or_default().extend(to);
    }
    Ok(depends)
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn reachable<'a>(from: &str, depends: &'a BTreeMap<String, BTreeSet<String>>) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&str> = vec![from];
    while let Some(name) = open.pop() {
        for next in depends.get(name).into_iter().flatten() {
            if reached.insert(next.as_str()) {
                open.push(next);
            }
        }
    }
    reached
}

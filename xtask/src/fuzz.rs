//! `cargo xtask fuzz`: every fuzz target for a while.

use std::fs;

use anyhow::{Context, Result, bail};

use crate::shell::{cargo, execute, root, works};

/// An input of some kilobytes that makes a parser ask for more than this many megabytes at once is
/// a finding.
const MALLOC_LIMIT_MB: u32 = 16;

/// Runs the targets (all of them if none is named), each for `seconds`.
pub(crate) fn run(targets: &[String], seconds: u32) -> Result<()> {
    if !works("cargo", &["+nightly", "fuzz", "--version"]) {
        bail!("cargo-fuzz does not run: `rustup toolchain install nightly` and `cargo install cargo-fuzz`");
    }
    let known = known_targets()?;
    for target in targets {
        if !known.contains(target) {
            bail!(
                "there is no fuzz target `{target}`; there are {}",
                known.join(", ")
            );
        }
    }
    for target in if targets.is_empty() { &known } else { targets } {
        println!("\n──── {target} ────");
        // What is found goes to the first folder, which git ignores.
        let corpus = root().join("fuzz").join("corpus").join(target);
        fs::create_dir_all(&corpus)?;
        execute(
            cargo("+nightly fuzz run")
                .arg(target)
                .arg(&corpus)
                .arg(root().join("fuzz").join("seeds").join(target))
                .arg("--")
                .arg(format!("-max_total_time={seconds}"))
                .arg(format!("-malloc_limit_mb={MALLOC_LIMIT_MB}")),
        )?;
    }
    Ok(())
}

/// The files in `fuzz/fuzz_targets`.
fn known_targets() -> Result<Vec<String>> {
    let folder = root().join("fuzz").join("fuzz_targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
        names.extend(
            entry?
                .path()
                .file_stem()
                .and_then(|stem| stem.to_str())
                .map(str::to_owned),
        );
    }
    names.sort();
    Ok(names)
}

//! Checks of how the source is laid out, so that what `ARCHITECTURE.md` says of it stays true.

mod circles;
mod comments;
mod map;
mod modules;
mod seams;

use anyhow::{Result, bail};

/// Runs all checks and lists everything that they find.
pub(crate) fn check() -> Result<()> {
    let mut findings = comments::too_wide()?;
    findings.extend(map::dead_paths()?);
    findings.extend(circles::all()?);
    findings.extend(seams::crossed()?);
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!(
            "{} places break the layout that ARCHITECTURE.md describes",
            findings.len()
        );
    }
    Ok(())
}

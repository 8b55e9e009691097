//! Finding Python, and folders of packages for it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cache;
use crate::shell::{execute_aside, works};

/// A Python of version 3.9 or newer.
pub(crate) fn find() -> Result<&'static str> {
    const IS_RECENT: &str = "import sys; sys.exit(sys.version_info < (3, 9))";
    ["python3", "python"]
        .into_iter()
        .find(|program| works(program, &["-c", IS_RECENT]))
        .context("there is no Python 3.9 or newer: install python3 (on Debian: apt-get install python3 python3-venv)")
}

/// The folder of programs (`python` among them) of a virtual environment in the cache folder that
/// has the packages which `requirements`, the text of a requirements file, asks for. It is made
/// anew when they change.
pub(crate) fn venv(name: &str, requirements: &str) -> Result<PathBuf> {
    let folder = cache::folder()?.join("venvs").join(name);
    let programs = folder.join(if cfg!(windows) { "Scripts" } else { "bin" });
    // Written last: an interrupted installation does not count.
    let installed = folder.join("installed.txt");
    if fs::read_to_string(&installed).is_ok_and(|text| text == requirements) {
        return Ok(programs);
    }
    let python = find()?;
    if !works(python, &["-c", "import venv, ensurepip"]) {
        bail!(
            "{python} cannot make virtual environments: install its venv module (on Debian: apt-get install python3-venv)"
        );
    }
    execute_aside(Command::new(python).args(["-m", "venv", "--clear"]).arg(&folder))?;
    let list = folder.join("requirements.txt");
    fs::write(&list, requirements)?;
    execute_aside(
        Command::new(programs.join("python"))
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "-r",
            ])
            .arg(&list),
    )?;
    fs::write(&installed, requirements)?;
    Ok(programs)
}

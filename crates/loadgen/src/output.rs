//! Where reports go: the terminal, or a JSON file.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
};

use anyhow::{Context as _, Result};

/// Prints text to the terminal.
///
/// # Errors
/// If stdout is closed.
pub fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Writes a report as JSON to a file, or to the terminal if its name is `-`.
///
/// # Errors
/// If the file cannot be written.
pub fn write_json(path: &Path, report: &serde_json::Value) -> Result<()> {
    let text = format!("{report:#}\n");
    if path == Path::new("-") {
        return print(&text);
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

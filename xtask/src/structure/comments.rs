//! Comments have at most 100 columns. rustfmt formats code alone: its `comment_width` is nightly's.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::root;

/// The widest comment line, in characters.
const COLUMNS: usize = 100;

/// The comment lines of tracked Rust and Python files that are wider than [`COLUMNS`].
///
/// A line that holds one word, such as an address, cannot be broken and is left alone.
pub(super) fn too_wide() -> Result<Vec<String>> {
    let listed = Command::new("git")
        .args([
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            "*.rs",
            "*.py",
        ])
        .current_dir(root())
        .output()
        .context("cannot run git")?;
    if !listed.status.success() {
        bail!("git ls-files: {}", String::from_utf8_lossy(&listed.stderr));
    }
    let mut found = Vec::new();
    for name in String::from_utf8(listed.stdout)?.lines() {
        let path = root().join(name);
        // A file that is removed but not committed yet is still listed.
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        for (index, line) in text.lines().enumerate() {
            let columns = line.chars().count();
            if columns > COLUMNS && comment(name, line) {
                found.push(format!(
                    "{name}:{}: a comment of {columns} columns; the limit is {COLUMNS}",
                    index + 1
                ));
            }
        }
    }
    Ok(found)
}

/// Whether the line is a comment of several words.
fn comment(name: &str, line: &str) -> bool {
    let text = line.trim_start();
    let text = if name.ends_with(".rs") {
        text.strip_prefix("//")
    } else {
        // `#:` and `#!` are no prose.
        text.strip_prefix("# ")
    };
    text.is_some_and(|text| text.trim_start_matches(['/', '!', ' ']).contains(' '))
}

#[cfg(test)]
mod tests {
    use super::comment;

    #[test]
    fn comments_are_told_from_code() {
        assert!(comment("a.rs", "    /// Two words"));
        assert!(comment("a.rs", "//! Two words"));
        assert!(comment("a.py", "# Two words"));
        assert!(!comment("a.rs", "let x = 1; // Two words"));
        assert!(!comment("a.rs", "//! https://example.org/one"));
        assert!(!comment("a.py", "#!/usr/bin/env python3"));
    }
}

//! Running other programs, in sight of the user.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The repository's root.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is a folder of the repository")
}

/// Cargo, in the repository's root, with arguments separated by spaces.
pub(crate) fn cargo(arguments: &str) -> Command {
    let mut command = Command::new("cargo");
    command.args(arguments.split_whitespace()).current_dir(root());
    command
}

/// Shows the command, runs it to its end, and fails if it fails. What it prints goes to stderr, so
/// that a chore's own stdout holds its result only.
pub(crate) fn execute_aside(command: &mut Command) -> Result<()> {
    execute(command.stdout(Stdio::from(io::stderr())))
}

/// Shows the command, runs it to its end, and fails if it fails.
pub(crate) fn execute(command: &mut Command) -> Result<()> {
    let words = words(command);
    eprintln!("$ {words}");
    let status = command
        .status()
        .with_context(|| format!("cannot run `{words}`"))?;
    if !status.success() {
        bail!("`{}` ended with {status}", beginning(&words));
    }
    Ok(())
}

/// Whether the program is there and answers the arguments with success, silently.
pub(crate) fn works(program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> bool {
    Command::new(program)
        .args(arguments)
        .current_dir(root())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn words(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect();
    words.join(" ")
}

/// Enough of a long command to recognise it by; the whole of it was shown when it was run.
fn beginning(words: &str) -> String {
    const SHOWN_CHARS: usize = 60;
    match words.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words.to_owned(),
    }
}

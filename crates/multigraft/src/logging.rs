//! Logs go to stderr; stdout is for answers.

use std::io::{self, IsTerminal as _};

use anyhow::{Context as _, Result};
use tracing_subscriber::EnvFilter;

/// Starts logging at `level`, in the syntax of [`EnvFilter`].
pub(crate) fn start(level: &str) -> Result<()> {
    let filter = EnvFilter::try_new(level).with_context(|| format!("--log: `{level}` is not understood"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .init();
    Ok(())
}

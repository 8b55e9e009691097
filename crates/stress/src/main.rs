//! `multigraft-stress`: stress tests of `multigraft serve`, for its developers.
//!
//! Each command starts servers of its own with random adapters, and sends them requests over HTTP.
//!
//! - [`soak`]: mixed traffic for a long time: no request, memory or file handle may be lost
//! - [`malformed`]: requests that are wrong in every way: none may disturb the server
//! - [`adapters`]: adapters that are loaded, replaced, evicted, and servers that are killed
//!   meanwhile
//! - [`harness`]: what these share: servers, adapters, requests with known answers, idle checks

mod adapters;
mod arguments;
mod harness;
mod malformed;
mod soak;

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use tracing_subscriber::EnvFilter;

use crate::arguments::{Arguments, Command};

fn main() -> ExitCode {
    run(&Arguments::parse()).unwrap_or_else(|error| fail(&error))
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    let filter = EnvFilter::try_new(&arguments.log)
        .with_context(|| format!("--log: `{}` is no log level", arguments.log))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .init();
    match &arguments.command {
        Command::Soak(arguments) => soak::run(arguments),
        Command::Malformed(arguments) => malformed::run(arguments),
        Command::Adapters(arguments) => adapters::run(arguments),
    }
}

/// Status 2, as clap gives for arguments that it cannot parse: the input was bad, nothing was done.
#[expect(
    clippy::print_stderr,
    reason = "the error goes to the terminal, whatever the log level is"
)]
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::from(2)
}

//! Chores of this repository, run as `cargo xtask <chore>`.
//!
//! - `demo`: the whole thing in one command, with a real model
//! - `test`: everything that CI runs
//! - `model`: fetches the small real model that demo and tests use
//! - `bench`: all figures in one go, and the gate against regressions
//! - `fuzz`: the fuzz targets, for a while each
//!
//! Nothing here is installed outside the repository's `target` folder and the cache folder
//! ([`cache::folder`]).

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line for people"
)]

mod bench;
mod cache;
mod chat;
mod cli;
mod demo;
mod deny;
mod digest;
mod fuzz;
mod model;
mod node;
mod python;
mod server;
mod shell;
mod structure;
mod table;
mod test;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::cli::{Chore, Cli};

fn main() -> ExitCode {
    run(Cli::parse().chore).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(chore: Chore) -> Result<ExitCode> {
    match chore {
        Chore::Demo { port, once } => demo::run(port, once)?,
        Chore::Test { only } => return test::run(&only),
        Chore::Model => println!("{}", model::fetch()?.display()),
        Chore::Bench(arguments) => return bench::run(&arguments),
        Chore::Fuzz { targets, seconds } => fuzz::run(&targets, seconds)?,
    }
    Ok(ExitCode::SUCCESS)
}

//! `multigraft`: one base model, any number of LoRA adapters, one process.
//!
//! This crate is the command line and the assembly of the server, and nothing else: [`cli`] defines
//! the arguments, [`config`] turns flags, environment and file into typed settings, [`load`] opens
//! the models and adapters that they name, and each module of [`commands`] is one subcommand.

mod cli;
mod commands;
mod config;
mod device;
mod idle_reclaim;
mod load;
mod locate;
mod logging;
mod memory;
mod progress;
mod reload;
mod traces;
mod verify;

use std::process::ExitCode;

use clap::Parser as _;
use multigraft_kernels::{InstructionSet, malloc};

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    malloc::share_one_pool();
    let cli = Cli::parse();
    if let Err(error) = logging::start(&cli.log, cli.log_format) {
        return fail(&error);
    }
    // The doctor reports an unavailable instruction set among its findings.
    if !matches!(cli.command, Command::Doctor(_))
        && let Err(error) = InstructionSet::check()
    {
        return fail(&error.into());
    }
    let outcome = match cli.command {
        Command::Serve(arguments) => commands::serve::run(*arguments, cli.config.as_deref()),
        Command::Doctor(arguments) => commands::doctor::run(&arguments, cli.config.as_deref()),
        Command::Health(arguments) => commands::health::run(&arguments, cli.config.as_deref()),
        Command::Generate(arguments) => commands::generate::run(*arguments, cli.config.as_deref()),
        Command::Inspect(arguments) => commands::inspect::run(&arguments),
        Command::Verify(arguments) => commands::verify::run(&arguments),
        Command::Adapters(arguments) => commands::adapters::run(&arguments),
        Command::Keys(arguments) => commands::keys::run(&arguments),
        Command::Usage(arguments) => commands::usage::run(&arguments),
        Command::Export(arguments) => commands::export::run(&arguments),
        Command::Bench(arguments) => commands::bench::run(&arguments, cli.config.as_deref()),
    };
    outcome.unwrap_or_else(|error| fail(&error))
}

/// Status 2, as clap gives for flags that it cannot parse: the input was bad, nothing was done.
#[expect(
    clippy::print_stderr,
    reason = "the error goes to the terminal, whatever the log level is"
)]
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {}", sentence(error));
    ExitCode::from(2)
}

/// An error and its causes, without causes that an earlier message contains.
fn sentence(error: &anyhow::Error) -> String {
    error
        .chain()
        .map(ToString::to_string)
        .fold(String::new(), |message, cause| {
            match (message.is_empty(), message.contains(&cause)) {
                (true, _) => cause,
                (false, true) => message,
                (false, false) => format!("{message}: {cause}"),
            }
        })
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow};

    #[test]
    fn a_cause_is_shown_once() {
        let error = anyhow!("no such file")
            .context("`x`: no such file")
            .context("cannot load");
        assert_eq!(super::sentence(&error), "cannot load: `x`: no such file");
        let bare = Err::<(), _>(anyhow!("inner")).context("outer").unwrap_err();
        assert_eq!(super::sentence(&bare), "outer: inner");
    }
}

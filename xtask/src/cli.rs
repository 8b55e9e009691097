//! What can be typed.

use clap::{Parser, Subcommand};

use crate::bench;
use crate::test::Step;

/// Chores of the multigraft repository.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) chore: Chore,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Chore {
    /// Serve SmolLM2 with the demo adapters, ask all of them at once, show the answers, stay up.
    Demo {
        /// The port to listen on. Without it: 8080, or any free one if that is taken.
        #[arg(long)]
        port: Option<u16>,
        /// Stop after the answers instead of staying up.
        #[arg(long)]
        once: bool,
    },
    /// Run everything that CI runs.
    Test {
        /// Run these steps only (repeatable or separated by commas).
        #[arg(long, value_enum, value_delimiter = ',')]
        only: Vec<Step>,
    },
    /// Fetch the small real model if it is not there, and print its path.
    Model,
    /// Measure everything in one go, beside rivals if they are there; or compare with another
    /// revision.
    Bench(Box<bench::Arguments>),
    /// Run the fuzz targets (needs the nightly toolchain and `cargo install cargo-fuzz`).
    Fuzz {
        /// The targets; all of them if none is given.
        targets: Vec<String>,
        /// For how long each.
        #[arg(long, default_value_t = 60)]
        seconds: u32,
    },
}

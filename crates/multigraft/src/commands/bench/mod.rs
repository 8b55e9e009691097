//! `multigraft bench`: figures, each with what the machine would allow beside it.
//!
//! - [`machine`]: read bandwidth and peak rates, the two numbers that everything else is held
//!   against
//! - [`model`]: prefill and decode through the seam
//! - [`lora`]: the low-rank kernel by itself
//! - [`serve`]: a load generator over HTTP, for this server or another
//! - [`adapters`]: adapters that come and go, on servers of its own
//! - [`soak`]: mixed traffic for a long time, and whether anything is lost by it
//! - [`malformed`]: requests that are wrong in every way, and whether a server minds
//!
//! [`Table`] prints all of them; `--json` writes them for programs.

mod adapters;
mod arguments;
mod lora;
mod machine;
mod malformed;
mod model;
mod own;
mod roofline;
mod serve;
mod soak;
mod table;

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};

use anyhow::{Context as _, Result};

pub(crate) use arguments::BenchArguments;
use arguments::Benchmark;
use table::Table;

pub(crate) fn run(arguments: &BenchArguments, config: Option<&Path>) -> Result<ExitCode> {
    match &arguments.what {
        Benchmark::Machine(arguments) => machine::run(arguments)?,
        Benchmark::Model(arguments) => model::run(arguments, config)?,
        Benchmark::Lora(arguments) => lora::run(arguments)?,
        Benchmark::Adapters(arguments) => adapters::run(arguments)?,
        Benchmark::Serve(arguments) => return serve::run(arguments),
        Benchmark::Soak(arguments) => return soak::run(arguments),
        Benchmark::Malformed(arguments) => return malformed::run(arguments),
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints text to the terminal.
fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Writes a report as JSON to a file, or to the terminal if its name is `-`.
fn write_json(path: &Path, report: &serde_json::Value) -> Result<()> {
    let text = format!("{report:#}\n");
    if path == Path::new("-") {
        return print(&text);
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

//! `multigraft bench`: measured figures, each beside what the machine would allow.
//!
//! - [`machine`]: read bandwidth and peak rates, the limits that other figures are compared with
//! - [`model`]: prefill and decode through the step seam, without HTTP and sampling
//! - [`lora`]: the low-rank kernel by itself
//! - `serve`: a load generator over HTTP, for this server or another ([`multigraft_loadgen`])

mod arguments;
mod lora;
mod machine;
mod model;
mod roofline;

use std::{path::Path, process::ExitCode};

use anyhow::Result;

pub(crate) use arguments::BenchArguments;
use arguments::Benchmark;

pub(crate) fn run(arguments: &BenchArguments, config: Option<&Path>) -> Result<ExitCode> {
    match &arguments.what {
        Benchmark::Machine(arguments) => machine::run(arguments)?,
        Benchmark::Model(arguments) => model::run(arguments, config)?,
        Benchmark::Lora(arguments) => lora::run(arguments)?,
        Benchmark::Serve(arguments) => return multigraft_loadgen::run(arguments),
    }
    Ok(ExitCode::SUCCESS)
}

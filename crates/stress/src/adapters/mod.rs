//! Adapters that come and go: loads, swaps, evictions, crashes.
//!
//! Each measurement writes its adapters, starts `multigraft serve`, and sends it requests over
//! HTTP.

mod crash;
mod fair;
mod load;
mod memory;
mod registered;
mod swap;
mod zipf;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use multigraft_loadgen::output::{print, write_json};
use multigraft_loadgen::statistics::median;
use multigraft_loadgen::table::{Table, figure};
use multigraft_model::Config;
use serde_json::json;
use tokio::runtime;

use crate::arguments::{AdaptersArguments, Measurement};
use crate::harness::server::Product;

/// A measured figure beside its target.
#[derive(Debug)]
struct Row {
    what: String,
    measured: String,
    target: &'static str,
}

impl Row {
    fn new(what: impl Into<String>, measured: impl Into<String>, target: &'static str) -> Self {
        Self {
            what: what.into(),
            measured: measured.into(),
            target,
        }
    }
}

/// What all measurements share.
struct Bench<'a> {
    product: &'a Product,
    config: Config,
    /// The folder for adapters, which is deleted at the end.
    dir: &'a Path,
    arguments: &'a AdaptersArguments,
}

pub(crate) fn run(arguments: &AdaptersArguments) -> Result<ExitCode> {
    ensure!(arguments.crashes > 0, "--crashes is 0, but must be 1 or more");
    let product = Product::find(&arguments.product)?;
    let dir = tempfile::Builder::new().prefix("multigraft-stress-").tempdir();
    let dir = dir.context("a folder for adapters")?;
    let bench = Bench {
        product: &product,
        config: product.config()?,
        dir: dir.path(),
        arguments,
    };
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let mut rows = Vec::new();
    for measurement in Measurement::ALL {
        if !arguments.only.is_empty() && !arguments.only.contains(&measurement) {
            continue;
        }
        tracing::info!("{measurement:?}");
        rows.extend(runtime.block_on(async {
            match measurement {
                Measurement::Registered => registered::measure(&bench).await,
                Measurement::Cold => load::cold(&bench).await,
                Measurement::Storm => load::storm(&bench).await,
                Measurement::Zipf => zipf::measure(&bench).await,
                Measurement::Swap => swap::measure(&bench).await,
                Measurement::Fair => fair::measure(&bench).await,
                Measurement::Crash => crash::measure(&bench).await,
                Measurement::Memory => memory::measure(&bench).await,
            }
        })?);
    }
    if let Some(path) = &arguments.json {
        let rows = rows
            .iter()
            .map(|row| json!({"what": row.what, "measured": row.measured, "to_reach": row.target}));
        write_json(
            path,
            &json!({"base": product.base, "rows": rows.collect::<Vec<_>>()}),
        )?;
        if path.as_os_str() == "-" {
            return Ok(ExitCode::SUCCESS);
        }
    }
    let mut table = Table::new(["what", "measured", "to reach"]);
    for row in rows {
        table.row([row.what, row.measured, row.target.to_owned()]);
    }
    print(&table.to_string())?;
    Ok(ExitCode::SUCCESS)
}

fn milliseconds(seconds: f64) -> String {
    format!("{} ms", figure(seconds * 1e3))
}

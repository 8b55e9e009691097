//! `multigraft bench adapters`: adapters that come and go, measured on servers of this program's
//! own.
//!
//! Each measurement makes its adapters, starts `multigraft serve`, and asks it over HTTP as anybody
//! would.

mod crash;
mod fair;
mod load;
mod memory;
mod registered;
mod swap;
mod zipf;

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use multigraft_model::{Config, ModelFiles};
use serde_json::json;
use tokio::runtime;

use super::arguments::{AdaptersArguments, LifeGroup};
use super::table::Table;
use super::{print, write_json};

/// A figure beside what it is to reach.
#[derive(Debug)]
struct Row {
    what: String,
    measured: String,
    reach: &'static str,
}

impl Row {
    fn new(what: impl Into<String>, measured: impl Into<String>, reach: &'static str) -> Self {
        Self {
            what: what.into(),
            measured: measured.into(),
            reach,
        }
    }
}

/// What all measurements work with.
struct Bench<'a> {
    base: &'a str,
    config: Config,
    /// For what is made; deleted at the end.
    dir: &'a Path,
    arguments: &'a AdaptersArguments,
}

pub(super) fn run(arguments: &AdaptersArguments) -> Result<()> {
    ensure!(arguments.crashes > 0, "--crashes is 0, but must be 1 or more");
    let base = Path::new(&arguments.base);
    let files = ModelFiles::open(base)?;
    let config = files.config()?;
    let dir = tempfile::Builder::new().prefix("multigraft-bench-").tempdir();
    let dir = dir.context("a folder for adapters")?;
    let bench = Bench {
        base: &arguments.base,
        config,
        dir: dir.path(),
        arguments,
    };
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let mut rows = Vec::new();
    for group in LifeGroup::ALL {
        if !arguments.only.is_empty() && !arguments.only.contains(&group) {
            continue;
        }
        tracing::info!("{group:?}");
        rows.extend(runtime.block_on(async {
            match group {
                LifeGroup::Registered => registered::measure(&bench).await,
                LifeGroup::Cold => load::cold(&bench).await,
                LifeGroup::Storm => load::storm(&bench).await,
                LifeGroup::Zipf => zipf::measure(&bench).await,
                LifeGroup::Swap => swap::measure(&bench).await,
                LifeGroup::Fair => fair::measure(&bench).await,
                LifeGroup::Crash => crash::measure(&bench).await,
                LifeGroup::Memory => memory::measure(&bench).await,
            }
        })?);
    }
    if let Some(path) = &arguments.json {
        let rows = rows
            .iter()
            .map(|row| json!({"what": row.what, "measured": row.measured, "to_reach": row.reach}));
        write_json(
            path,
            &json!({"base": arguments.base, "rows": rows.collect::<Vec<_>>()}),
        )?;
        if path.as_os_str() == "-" {
            return Ok(());
        }
    }
    let mut table = Table::new(["what", "measured", "to reach"]);
    for row in rows {
        table.row([row.what, row.measured, row.reach.to_owned()]);
    }
    print(&table.to_string())
}

/// The value in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn milliseconds(seconds: f64) -> String {
    format!("{} ms", super::table::figure(seconds * 1e3))
}

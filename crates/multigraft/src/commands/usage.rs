//! `multigraft usage`: a report of the usage in a data folder.

use std::{
    io::{self, Write as _},
    process::ExitCode,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use comfy_table::{CellAlignment, Table, presets};
use multigraft_access::{Access, Period, Store, UsageQuery};
use multigraft_api::UsageRow;

use crate::cli::UsageArguments;

/// The reported time if the command does not set its start.
const DEFAULT_PERIOD: Duration = Duration::from_secs(30 * 24 * 3600);

pub(crate) fn run(arguments: &UsageArguments) -> Result<ExitCode> {
    let folder = arguments.data.as_ref();
    let folder = folder.context("no data folder: give the server's with --data FOLDER")?;
    ensure!(
        folder.is_dir(),
        "there is no data folder `{}`: give the server's with --data",
        folder.display()
    );
    let access = Access::new(Store::open(folder)?)?;
    let to = arguments.to.unwrap_or_else(SystemTime::now);
    let default_start = to.checked_sub(DEFAULT_PERIOD).unwrap_or(SystemTime::UNIX_EPOCH);
    let query = UsageQuery {
        from: arguments.from.unwrap_or(default_start),
        to,
        by: arguments.by,
        key: None,
    };
    let rows = access.report(&query, usize::MAX - 1)?;
    let text = match arguments.json {
        true => serde_json::to_string_pretty(&rows)?,
        false => table(&rows, &query),
    };
    writeln!(io::stdout().lock(), "{text}")?;
    Ok(ExitCode::SUCCESS)
}

fn table(rows: &[UsageRow], query: &UsageQuery) -> String {
    if rows.is_empty() {
        return "no usage in this period".to_owned();
    }
    let by = query.by;
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    let columns = [
        (by.period.is_some(), "UTC"),
        (by.key, "KEY"),
        (by.tenant, "TENANT"),
        (by.adapter, "ADAPTER"),
    ];
    let named: Vec<&str> = columns
        .iter()
        .filter_map(|(is_shown, name)| is_shown.then_some(*name))
        .collect();
    let counted = ["REQUESTS", "PROMPT", "CACHED", "GENERATED", "ERRORS", "REFUSED"];
    table.set_header(named.iter().chain(&counted));
    for column in table.column_iter_mut().skip(named.len()) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for row in rows {
        let start = row
            .start
            .zip(by.period)
            .map(|(start, period)| period_name(start, period));
        let unknown = || "-".to_owned();
        // A key that was deleted from the database by hand has no name, but its id is known.
        let key = row
            .key
            .clone()
            .map(|id| row.key_name.clone().flatten().or(id).unwrap_or_else(unknown));
        let tenant = row.tenant.clone().map(|tenant| tenant.unwrap_or_else(unknown));
        let names = [start, key, tenant, row.adapter.clone()];
        let counts = &row.counts;
        let counts = [
            counts.requests,
            counts.prompt_tokens,
            counts.cached_prompt_tokens,
            counts.generated_tokens,
            counts.errors,
            counts.refused,
        ];
        table.add_row(
            names
                .into_iter()
                .flatten()
                .chain(counts.map(|count| count.to_string())),
        );
    }
    table.to_string()
}

/// The start of an hour, a day or a month.
fn period_name(start: u64, period: Period) -> String {
    let (day, hour) = (UsageQuery::day(start), start / 3600 % 24);
    match period {
        Period::Hour => format!("{day} {hour:02}:00"),
        Period::Day => day,
        Period::Month => day.get(..7).unwrap_or_default().to_owned(),
    }
}

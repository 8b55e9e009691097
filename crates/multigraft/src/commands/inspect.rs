//! `multigraft inspect`: the contents of a model or an adapter.

mod adapter;
mod base;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use multigraft_model::ModelFiles;

use crate::{cli::InspectArguments, locate::SearchPath};

pub(crate) fn run(arguments: &InspectArguments) -> Result<ExitCode> {
    let search_path = SearchPath::of_this_user();
    let path = search_path.find(&arguments.path.to_string_lossy())?.path;
    let (text, status) = if multigraft_peft::is_adapter(&path) {
        let base = arguments
            .base
            .as_deref()
            .map(|base| search_path.find(base))
            .transpose()?;
        let report = adapter::report(&path, base.as_ref())?;
        let status = u8::from(report.refusal.is_some());
        (render(arguments.json, &report)?, status)
    } else {
        let files = ModelFiles::open(&path)
            .with_context(|| format!("{} is neither a model nor an adapter", path.display()))?;
        (render(arguments.json, &base::report(&path, &files)?)?, 0)
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::from(status))
}

fn render<R: std::fmt::Display + serde::Serialize>(json: bool, report: &R) -> Result<String> {
    Ok(match json {
        true => format!("{}\n", serde_json::to_string_pretty(report)?),
        false => format!("{report}\n"),
    })
}

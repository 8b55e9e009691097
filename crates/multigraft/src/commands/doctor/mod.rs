//! `multigraft doctor`: checks this machine and the settings before serving. Nothing is changed,
//! fetched or served.

mod adapters;
mod machine;
mod model;
mod server;

use std::{
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};

use anyhow::Result;
use serde::Serialize;

use crate::{
    cli::DoctorArguments,
    config::{ConfigFile, ModelSettings, ServerSettings},
};

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    /// Nothing to do.
    Ok,
    /// The server works, but slower than it could, or not for long.
    Warn,
    /// The server would not start, or would not be secure.
    Fail,
}

/// The result of one check.
#[derive(Debug, PartialEq, Serialize)]
struct Finding {
    /// The name of the check.
    check: &'static str,
    level: Level,
    /// What was found.
    found: String,
    /// What to do, if anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

/// The results so far.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn ok(&mut self, check: &'static str, found: impl Into<String>) {
        self.add(check, Level::Ok, found.into(), None);
    }

    fn warn(&mut self, check: &'static str, found: impl Into<String>, advice: impl Into<String>) {
        self.add(check, Level::Warn, found.into(), Some(advice.into()));
    }

    fn fail(&mut self, check: &'static str, found: impl Into<String>, advice: impl Into<String>) {
        self.add(check, Level::Fail, found.into(), Some(advice.into()));
    }

    fn add(&mut self, check: &'static str, level: Level, found: String, advice: Option<String>) {
        self.0.push(Finding {
            check,
            level,
            found,
            advice,
        });
    }

    fn worst(&self) -> Level {
        let levels = self.0.iter().map(|finding| finding.level);
        levels.max().unwrap_or(Level::Ok)
    }
}

pub(crate) fn run(arguments: &DoctorArguments, config: Option<&Path>) -> Result<ExitCode> {
    let mut findings = Findings::default();
    examine(arguments, config, &mut findings);
    let mut out = io::stdout().lock();
    if arguments.json {
        serde_json::to_writer_pretty(&mut out, &findings.0)?;
        writeln!(out)?;
    } else {
        write(&mut out, &findings.0)?;
    }
    Ok(match findings.worst() {
        Level::Fail => ExitCode::FAILURE,
        Level::Ok | Level::Warn => ExitCode::SUCCESS,
    })
}

fn examine(arguments: &DoctorArguments, config: Option<&Path>, findings: &mut Findings) {
    machine::instruction_set(findings);
    let file = match ConfigFile::read(config) {
        Ok(file) => file,
        Err(error) => return findings.fail("settings", format!("{error:#}"), "correct the file"),
    };
    match ModelSettings::resolve(arguments.model.clone(), file.model) {
        Ok(settings) => {
            machine::threads(&settings, findings);
            let base = model::base(&settings, findings);
            machine::memory(&settings, base.as_ref(), findings);
            adapters::given(&settings, base.as_ref(), findings);
            machine::disk(&settings, findings);
        }
        Err(error) => findings.fail(
            "settings",
            format!("{error:#}"),
            "correct it as a flag, environment variable or in the file",
        ),
    }
    match ServerSettings::resolve(arguments.server.clone(), file.server) {
        Ok(settings) => {
            server::address(&settings, findings);
            server::data(&settings, findings);
            server::access(&settings, findings);
            adapters::file(&settings, findings);
        }
        Err(error) => findings.fail(
            "settings",
            format!("{error:#}"),
            "correct it as a flag, environment variable or in the file",
        ),
    }
}

fn write(out: &mut impl io::Write, findings: &[Finding]) -> io::Result<()> {
    let width = findings
        .iter()
        .map(|finding| finding.check.len())
        .max()
        .unwrap_or(0);
    for Finding {
        check,
        level,
        found,
        advice,
    } in findings
    {
        let mark = match level {
            Level::Ok => "ok  ",
            Level::Warn => "WARN",
            Level::Fail => "FAIL",
        };
        let indent = " ".repeat(width + 8);
        let found = found.replace('\n', &format!("\n{indent}"));
        writeln!(out, "{mark}  {check:width$}  {found}")?;
        if let Some(advice) = advice {
            writeln!(out, "{indent}→ {advice}")?;
        }
    }
    Ok(())
}

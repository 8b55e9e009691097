//! The adapters that the server starts with.

use multigraft_server::check_adapters_file;
use multigraft_sources::Reference;

use super::{Findings, model::Base};
use crate::{
    config::{ModelSettings, ServerSettings},
    load::sources,
};

/// Whether those of this machine fit the base. What has to be fetched is not looked at.
pub(super) fn given(settings: &ModelSettings, base: Option<&Base>, findings: &mut Findings) {
    const CHECK: &str = "adapters";
    let sources = match sources(&settings.adapter, settings.adapters.as_deref()) {
        Ok(sources) => sources,
        Err(error) => return findings.fail(CHECK, format!("{error:#}"), "give adapters that there are"),
    };
    let (mut read, mut elsewhere) = (0, 0);
    for source in &sources {
        let Reference::Folder(folder) = &source.at else {
            elsewhere += 1;
            continue;
        };
        let problem = match base {
            Some(base) => multigraft_peft::read(folder, &base.config)
                .err()
                .map(|error| error.to_string()),
            None if folder.exists() => None,
            None => Some("there is no such folder".to_owned()),
        };
        match problem {
            None => read += 1,
            Some(problem) => findings.fail(
                CHECK,
                format!("`{}`: {problem}", source.name),
                format!("`multigraft inspect {}` says more", folder.display()),
            ),
        }
    }
    let found = match (read, elsewhere) {
        (0, 0) => "none at the start".to_owned(),
        (read, 0) => format!("{read} can be read"),
        (0, elsewhere) => format!("{elsewhere} to be fetched"),
        (read, elsewhere) => format!("{read} can be read, {elsewhere} to be fetched"),
    };
    if read + elsewhere == sources.len() {
        findings.ok(CHECK, found);
    }
}

/// Whether the file of adapters is right.
pub(super) fn file(settings: &ServerSettings, findings: &mut Findings) {
    const CHECK: &str = "adapters file";
    let Some(path) = &settings.adapters_file else {
        return;
    };
    match check_adapters_file(path) {
        Ok(adapters) => findings.ok(CHECK, format!("{} with {adapters} adapters", path.display())),
        Err(error) => findings.fail(CHECK, error.to_string(), "see docs/adapters.md"),
    }
}

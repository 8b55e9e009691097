//! Checks of the adapters that are given at the start.

use multigraft_server::check_adapters_file;
use multigraft_sources::Reference;

use super::{Findings, model::Base};
use crate::{
    config::{ModelSettings, ServerSettings},
    load::sources,
};

/// Checks whether the adapters on this machine fit the base. Those that have to be fetched are not
/// checked.
pub(super) fn given(settings: &ModelSettings, base: Option<&Base>, findings: &mut Findings) {
    const CHECK: &str = "adapters";
    let sources = match sources(&settings.adapter, settings.adapters.as_deref()) {
        Ok(sources) => sources,
        Err(error) => {
            return findings.fail(
                CHECK,
                format!("{error:#}"),
                "check the paths of --adapters and --adapter",
            );
        }
    };
    let (mut readable, mut remote) = (0, 0);
    for source in &sources {
        let Reference::Folder(folder) = &source.at else {
            remote += 1;
            continue;
        };
        let problem = match base {
            Some(base) => multigraft_peft::read(folder, &base.config)
                .err()
                .map(|error| error.to_string()),
            None if folder.exists() => None,
            None => Some("the folder does not exist".to_owned()),
        };
        match problem {
            None => readable += 1,
            Some(problem) => findings.fail(
                CHECK,
                format!("`{}`: {problem}", source.name),
                format!("see `multigraft inspect {}`", folder.display()),
            ),
        }
    }
    let found = match (readable, remote) {
        (0, 0) => "none are given".to_owned(),
        (readable, 0) => format!("{readable} can be read"),
        (0, remote) => format!("{remote} to be fetched"),
        (readable, remote) => format!("{readable} can be read, {remote} to be fetched"),
    };
    if readable + remote == sources.len() {
        findings.ok(CHECK, found);
    }
}

/// Checks the file of adapters.
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

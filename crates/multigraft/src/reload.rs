//! SIGHUP: reads the TLS certificate again, and names the settings whose changes need a restart.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use multigraft_server::Tls;
use toml::Table;

use crate::config::ConfigFile;

/// The files that are read again.
pub(crate) struct Reload {
    /// The configuration file and its contents at the start.
    config: Option<(PathBuf, Table)>,
    tls: Option<Tls>,
}

impl Reload {
    /// # Errors
    /// If the configuration file cannot be read.
    pub(crate) fn new(config: Option<&Path>, tls: Option<Tls>) -> Result<Self> {
        let config = config.map(|path| Ok::<_, anyhow::Error>((path.to_owned(), table(path)?)));
        Ok(Self {
            config: config.transpose()?,
            tls,
        })
    }

    /// Handles every SIGHUP, for as long as it is polled.
    #[cfg(unix)]
    pub(crate) async fn on_hangup(self) {
        use tokio::signal::unix::{SignalKind, signal};
        let mut hangups = match signal(SignalKind::hangup()) {
            Ok(hangups) => hangups,
            Err(error) => return tracing::error!(%error, "cannot wait for SIGHUP"),
        };
        while hangups.recv().await.is_some() {
            self.reload();
        }
    }

    #[cfg(not(unix))]
    pub(crate) async fn on_hangup(self) {}

    fn reload(&self) {
        tracing::info!(
            "SIGHUP received; keys and the file of adapters need none, changes of them are noticed anyway"
        );
        if let Some(tls) = &self.tls {
            match tls.reload() {
                Ok(()) => tracing::info!("the TLS certificate was read again"),
                Err(error) => tracing::error!("{error}; the previous certificate remains in use"),
            }
        }
        match self.changed() {
            Ok(changed) if changed.is_empty() => {}
            Ok(changed) => tracing::warn!(
                "these settings have changed in the configuration file and take effect after a restart: {}",
                changed.join(", ")
            ),
            Err(error) => tracing::error!("{error:#}; the settings remain as they are"),
        }
    }

    /// The keys of the configuration file that have changed.
    fn changed(&self) -> Result<Vec<String>> {
        let Some((path, before)) = &self.config else {
            return Ok(Vec::new());
        };
        // An invalid file would prevent the next start: report that now.
        ConfigFile::read(Some(path))?;
        Ok(differences(before, &table(path)?))
    }
}

fn table(path: &Path) -> Result<Table> {
    let of = || format!("the configuration file {}", path.display());
    fs::read_to_string(path)
        .with_context(of)?
        .parse()
        .with_context(of)
}

/// The keys that differ, as `table.key`.
fn differences(before: &Table, after: &Table) -> Vec<String> {
    let mut differences = Vec::new();
    for section in before.keys().chain(after.keys()).collect::<BTreeSet<_>>() {
        let empty = Table::new();
        let of = |table: &Table| table.get(section).and_then(|value| value.as_table().cloned());
        let (before, after) = (of(before).unwrap_or_default(), of(after).unwrap_or(empty));
        let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        let other = keys.into_iter().filter(|key| before.get(*key) != after.get(*key));
        differences.extend(other.map(|key| format!("{section}.{key}")));
    }
    differences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_keys_are_named_with_their_table() {
        let table = |text: &str| text.parse::<Table>().unwrap();
        let before = table("[server]\nport = 1\nhost = 'a'\n[model]\nthreads = 2\n");
        let after = table("[server]\nport = 2\nhost = 'a'\ngrace = 3\n");
        assert_eq!(differences(&before, &before), [""; 0]);
        assert_eq!(
            differences(&before, &after),
            ["model.threads", "server.grace", "server.port"]
        );
    }

    #[test]
    fn a_configuration_that_has_become_invalid_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("multigraft.toml");
        fs::write(&path, "[server]\nport = 1\n").unwrap();
        let reload = Reload::new(Some(&path), None).unwrap();
        assert_eq!(reload.changed().unwrap(), [""; 0]);
        fs::write(&path, "[server]\nprot = 1\n").unwrap();
        let error = format!("{:#}", reload.changed().unwrap_err());
        assert!(error.contains("prot"), "{error}");
        fs::write(&path, "[server]\nport = 3\n").unwrap();
        assert_eq!(reload.changed().unwrap(), ["server.port"]);
    }
}

//! The adapters file: a declarative list of adapters, which the reconciler applies at start and
//! whenever the file changes.
//!
//! One thread reads the file every two seconds. It adds, replaces, pins and removes adapters in the
//! registry where the file differs from what was applied before. A failed load is retried with
//! exponential backoff and delays no other adapter. Changes are written to the audit log, if there
//! is one.

use std::{
    collections::BTreeMap,
    error::Error,
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime},
};

use multigraft_access::{Action, Actor, Audit, Outcome};
use multigraft_adapters::{AdapterLimits, AddedBy, Adding, Registry, Settings, Source, Waiting};
use multigraft_engine::WEIGHTS;
use multigraft_model::AdapterHash;
use multigraft_sources::Reference;
use serde::Deserialize;
use serde_json::{Value, json};

/// Interval between two reads of the file.
const INTERVAL: Duration = Duration::from_secs(2);

/// Pause before the first retry of a failed load. Each further pause is twice as long.
const BACKOFF: Duration = Duration::from_secs(5);
/// Longest pause.
const LONGEST: Duration = Duration::from_secs(300);

/// The adapters file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    // Required: a file that is being written may be empty, and must not remove all adapters.
    adapters: BTreeMap<String, Wanted>,
}

/// The desired state of an adapter.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    source: String,
    #[serde(default)]
    pinned: bool,
    #[serde(default)]
    limits: AdapterLimits,
}

/// Why the adapters file cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum AdaptersFileError {
    /// The file cannot be read.
    #[error("adapters file {}: {error}", path.display())]
    Read {
        /// The adapters file.
        path: PathBuf,
        /// The error of the operating system.
        error: io::Error,
    },
    /// The file is not valid TOML or has unknown fields.
    #[error("adapters file {}: {error}", path.display())]
    Parse {
        /// The adapters file.
        path: PathBuf,
        /// The error with its position.
        error: toml::de::Error,
    },
    /// The weight of an adapter is out of range.
    #[error(
        "adapters file {}: `{name}` has the weight {weight}, but weights are {} to {}",
        path.display(),
        WEIGHTS.start(),
        WEIGHTS.end()
    )]
    Weight {
        /// The adapters file.
        path: PathBuf,
        /// The adapter's name.
        name: String,
        /// Its weight.
        weight: f32,
    },
    /// The reconciler's thread cannot be started.
    #[error(transparent)]
    Thread(io::Error),
}

/// Why an entry of the file could not be applied.
type ApplyError = Box<dyn Error + Send + Sync>;

/// The error and its causes, in one line.
fn with_causes(error: &ApplyError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// Reads the file's text.
fn read(path: &Path) -> Result<String, AdaptersFileError> {
    fs::read_to_string(path).map_err(|error| AdaptersFileError::Read {
        path: path.to_owned(),
        error,
    })
}

/// Parses the file's text.
fn parse(path: &Path, text: &str) -> Result<BTreeMap<String, Wanted>, AdaptersFileError> {
    let File { adapters } = toml::from_str(text).map_err(|error| AdaptersFileError::Parse {
        path: path.to_owned(),
        error,
    })?;
    for (name, Wanted { limits, .. }) in &adapters {
        if !WEIGHTS.contains(&limits.weight) {
            return Err(AdaptersFileError::Weight {
                path: path.to_owned(),
                name: name.clone(),
                weight: limits.weight,
            });
        }
    }
    Ok(adapters)
}

/// Checks an adapters file and returns the number of its adapters.
///
/// # Errors
/// If the file cannot be read or is invalid.
pub fn check_adapters_file(path: &Path) -> Result<usize, AdaptersFileError> {
    Ok(parse(path, &read(path)?)?.len())
}

/// Applies an adapters file to a registry.
#[derive(Debug)]
pub struct Reconciler {
    path: PathBuf,
    registry: Registry,
    audit: Option<Audit>,
    /// The entries of the last valid file.
    wanted: BTreeMap<String, Wanted>,
    /// The entries that have been applied.
    applied: BTreeMap<String, Wanted>,
    failed: BTreeMap<String, Failure>,
    /// The adapters that are being loaded.
    pending: BTreeMap<String, Pending>,
    /// The text that was parsed last.
    text: Option<String>,
    /// The text that was read last. It is parsed only if two reads agree, because the file may be
    /// half written.
    seen: Option<String>,
}

/// An adapter that is being loaded.
#[derive(Debug)]
struct Pending {
    wanted: Wanted,
    before: Option<Registered>,
    waiting: Waiting,
}

/// The properties of a registered adapter that the file determines.
#[derive(Clone, Debug, PartialEq)]
struct Registered {
    hash: Option<AdapterHash>,
    pinned: bool,
    limits: AdapterLimits,
}

#[derive(Clone, Copy, Debug)]
struct Failure {
    attempts: u32,
    next: Instant,
}

impl Reconciler {
    /// A reconciler that applies the file at `path` to `registry` and writes changes to `audit`.
    pub fn new(path: &Path, registry: Registry, audit: Option<Audit>) -> Self {
        Self {
            path: path.to_owned(),
            registry,
            audit,
            wanted: BTreeMap::new(),
            applied: BTreeMap::new(),
            failed: BTreeMap::new(),
            pending: BTreeMap::new(),
            text: None,
            seen: None,
        }
    }

    /// Reads the file and applies it on a thread of its own, until the process ends.
    ///
    /// # Errors
    /// If the file cannot be read or is invalid now. Later such errors are only logged, and the
    /// previous state stays.
    pub fn start(mut self) -> Result<(), AdaptersFileError> {
        self.read()?;
        thread::Builder::new()
            .name("reconciler".to_owned())
            .spawn(move || {
                // The server already answers; requests for adapters that are being loaded wait.
                self.apply(Instant::now());
                loop {
                    thread::sleep(INTERVAL);
                    if let Err(error) = self.read() {
                        tracing::error!("{error}; the adapters stay as the file said before");
                    }
                    self.apply(Instant::now());
                }
            })
            .map_err(AdaptersFileError::Thread)?;
        Ok(())
    }

    /// Reads the file and parses it if it has changed.
    fn read(&mut self) -> Result<(), AdaptersFileError> {
        let text = read(&self.path)?;
        let is_settled = self.text.is_none() || self.seen.as_ref() == Some(&text);
        self.seen = Some(text.clone());
        if self.text.as_ref() == Some(&text) || !is_settled {
            return Ok(());
        }
        // Stored even if the file is invalid, so that the error is logged once.
        let parsed = parse(&self.path, &text);
        self.text = Some(text);
        self.wanted = parsed?;
        self.failed.clear();
        Ok(())
    }

    /// Applies the entries that are not applied yet, or begins to.
    fn apply(&mut self, now: Instant) {
        self.collect();
        let gone: Vec<String> = self
            .applied
            .keys()
            .filter(|name| !self.wanted.contains_key(*name))
            .cloned()
            .collect();
        for name in gone {
            let removed = self.registry.remove(&name);
            match &removed {
                Ok(()) => tracing::info!(adapter = name, "removed: the adapters file no longer names it"),
                Err(error) => tracing::warn!(adapter = name, "{error}"),
            }
            let error = removed.err().map(|error| error.to_string());
            self.record("adapter.remove", &name, json!({}), error);
            self.applied.remove(&name);
        }
        let is_due = |name: &str| self.failed.get(name).is_none_or(|failure| failure.next <= now);
        let unapplied: Vec<(String, Wanted)> = self
            .wanted
            .iter()
            .filter(|(name, wanted)| {
                self.applied.get(*name) != Some(wanted) && is_due(name) && !self.pending.contains_key(*name)
            })
            .map(|(name, wanted)| (name.clone(), wanted.clone()))
            .collect();
        for (name, wanted) in unapplied {
            let before = self.registered(&name);
            match self.begin(&name, &wanted) {
                Ok(Some(waiting)) => {
                    let pending = Pending {
                        wanted,
                        before,
                        waiting,
                    };
                    self.pending.insert(name, pending);
                }
                Ok(None) => self.settle(name, wanted, before.as_ref(), Ok(())),
                Err(error) => self.settle(name, wanted, before.as_ref(), Err(error)),
            }
        }
    }

    /// Collects the loads that have ended. Loads in progress delay no other adapter.
    fn collect(&mut self) {
        for (name, mut pending) in std::mem::take(&mut self.pending) {
            match pending.waiting.poll() {
                None => drop(self.pending.insert(name, pending)),
                Some(outcome) => {
                    let outcome = outcome.map(|_| ()).map_err(ApplyError::from);
                    self.settle(name, pending.wanted, pending.before.as_ref(), outcome);
                }
            }
        }
    }

    fn registered(&self, name: &str) -> Option<Registered> {
        let listed = self.registry.listed(name)?;
        Some(Registered {
            hash: listed.active().and_then(|version| version.hash),
            pinned: listed.pinned,
            limits: listed.limits,
        })
    }

    /// Writes an entry about `name` to the audit log.
    fn record(&self, action: &'static str, name: &str, details: Value, error: Option<String>) {
        let (Some(audit), Value::Object(mut fields)) = (&self.audit, details) else {
            return;
        };
        fields.insert("adapters_file".to_owned(), self.path.display().to_string().into());
        let action = Action {
            actor: Actor::Local,
            remote: None,
            action,
            what: Some(name.to_owned()),
            details: fields,
            outcome: match error {
                None => Outcome::Done,
                Some(_) => Outcome::Refused,
            },
            error,
            request_id: None,
        };
        audit.write(&action, SystemTime::now());
    }

    fn settle(
        &mut self,
        name: String,
        wanted: Wanted,
        before: Option<&Registered>,
        outcome: Result<(), ApplyError>,
    ) {
        let now = self.registered(&name);
        let is_same_version =
            before.is_some() && before.map(|state| state.hash) == now.as_ref().map(|state| state.hash);
        let (action, details) = match is_same_version && outcome.is_ok() {
            true => (
                "adapter.change",
                json!({"pinned": wanted.pinned, "limits": wanted.limits}),
            ),
            false => (
                "adapter.add",
                json!({"source": wanted.source, "pinned": wanted.pinned, "limits": wanted.limits}),
            ),
        };
        match &outcome {
            // Nothing changed: the registry was in the desired state already, as after a restart.
            Ok(()) if before == now.as_ref() => {}
            Ok(()) => self.record(action, &name, details, None),
            // Only the first failure is recorded, not the retries.
            Err(error) if !self.failed.contains_key(&name) => {
                self.record(action, &name, details, Some(with_causes(error)));
            }
            Err(_) => {}
        }
        match outcome {
            Ok(()) => {
                tracing::info!(
                    adapter = name,
                    source = wanted.source,
                    "served as the adapters file says"
                );
                self.failed.remove(&name);
                self.applied.insert(name, wanted);
            }
            Err(error) => {
                let attempts = 1 + self.failed.get(&name).map_or(0, |failure| failure.attempts);
                let pause = BACKOFF.saturating_mul(1 << (attempts - 1).min(16)).min(LONGEST);
                tracing::error!(
                    adapter = name,
                    source = wanted.source,
                    "cannot be served as the adapters file says: {}; next attempt in {} s",
                    with_causes(&error),
                    pause.as_secs()
                );
                let next = Instant::now() + pause;
                self.failed.insert(name, Failure { attempts, next });
            }
        }
    }

    /// Begins to load an adapter. If only its pin or its limits differ, they are set at once.
    fn begin(&self, name: &str, wanted: &Wanted) -> Result<Option<Waiting>, ApplyError> {
        let applied = self.applied.get(name).filter(|_| self.registry.contains(name));
        if applied.is_some_and(|applied| applied.source == wanted.source) {
            self.registry.pin(name, wanted.pinned)?;
            self.registry.set_limits(name, wanted.limits)?;
            return Ok(None);
        }
        // Paths are relative to the file.
        let at = match Reference::parse_in(&wanted.source, self.path.parent().unwrap_or(Path::new("")))? {
            Reference::Folder(folder) => Reference::Folder(std::path::absolute(folder)?),
            at => at,
        };
        let source = Source {
            name: name.to_owned(),
            at,
        };
        let adding = Adding {
            replace: true,
            pinned: Some(wanted.pinned),
            by: AddedBy::AdaptersFile,
            settings: Settings {
                limits: Some(wanted.limits),
                ..Settings::default()
            },
        };
        Ok(Some(self.registry.add(&source, adding)?))
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU32, sync::Arc};

    use multigraft_access::AUDIT_FILE;
    use multigraft_adapters::{Packer, RegistryOptions};
    use multigraft_model::{ModelFiles, ReadyAdapter};
    use multigraft_peft::BaseShape;

    use super::*;

    fn registry() -> Registry {
        let model = multigraft_testing::fixtures().join("peft/llama/model");
        let config = ModelFiles::open(&model)
            .and_then(|files| files.config())
            .expect("the fixture");
        let packer = Packer {
            shape: BaseShape::new(&config),
            size: Box::new(|_| 16),
            pack: Box::new(|weights, _| Ok(ReadyAdapter::new(weights.hash, 1000, Arc::new(())))),
            self_test: None,
        };
        Registry::open("base", packer, RegistryOptions::default()).expect("no data")
    }

    /// Waits until no adapter is being loaded.
    fn wait(reconciler: &mut Reconciler) {
        while !reconciler.pending.is_empty() {
            thread::sleep(Duration::from_millis(1));
            reconciler.collect();
        }
    }

    /// The served adapters: name, number of versions, pin.
    fn served(registry: &Registry) -> Vec<(String, usize, bool)> {
        let listed = registry.list().into_iter();
        listed
            .map(|listed| (listed.name, listed.versions.len(), listed.pinned))
            .collect()
    }

    #[test]
    fn the_file_is_applied_and_other_adapters_are_untouched() {
        let dir = tempfile::tempdir().expect("a folder");
        let adapters = dir.path().join("adapters");
        std::os::unix::fs::symlink(
            multigraft_testing::fixtures().join("peft/llama/adapters"),
            &adapters,
        )
        .expect("a link");
        let path = dir.path().join("adapters.toml");
        let registry = registry();
        let other = Source {
            name: "other".to_owned(),
            at: Reference::Folder(adapters.join("dora")),
        };
        registry.register(other).expect("a free name");
        let store = multigraft_access::Store::open(dir.path()).expect("a folder");
        let audit = store.audit().clone();
        let mut reconciler = Reconciler::new(&path, registry.clone(), Some(audit.clone()));
        let mut says = |text: &str, later: u64| {
            fs::write(&path, text).expect("written");
            // The first read sees the new text, the second confirms it.
            let _ = reconciler.read();
            let read = reconciler.read().map_err(|error| error.to_string());
            reconciler.apply(Instant::now() + Duration::from_secs(later));
            wait(&mut reconciler);
            (read, served(&registry))
        };
        let of = |name: &str, versions, pinned| (name.to_owned(), versions, pinned);
        let other = of("other", 1, false);
        let (_, now) = says(
            "[adapters]\na = { source = \"adapters/qv_r4\" }\nb = { source = \"adapters/all_r8\", pinned = true }\n",
            0,
        );
        assert_eq!(now, [other.clone(), of("a", 1, false), of("b", 1, true)]);
        // Another source makes another version, a pin alone does not, and an adapter that the file
        // no longer names is removed.
        let (_, now) = says(
            "[adapters]\na = { source = \"adapters/all_r8\", pinned = true }\n",
            0,
        );
        assert_eq!(now, [other.clone(), of("a", 2, true)]);
        let limited = "[adapters.a]\nsource = \"adapters/all_r8\"\nlimits = { weight = 2.0, concurrent_requests = 4 }\n";
        assert_eq!(says(limited, 0).1, [other.clone(), of("a", 2, false)]);
        let limits = registry.limits("a");
        assert_eq!(
            (limits.weight, limits.concurrent_requests),
            (2.0, NonZeroU32::new(4))
        );
        let (read, _) = says(&limited.replace("2.0", "0.0"), 0);
        assert!(read.expect_err("no weight").contains("weight 0"));
        assert_eq!(registry.limits("a"), limits);
        let (_, now) = says("[adapters.a]\nsource = \"adapters/all_r8\"\n", 0);
        assert_eq!(now, [other.clone(), of("a", 2, false)]);
        assert_eq!(registry.limits("a"), AdapterLimits::default());
        // An invalid or empty file changes nothing.
        assert_eq!(says("", 0).1, [other.clone(), of("a", 2, false)]);
        let (read, now) = says("[adapters.a]\nsorce = \"x\"\n", 0);
        assert!(read.expect_err("a typing error").contains("sorce"));
        assert_eq!(now, [other.clone(), of("a", 2, false)]);
        // An adapter that cannot be loaded delays no other, and is retried.
        let text = "[adapters]\na = { source = \"adapters/all_r8\" }\nc = { source = \"late\" }\nd = { source = \"adapters/qv_r4\" }\n";
        let (_, now) = says(text, 0);
        assert_eq!(now, [other.clone(), of("a", 2, false), of("d", 1, false)]);
        std::os::unix::fs::symlink(adapters.join("qv_r4"), dir.path().join("late")).expect("a link");
        assert_eq!(says(text, 0).1.len(), 3, "not before its time");
        assert!(says(text, 60).1.contains(&of("c", 1, false)));
        // After a restart, everything is applied already and nothing is done.
        let mut again = Reconciler::new(&path, registry.clone(), Some(audit));
        again.read().expect("valid");
        again.apply(Instant::now());
        wait(&mut again);
        let log = fs::read_to_string(dir.path().join(AUDIT_FILE)).expect("written");
        let lines = log
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let lines: Vec<Value> = lines.collect();
        let short: Vec<String> = lines
            .iter()
            .map(|line| {
                let words =
                    ["by", "action", "what", "outcome"].map(|field| line[field].as_str().unwrap_or_default());
                words.join(" ")
            })
            .collect();
        assert_eq!(
            short,
            [
                "local adapter.add a done",
                "local adapter.add b done",
                "local adapter.remove b done",
                "local adapter.add a done",
                "local adapter.change a done",
                "local adapter.change a done",
                "local adapter.add c refused",
                "local adapter.add d done",
                "local adapter.add c done",
            ]
        );
        assert_eq!(lines[0]["details"]["source"], "adapters/qv_r4");
        assert_eq!(lines[0]["details"]["adapters_file"], path.display().to_string());
        assert_eq!(lines[4]["details"]["limits"]["weight"], 2.0);
    }

    #[test]
    fn a_file_that_is_being_written_is_not_applied() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("adapters.toml");
        let adapter = multigraft_testing::fixtures().join("peft/llama/adapters/qv_r4");
        let registry = registry();
        let mut reconciler = Reconciler::new(&path, registry.clone(), None);
        let mut reads = |text: &str| {
            fs::write(&path, text).expect("written");
            reconciler.read().expect("valid");
            reconciler.apply(Instant::now());
            wait(&mut reconciler);
            registry.names()
        };
        let whole = format!(
            "[adapters]\na = {{ source = {:?} }}\n",
            adapter.display().to_string()
        );
        assert_eq!(reads(&whole), ["a"]);
        assert_eq!(reads("[adapters]\n"), ["a"]);
        assert_eq!(reads(&whole), ["a"]);
        assert_eq!(reads("[adapters]\n"), ["a"]);
        assert_eq!(reads("[adapters]\n"), [] as [&str; 0]);
    }
}

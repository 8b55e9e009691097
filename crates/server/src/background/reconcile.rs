//! A file that says which adapters are to be served: what it says is made so, again whenever it
//! changes.
//!
//! One thread owns all of this. It reads the file every other second, and has the registry add,
//! replace, pin and remove what differs from what it made so before. What cannot be loaded is tried
//! again, later and later; the rest does not wait for it. What changes by it is written to the log
//! of changes, if there is one.

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

/// How often the file is read.
const INTERVAL: Duration = Duration::from_secs(2);

/// Before what failed is tried for the second time; twice as long before every further one.
const BACKOFF: Duration = Duration::from_secs(5);
/// At most this long.
const LONGEST: Duration = Duration::from_secs(300);

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    // Has to be there: a file that is just being written is empty, which must not remove
    // everything.
    adapters: BTreeMap<String, Wanted>,
}

/// An adapter as it is to be.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    source: String,
    #[serde(default)]
    pinned: bool,
    #[serde(default)]
    limits: AdapterLimits,
}

/// Why a file of adapters is not followed.
#[derive(Debug, thiserror::Error)]
pub enum AdaptersFileError {
    /// It cannot be read.
    #[error("the file of adapters {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// It is no TOML, or says what no such file says.
    #[error("the file of adapters {}: {error}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong where.
        error: toml::de::Error,
    },
    /// An adapter has a weight that none may have.
    #[error(
        "the file of adapters {}: `{name}` has the weight {weight}, but weights are {} to {}",
        path.display(),
        WEIGHTS.start(),
        WEIGHTS.end()
    )]
    Weight {
        /// The file.
        path: PathBuf,
        /// The adapter's name.
        name: String,
        /// Its weight.
        weight: f32,
    },
    /// There is no thread for it.
    #[error(transparent)]
    Thread(io::Error),
}

/// Why something that a file says does not hold.
type Unmade = Box<dyn Error + Send + Sync>;

/// The error and what caused it, in one line.
fn with_causes(error: &Unmade) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// What the file is.
fn read(path: &Path) -> Result<String, AdaptersFileError> {
    fs::read_to_string(path).map_err(|error| AdaptersFileError::Read {
        path: path.to_owned(),
        error,
    })
}

/// What a file with this text says.
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

/// How many adapters a file names.
///
/// # Errors
/// If it cannot be read or is not right.
pub fn check_adapters_file(path: &Path) -> Result<usize, AdaptersFileError> {
    Ok(parse(path, &read(path)?)?.len())
}

/// Makes true what a file says.
#[derive(Debug)]
pub struct Reconciler {
    path: PathBuf,
    registry: Registry,
    audit: Option<Audit>,
    /// What the file said when it was last understood.
    wanted: BTreeMap<String, Wanted>,
    /// What of it holds.
    made: BTreeMap<String, Wanted>,
    failed: BTreeMap<String, Failure>,
    /// What is being loaded.
    pending: BTreeMap<String, Pending>,
    /// The file as it was when it was taken at its word last.
    text: Option<String>,
    /// The file as it was read last: it is taken at its word if it stays so for a while, for it may
    /// be half written.
    seen: Option<String>,
}

/// An adapter that is being loaded.
#[derive(Debug)]
struct Pending {
    wanted: Wanted,
    before: Option<Held>,
    waiting: Waiting,
}

/// What a name stands for, as far as a file can change it.
#[derive(Clone, Debug, PartialEq)]
struct Held {
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
    /// Of the file at `path`, for the adapters of `registry`; changes are written to `audit`.
    pub fn new(path: &Path, registry: Registry, audit: Option<Audit>) -> Self {
        Self {
            path: path.to_owned(),
            registry,
            audit,
            wanted: BTreeMap::new(),
            made: BTreeMap::new(),
            failed: BTreeMap::new(),
            pending: BTreeMap::new(),
            text: None,
            seen: None,
        }
    }

    /// Makes true what the file says, on a thread of its own until the process ends.
    ///
    /// # Errors
    /// If the file cannot be read or is not right. Later that is only logged, and what held goes on
    /// to hold.
    pub fn start(mut self) -> Result<(), AdaptersFileError> {
        self.read()?;
        thread::Builder::new()
            .name("reconciler".to_owned())
            .spawn(move || {
                // The server answers meanwhile: requests for what is being loaded wait for it.
                self.make(Instant::now());
                loop {
                    thread::sleep(INTERVAL);
                    if let Err(error) = self.read() {
                        tracing::error!("{error}; what it said before goes on to hold");
                    }
                    self.make(Instant::now());
                }
            })
            .map_err(AdaptersFileError::Thread)?;
        Ok(())
    }

    /// Reads the file, if it has changed.
    fn read(&mut self) -> Result<(), AdaptersFileError> {
        let text = read(&self.path)?;
        let is_settled = self.text.is_none() || self.seen.as_ref() == Some(&text);
        self.seen = Some(text.clone());
        if self.text.as_ref() == Some(&text) || !is_settled {
            return Ok(());
        }
        // Also if it is not right: then it is complained of once.
        let parsed = parse(&self.path, &text);
        self.text = Some(text);
        self.wanted = parsed?;
        self.failed.clear();
        Ok(())
    }

    /// Makes what the file says of what does not hold yet, or begins to.
    fn make(&mut self, now: Instant) {
        self.collect();
        let gone: Vec<String> = self
            .made
            .keys()
            .filter(|name| !self.wanted.contains_key(*name))
            .cloned()
            .collect();
        for name in gone {
            let removed = self.registry.remove(&name);
            match &removed {
                Ok(()) => tracing::info!(
                    adapter = name,
                    "the file no longer says that it is served: removed"
                ),
                Err(error) => tracing::warn!(adapter = name, "{error}"),
            }
            let error = removed.err().map(|error| error.to_string());
            self.record("adapter.remove", &name, json!({}), error);
            self.made.remove(&name);
        }
        let is_due = |name: &str| self.failed.get(name).is_none_or(|failure| failure.next <= now);
        let open: Vec<(String, Wanted)> = self
            .wanted
            .iter()
            .filter(|(name, wanted)| {
                self.made.get(*name) != Some(wanted) && is_due(name) && !self.pending.contains_key(*name)
            })
            .map(|(name, wanted)| (name.clone(), wanted.clone()))
            .collect();
        for (name, wanted) in open {
            let before = self.held(&name);
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

    /// Takes note of loads that have ended. The others hold up nothing but their own names.
    fn collect(&mut self) {
        for (name, mut pending) in std::mem::take(&mut self.pending) {
            match pending.waiting.poll() {
                None => drop(self.pending.insert(name, pending)),
                Some(outcome) => {
                    let outcome = outcome.map(|_| ()).map_err(Unmade::from);
                    self.settle(name, pending.wanted, pending.before.as_ref(), outcome);
                }
            }
        }
    }

    fn held(&self, name: &str) -> Option<Held> {
        let listed = self.registry.listed(name)?;
        Some(Held {
            hash: listed.active().and_then(|version| version.hash),
            pinned: listed.pinned,
            limits: listed.limits,
        })
    }

    /// Writes down what became of a name by the file.
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

    fn settle(&mut self, name: String, wanted: Wanted, before: Option<&Held>, outcome: Result<(), Unmade>) {
        let now = self.held(&name);
        let is_same_version =
            before.is_some() && before.map(|held| held.hash) == now.as_ref().map(|held| held.hash);
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
            // What the file says holds already, as after a restart.
            Ok(()) if before == now.as_ref() => {}
            Ok(()) => self.record(action, &name, details, None),
            // Once, however often it is tried.
            Err(error) if !self.failed.contains_key(&name) => {
                self.record(action, &name, details, Some(with_causes(error)));
            }
            Err(_) => {}
        }
        match outcome {
            Ok(()) => {
                tracing::info!(adapter = name, source = wanted.source, "served, as the file says");
                self.failed.remove(&name);
                self.made.insert(name, wanted);
            }
            Err(error) => {
                let attempts = 1 + self.failed.get(&name).map_or(0, |failure| failure.attempts);
                let pause = BACKOFF.saturating_mul(1 << (attempts - 1).min(16)).min(LONGEST);
                tracing::error!(
                    adapter = name,
                    source = wanted.source,
                    "cannot be served as the file says: {}; tried again in {} s",
                    with_causes(&error),
                    pause.as_secs()
                );
                let next = Instant::now() + pause;
                self.failed.insert(name, Failure { attempts, next });
            }
        }
    }

    /// Begins to load an adapter, unless only its pin or its limits are others.
    fn begin(&self, name: &str, wanted: &Wanted) -> Result<Option<Waiting>, Unmade> {
        let made = self.made.get(name).filter(|_| self.registry.contains(name));
        if made.is_some_and(|made| made.source == wanted.source) {
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

    /// Until nothing is being loaded.
    fn wait(reconciler: &mut Reconciler) {
        while !reconciler.pending.is_empty() {
            thread::sleep(Duration::from_millis(1));
            reconciler.collect();
        }
    }

    /// What is served: name, number of versions, pin.
    fn served(registry: &Registry) -> Vec<(String, usize, bool)> {
        let listed = registry.list().into_iter();
        listed
            .map(|listed| (listed.name, listed.versions.len(), listed.pinned))
            .collect()
    }

    #[test]
    fn what_the_file_says_is_made_so_and_nothing_else_is_touched() {
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
            // Once for its being new, once for its staying so.
            let _ = reconciler.read();
            let read = reconciler.read().map_err(|error| error.to_string());
            reconciler.make(Instant::now() + Duration::from_secs(later));
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
        // Another source is another version; a pin alone is none; who is not named any more goes.
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
        // What is not right, or empty, changes nothing.
        assert_eq!(says("", 0).1, [other.clone(), of("a", 2, false)]);
        let (read, now) = says("[adapters.a]\nsorce = \"x\"\n", 0);
        assert!(read.expect_err("a typing error").contains("sorce"));
        assert_eq!(now, [other.clone(), of("a", 2, false)]);
        // One that cannot be loaded keeps nobody up, and is tried again.
        let text = "[adapters]\na = { source = \"adapters/all_r8\" }\nc = { source = \"late\" }\nd = { source = \"adapters/qv_r4\" }\n";
        let (_, now) = says(text, 0);
        assert_eq!(now, [other.clone(), of("a", 2, false), of("d", 1, false)]);
        std::os::unix::fs::symlink(adapters.join("qv_r4"), dir.path().join("late")).expect("a link");
        assert_eq!(says(text, 0).1.len(), 3, "not before its time");
        assert!(says(text, 60).1.contains(&of("c", 1, false)));
        // After a restart all of it holds, so nothing is done.
        let mut again = Reconciler::new(&path, registry.clone(), Some(audit));
        again.read().expect("valid");
        again.make(Instant::now());
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
    fn a_file_that_is_being_written_is_not_taken_at_its_word() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("adapters.toml");
        let adapter = multigraft_testing::fixtures().join("peft/llama/adapters/qv_r4");
        let registry = registry();
        let mut reconciler = Reconciler::new(&path, registry.clone(), None);
        let mut reads = |text: &str| {
            fs::write(&path, text).expect("written");
            reconciler.read().expect("valid");
            reconciler.make(Instant::now());
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

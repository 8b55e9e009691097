//! A file that says which adapters are to be served: what it says is made so, again whenever it changes.
//!
//! One thread owns all of this. It reads the file every other second, and has the registry add, replace, pin and remove what
//! differs from what it made so before. What cannot be loaded is tried again, later and later; the rest does not wait for it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use multigraft_adapters::{AdapterLimits, AddedBy, Adding, Reference, Registry, Settings, Source, Waiting};
use multigraft_engine::WEIGHTS;
use serde::Deserialize;

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
    // Has to be there: a file that is just being written is empty, which must not remove everything.
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

/// What a file with this text says.
fn parse(path: &Path, text: &str) -> Result<BTreeMap<String, Wanted>> {
    let File { adapters } =
        toml::from_str(text).with_context(|| format!("the file of adapters {}", path.display()))?;
    for (name, Wanted { limits, .. }) in &adapters {
        ensure!(
            WEIGHTS.contains(&limits.weight),
            "the file of adapters {}: `{name}` has the weight {}, but weights are {} to {}",
            path.display(),
            limits.weight,
            WEIGHTS.start(),
            WEIGHTS.end()
        );
    }
    Ok(adapters)
}

/// How many adapters a file names, if it is right.
pub(crate) fn check(path: &Path) -> Result<usize> {
    let text =
        fs::read_to_string(path).with_context(|| format!("the file of adapters {}", path.display()))?;
    Ok(parse(path, &text)?.len())
}

/// Makes true what a file says.
#[derive(Debug)]
pub(crate) struct Reconciler {
    path: PathBuf,
    registry: Registry,
    /// What the file said when it was last understood.
    wanted: BTreeMap<String, Wanted>,
    /// What of it holds.
    made: BTreeMap<String, Wanted>,
    failed: BTreeMap<String, Failure>,
    /// What is being loaded.
    pending: BTreeMap<String, (Wanted, Waiting)>,
    /// The file as it was when it was taken at its word last.
    text: Option<String>,
    /// The file as it was read last: it is taken at its word if it stays so for a while, for it may be half written.
    seen: Option<String>,
}

#[derive(Clone, Copy, Debug)]
struct Failure {
    attempts: u32,
    next: Instant,
}

impl Reconciler {
    pub(crate) fn new(path: &Path, registry: Registry) -> Self {
        Self {
            path: path.to_owned(),
            registry,
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
    /// If the file cannot be read or is not right. Later that is only logged, and what held goes on to hold.
    pub(crate) fn start(mut self) -> Result<()> {
        self.read()?;
        thread::Builder::new()
            .name("reconciler".to_owned())
            .spawn(move || {
                // The server answers meanwhile: requests for what is being loaded wait for it.
                self.make(Instant::now());
                loop {
                    thread::sleep(INTERVAL);
                    if let Err(error) = self.read() {
                        tracing::error!("{error:#}; what it said before goes on to hold");
                    }
                    self.make(Instant::now());
                }
            })?;
        Ok(())
    }

    /// Reads the file, if it has changed.
    fn read(&mut self) -> Result<()> {
        let of = || format!("the file of adapters {}", self.path.display());
        let text = fs::read_to_string(&self.path).with_context(of)?;
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
            match self.registry.remove(&name) {
                Ok(()) => tracing::info!(
                    adapter = name,
                    "the file no longer says that it is served: removed"
                ),
                Err(error) => tracing::warn!(adapter = name, "{error}"),
            }
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
            match self.begin(&name, &wanted) {
                Ok(Some(waiting)) => drop(self.pending.insert(name, (wanted, waiting))),
                Ok(None) => self.settle(name, wanted, Ok(())),
                Err(error) => self.settle(name, wanted, Err(error)),
            }
        }
    }

    /// Takes note of loads that have ended. The others hold up nothing but their own names.
    fn collect(&mut self) {
        for (name, (wanted, mut waiting)) in std::mem::take(&mut self.pending) {
            match waiting.poll() {
                None => drop(self.pending.insert(name, (wanted, waiting))),
                Some(outcome) => self.settle(name, wanted, outcome.map(|_| ()).map_err(anyhow::Error::from)),
            }
        }
    }

    fn settle(&mut self, name: String, wanted: Wanted, outcome: Result<()>) {
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
                    "cannot be served as the file says: {error:#}; tried again in {} s",
                    pause.as_secs()
                );
                let next = Instant::now() + pause;
                self.failed.insert(name, Failure { attempts, next });
            }
        }
    }

    /// Begins to load an adapter, unless only its pin or its limits are others.
    fn begin(&self, name: &str, wanted: &Wanted) -> Result<Option<Waiting>> {
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
    use std::num::NonZeroU32;

    use multigraft_adapters::{BaseShape, Packer, RegistryOptions};
    use multigraft_model::{ModelFiles, PackedAdapter};

    use super::*;

    fn registry() -> Registry {
        let model = multigraft_testing::fixtures().join("peft/llama/model");
        let config = ModelFiles::open(&model)
            .and_then(|files| files.config())
            .expect("the fixture");
        let packer = Packer {
            shape: BaseShape::new(&config),
            size: Box::new(|_| 16),
            pack: Box::new(|weights| Ok(PackedAdapter::claiming(weights.hash, 1000))),
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
        let mut reconciler = Reconciler::new(&path, registry.clone());
        let mut says = |text: &str, later: u64| {
            fs::write(&path, text).expect("written");
            // Once for its being new, once for its staying so.
            let _ = reconciler.read();
            let read = reconciler.read().map_err(|error| format!("{error:#}"));
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
    }

    #[test]
    fn a_file_that_is_being_written_is_not_taken_at_its_word() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("adapters.toml");
        let adapter = multigraft_testing::fixtures().join("peft/llama/adapters/qv_r4");
        let registry = registry();
        let mut reconciler = Reconciler::new(&path, registry.clone());
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

//! The names that are served, and the lives of the adapters that they stand for.
//!
//! ```text
//! source ─ register ─ cold ──── a request ───┐
//!        └ add ───────────────── load ──────┴─ resident ─ used … idle ─ (memory is wanted) ─ cold
//!          add under the same name ─ load ─ new version active, the old one's requests go on
//! ```
//!
//! A name has *versions*, the newest last, of which one is active; a version is the hash of files.
//! An adapter is *resident* by its hash, so names and versions with the same files share it.
//! Loading happens on threads of its own, and nothing that a request or another adapter needs is
//! locked meanwhile. Whoever holds an [`Entry`] keeps its adapter in memory: replacing, removing or
//! dropping it from here changes nothing for requests under way.

mod added_by;
mod catalogue;
mod changes;
mod entry;
mod error;
mod fetch;
mod limits;
mod listed;
mod load;
mod memory;
mod merging;
mod name;
mod options;
mod recipe;
mod room;
mod settings;
mod state;
mod storage;
mod store;
mod task;
mod upload;
mod version_files;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use indexmap::IndexMap;
use multigraft_model::{AdapterHash, MemoryBudget};
use multigraft_sources::Reference;
use serde_json::{Map, Value};
use tokio::sync::{oneshot, watch};

use crate::error::AdapterError;
use crate::source::Source;
pub use added_by::AddedBy;
pub use catalogue::{Catalogue, CataloguedName, CataloguedVersion, StoreError};
pub use entry::{Adding, Entry, Lookup, Outcome, Waiting};
pub use error::{ActivateError, ChangeError, LoadError, OpenError};
pub use limits::AdapterLimits;
pub use listed::{Listed, ListedVersion, Phase, Progress, Residency, Status};
use memory::{Dropped, Held, Memory};
pub use options::{IsBusy, OnLoad, Pack, Packer, RegistryOptions, Size};
pub use recipe::MergePart;
pub use settings::Settings;
use state::{Reply, ServedName, Version};
use storage::Storage;
use task::{Job, Task, Tasks};
pub use upload::Upload;

/// Names that nobody added and that are being loaded, at most.
const FIRST_USES: usize = 64;

/// The base's name and its adapters. Clones are handles to the same one.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

/// What the handles and the loaders share.
pub(crate) struct Inner {
    base: String,
    packer: Packer,
    options: RegistryOptions,
    state: Mutex<State>,
    storage: Option<Storage>,
    /// Held by whoever changes what names stand for, from the store to the state: lookups never
    /// wait for the disk.
    changes: Mutex<()>,
    jobs: Tasks,
    /// Those whose files must be brought here first.
    fetches: Sender<Job>,
    /// Says that a phase may have changed.
    changed: watch::Sender<()>,
}

/// All that changes.
#[derive(Debug, Default)]
struct State {
    /// In the order that they were added.
    names: IndexMap<String, ServedName>,
    memory: Memory,
    /// Merged adapters that are being made, and who waits for each, and what they call it.
    merging: HashMap<AdapterHash, Vec<(String, Reply)>>,
    /// Requests that wait for loads.
    waiting: usize,
    /// Every upload that arrives holds one of these.
    uploads: Arc<()>,
    /// Names that requests used and that could not be loaded, why, and until when that is not tried
    /// again.
    failed: HashMap<String, (LoadError, Instant)>,
    /// Names each load, so that one that was given up is not taken for a later one.
    loads: u64,
}

impl Registry {
    /// The base under its name, and the adapters that were stored.
    ///
    /// # Errors
    /// If the stored data cannot be read or is in use, or the system has no threads to load on.
    pub fn open(base: &str, packer: Packer, options: RegistryOptions) -> Result<Self, OpenError> {
        let (jobs, inbox) = mpsc::channel();
        let (fetches, orders) = mpsc::channel();
        let loaders = options.loaders.max(1);
        let mut state = State {
            memory: Memory::within(Arc::clone(&options.budget)),
            ..State::default()
        };
        let data = options.data.as_deref();
        let storage = data
            .map(|folder| Storage::open(folder, options.catalogue.clone()))
            .transpose()?;
        if let Some(Storage { catalogue, files }) = &storage {
            let catalogued = catalogue.names()?;
            let versions = catalogued.iter().flat_map(|name| &name.versions);
            files.sweep(versions.map(|version| version.hash))?;
            for stored in catalogued {
                let name = stored.name.clone();
                if let Err(error) = name::check(base, &name) {
                    tracing::warn!("a stored adapter is not served: {error}");
                    continue;
                }
                match ServedName::restored(stored, |hash| files.folder(hash)) {
                    Some(named) => drop(state.names.insert(name, named)),
                    None => tracing::error!(
                        "the stored adapter `{name}` is not served: its active version is lost"
                    ),
                }
            }
        }
        let inner = Arc::new(Inner {
            base: base.to_owned(),
            packer,
            options,
            state: Mutex::new(state),
            storage,
            changes: Mutex::default(),
            jobs,
            fetches,
            changed: watch::Sender::default(),
        });
        load::start(&inner, inbox, loaders)?;
        fetch::start(&inner, orders)?;
        room::start(&inner)?;
        Ok(Self(inner))
    }

    /// The base's name.
    pub fn base(&self) -> &str {
        &self.0.base
    }

    /// Makes an adapter known for as long as the registry lives; it is loaded when it is asked for.
    /// A stored adapter of that name is forgotten until the next start; returns whether there was
    /// one.
    ///
    /// # Errors
    /// If its name cannot be served or is taken.
    pub fn register(&self, source: Source) -> Result<bool, AdapterError> {
        name::check(&self.0.base, &source.name)?;
        let mut state = self.0.lock();
        let stored = state
            .names
            .get(&source.name)
            .is_some_and(|named| named.record.stored);
        if !stored {
            name::check_free(&state.names, &source)?;
        }
        let named = ServedName::of(Version::new(source.at, None, AddedBy::CommandLine));
        state.names.insert(source.name, named);
        self.0.changed();
        Ok(stored)
    }

    /// As [`Registry::add`] for a name that a request used and nobody added. It is not stored, and
    /// what failed a moment ago is not tried again: whoever sends requests decides neither what
    /// survives a restart nor how often a source is asked.
    ///
    /// # Errors
    /// If its name cannot be served.
    pub fn first_use(&self, source: &Source) -> Result<Lookup, AdapterError> {
        {
            let mut state = self.0.lock();
            let now = Instant::now();
            state.failed.retain(|_, (_, until)| *until > now);
            if let Some((error, _)) = state.failed.get(&source.name) {
                return Ok(Lookup::Unavailable(error.clone()));
            }
            let unsettled = state
                .names
                .values()
                .filter(|named| !named.record.has_versions())
                .count();
            if unsettled >= FIRST_USES {
                return Ok(Lookup::Unavailable(LoadError::TooManyWait { waiting: unsettled }));
            }
        }
        let adding = Adding {
            by: AddedBy::Request,
            ..Adding::default()
        };
        match self.begin(source, adding, false) {
            Ok(waiting) => Ok(Lookup::Loading(waiting)),
            // Another request was a moment earlier.
            Err(AdapterError::DuplicateName { .. } | AdapterError::BeingLoaded { .. }) => {
                Ok(self.get(&source.name))
            }
            Err(error) => Err(error),
        }
    }

    /// Loads an adapter and then puts it under its name, at once for all requests from then on. If
    /// it cannot be loaded, nothing has changed.
    ///
    /// # Errors
    /// If its name cannot be served, is taken and may not be replaced, or is just being loaded from
    /// elsewhere.
    pub fn add(&self, source: &Source, adding: Adding) -> Result<Waiting, AdapterError> {
        self.begin(source, adding, true)
    }

    /// `stored` is for a name that is new.
    fn begin(&self, source: &Source, adding: Adding, stored: bool) -> Result<Waiting, AdapterError> {
        name::check(&self.0.base, &source.name)?;
        let mut state = self.0.lock();
        if !adding.replace {
            name::check_free(&state.names, source)?;
        }
        let (reply, outcome) = oneshot::channel();
        let state = &mut *state;
        let is_stored = stored && self.0.storage.is_some();
        if matches!(source.at, Reference::Upload { .. }) {
            upload::check_kept(&source.name, state.names.get(&source.name), is_stored)?;
        }
        let named = state.names.entry(source.name.clone());
        let named = named.or_insert_with(|| ServedName::begun(is_stored));
        match named.activity.candidate_from(&source.at) {
            Some(Ok(())) => named.activity.join_candidate(adding, reply),
            Some(Err(at)) => {
                return Err(AdapterError::BeingLoaded {
                    name: source.name.clone(),
                    at: at.to_string(),
                });
            }
            None => {
                state.loads += 1;
                // Requests that come before its first version is there wait for it, and are of it
                // already.
                if !named.record.has_versions() {
                    named.record.set(adding.settings.clone());
                }
                named
                    .activity
                    .begin_candidate(state.loads, &source.at, adding, reply);
                self.0.order(Job::candidate(state.loads, source));
            }
        }
        Ok(Waiting(outcome))
    }

    /// Puts an adapter that is in memory under its name.
    ///
    /// # Errors
    /// If the name cannot be served or is taken.
    pub fn insert(&self, entry: Entry) -> Result<(), AdapterError> {
        name::check(&self.0.base, &entry.name)?;
        let mut state = self.0.lock();
        let source = Source {
            name: entry.name,
            at: entry.at,
        };
        name::check_free(&state.names, &source)?;
        let mut version = Version::new(source.at, Some(entry.hash), AddedBy::CommandLine);
        version.info = Some(Arc::clone(&entry.info));
        let held = Held {
            packed: entry.packed,
            info: entry.info,
            template: entry.template,
        };
        state.memory.insert(entry.hash, held, Vec::new());
        let named = ServedName::of(version);
        state.names.insert(source.name, named);
        self.0.changed();
        Ok(())
    }

    /// The adapter that a request for `name` gets. One that is not in memory is loaded. The base is
    /// none.
    pub fn get(&self, name: &str) -> Lookup {
        let mut state = self.0.lock();
        let State { names, memory, .. } = &mut *state;
        let Some(named) = names.get_mut(name) else {
            return Lookup::Unknown;
        };
        named.activity.used();
        if let Some(entry) = named.entry(name, memory) {
            return Lookup::Ready(entry);
        }
        if let Some(error) = named.activity.backed_off(Instant::now()) {
            return Lookup::Unavailable(error);
        }
        if state.waiting >= self.0.options.max_waiting {
            state.forget_gone();
        }
        let State {
            names,
            waiting,
            loads,
            ..
        } = &mut *state;
        // Again, for all names were just looked through.
        let Some(named) = names.get_mut(name) else {
            return Lookup::Unknown;
        };
        if *waiting >= self.0.options.max_waiting {
            return Lookup::Unavailable(LoadError::TooManyWait { waiting: *waiting });
        }
        let (reply, outcome) = oneshot::channel();
        if let Some(version) = named.wait(reply, loads) {
            self.0.order(Job::active(*loads, name, version));
        }
        *waiting += 1;
        Lookup::Loading(Waiting(outcome))
    }

    /// Whether there is such a name.
    pub fn contains(&self, name: &str) -> bool {
        self.0.lock().names.contains_key(name)
    }

    /// What [`Registry::set_limits`] set, or the usual ones.
    pub fn limits(&self, name: &str) -> AdapterLimits {
        let state = self.0.lock();
        let named = state.names.get(name);
        named.map_or_else(Default::default, |named| named.record.limits())
    }

    /// What [`Registry::set_defaults`] set.
    pub fn defaults(&self, name: &str) -> Option<Arc<Map<String, Value>>> {
        self.0.lock().names.get(name)?.record.defaults.clone()
    }

    /// What adapters and keys and values take from together, if they do.
    pub fn budget(&self) -> Option<&MemoryBudget> {
        Some(&*self.0.options.budget).filter(|budget| budget.total() < usize::MAX)
    }

    /// How many adapters were dropped from memory for room, for others or for sequences, since the
    /// start.
    pub fn evictions(&self) -> u64 {
        self.0.lock().memory.evictions()
    }

    /// Memory that adapters take and may take, in bytes.
    pub fn memory(&self) -> (usize, usize) {
        (self.0.lock().memory.bytes(), self.0.most())
    }
}

impl Inner {
    /// A panic elsewhere leaves the state whole: nothing panics between two changes that belong
    /// together.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells who watches.
    fn changed(&self) {
        self.changed.send_replace(());
    }

    /// Has a job done. Its threads live as long as the registry.
    fn order(&self, job: Job) {
        self.changed();
        let _ = match job.is_to_be_fetched() {
            true => self.fetches.send(job).is_ok(),
            false => self.jobs.send(Task::Load(job)).is_ok(),
        };
    }

    /// What all adapters may take.
    fn most(&self) -> usize {
        let budget = self.options.budget.most_for_adapters();
        self.options.memory.min(budget)
    }

    fn change(&self) -> MutexGuard<'_, ()> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a name is stored, if it is.
    fn storage_of(&self, name: &str) -> Result<Option<&Storage>, ChangeError> {
        match self.lock().names.get(name) {
            Some(named) => Ok(self.storage.as_ref().filter(|_| named.record.stored)),
            None => Err(ChangeError::Unknown(name.to_owned())),
        }
    }
}

impl State {
    /// Lets go of adapters that no name stands for: whoever uses them still holds them.
    #[must_use]
    fn drop_unnamed(&mut self) -> Dropped {
        let named: HashSet<AdapterHash> = self
            .names
            .values()
            .filter_map(|named| named.record.active_hash())
            .collect();
        self.memory.retain(|hash| named.contains(hash))
    }

    /// Forgets requests that wait no more.
    fn forget_gone(&mut self) {
        let mut gone: usize = self
            .names
            .values_mut()
            .map(|named| named.activity.forget_gone())
            .sum();
        for waiting in self.merging.values_mut() {
            let before = waiting.len();
            // One of them stays, for as long as there are some, the merge is under way.
            let mut first = true;
            waiting.retain(|(_, reply)| std::mem::take(&mut first) || !reply.is_closed());
            gone += before - waiting.len();
        }
        self.waiting -= gone;
    }

    /// Hashes that must stay in memory.
    fn pinned(&self) -> Vec<AdapterHash> {
        let pinned = self.names.values().filter(|named| named.record.pinned);
        pinned.filter_map(|named| named.record.active_hash()).collect()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("base", &self.0.base)
            .field("names", &self.0.lock().names.len())
            .finish_non_exhaustive()
    }
}

//! The names that are served, their versions, and the adapters in memory.
//!
//! ```text
//! source ─ register ─ cold ──── a request ───┐
//!        └ add ───────────────── load ──────┴─ resident ─ in use … idle ─ (evicted) ─ cold
//!          add under the same name ─ load ─ new version active, in-flight requests keep the old
//! ```
//!
//! A name has *versions*, the newest last, of which one is active. A version is identified by the
//! hash of its files. An adapter is *resident* under its hash, so names and versions with the same
//! files share it. Loading happens on threads of its own and holds no lock that a request or
//! another adapter needs. An [`Entry`] keeps its adapter in memory: replacing, removing or evicting
//! the adapter does not affect in-flight requests.

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

/// Limit of names that requests introduced and that are being loaded.
const FIRST_USES: usize = 64;

/// The base's name and its adapters. Clones share the same registry.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

/// The state that handles and threads share.
pub(crate) struct Inner {
    base: String,
    packer: Packer,
    options: RegistryOptions,
    state: Mutex<State>,
    storage: Option<Storage>,
    /// Held from storing a change to applying it. Lookups do not take this lock, so they never wait
    /// for the disk.
    changes: Mutex<()>,
    jobs: Tasks,
    /// Jobs whose files must be downloaded first.
    fetches: Sender<Job>,
    /// Signals that a phase may have changed.
    changed: watch::Sender<()>,
}

/// The state behind the lock.
#[derive(Debug, Default)]
struct State {
    /// In the order in which they were added.
    names: IndexMap<String, ServedName>,
    memory: Memory,
    /// Merges in progress: for each, the replies and the name that each requester used.
    merging: HashMap<AdapterHash, Vec<(String, Reply)>>,
    /// Requests that wait for loads.
    waiting: usize,
    /// Each upload in progress holds a clone, so the reference count counts uploads.
    uploads: Arc<()>,
    /// Names whose first load failed, with the error and the time until which it is not repeated.
    failed: HashMap<String, (LoadError, Instant)>,
    /// Number of the last load. Numbers distinguish a load from earlier ones of the same name.
    loads: u64,
}

impl Registry {
    /// Opens a registry with the base's name and the stored adapters.
    ///
    /// # Errors
    /// If the stored data cannot be read or is in use, or a thread cannot be started.
    pub fn open(base: &str, packer: Packer, options: RegistryOptions) -> Result<Self, OpenError> {
        let (jobs, inbox) = mpsc::channel();
        let (fetches, queue) = mpsc::channel();
        let loaders = options.loaders.max(1);
        let mut state = State {
            memory: Memory::with_budget(Arc::clone(&options.budget)),
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
        fetch::start(&inner, queue)?;
        room::start(&inner)?;
        Ok(Self(inner))
    }

    /// The base's name.
    pub fn base(&self) -> &str {
        &self.0.base
    }

    /// Registers an adapter for the lifetime of the registry. The first request loads it. A stored
    /// adapter of the same name is hidden until the next start; returns whether there was one.
    ///
    /// # Errors
    /// If the name cannot be served or is in use.
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

    /// As [`Registry::add`], for a name that a request introduces. The name is not stored, and a
    /// failed load is not repeated for a while: requests decide neither what survives a restart nor
    /// how often a source is contacted.
    ///
    /// # Errors
    /// If the name cannot be served.
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
            // Another request introduced the name a moment earlier.
            Err(AdapterError::DuplicateName { .. } | AdapterError::BeingLoaded { .. }) => {
                Ok(self.get(&source.name))
            }
            Err(error) => Err(error),
        }
    }

    /// Loads an adapter and then makes it available under its name, atomically for all later
    /// requests. If the load fails, nothing changes.
    ///
    /// # Errors
    /// If the name cannot be served, is in use and may not be replaced, or is being loaded from
    /// another source.
    pub fn add(&self, source: &Source, adding: Adding) -> Result<Waiting, AdapterError> {
        self.begin(source, adding, true)
    }

    /// `stored` says whether a new name is stored.
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
        let named = named.or_insert_with(|| ServedName::loading(is_stored));
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
                // Requests that arrive before the first version is loaded wait for it, so its
                // settings already apply to them.
                if !named.record.has_versions() {
                    named.record.set(adding.settings.clone());
                }
                named
                    .activity
                    .begin_candidate(state.loads, &source.at, adding, reply);
                self.0.submit(Job::candidate(state.loads, source));
            }
        }
        Ok(Waiting(outcome))
    }

    /// Makes an adapter that is in memory available under its name.
    ///
    /// # Errors
    /// If the name cannot be served or is in use.
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

    /// Looks up the adapter for a request. An adapter that is not in memory is loaded. The base's
    /// name is unknown here.
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
            state.forget_closed();
        }
        let State {
            names,
            waiting,
            loads,
            ..
        } = &mut *state;
        // Borrowed again, because `forget_closed` needed all names.
        let Some(named) = names.get_mut(name) else {
            return Lookup::Unknown;
        };
        if *waiting >= self.0.options.max_waiting {
            return Lookup::Unavailable(LoadError::TooManyWait { waiting: *waiting });
        }
        let (reply, outcome) = oneshot::channel();
        if let Some(version) = named.wait(reply, loads) {
            self.0.submit(Job::active(*loads, name, version));
        }
        *waiting += 1;
        Lookup::Loading(Waiting(outcome))
    }

    /// Whether the name exists.
    pub fn contains(&self, name: &str) -> bool {
        self.0.lock().names.contains_key(name)
    }

    /// The limits set by [`Registry::set_limits`], or the default ones.
    pub fn limits(&self, name: &str) -> AdapterLimits {
        let state = self.0.lock();
        let named = state.names.get(name);
        named.map_or_else(Default::default, |named| named.record.limits())
    }

    /// The defaults set by [`Registry::set_defaults`].
    pub fn defaults(&self, name: &str) -> Option<Arc<Map<String, Value>>> {
        self.0.lock().names.get(name)?.record.defaults.clone()
    }

    /// The memory budget that adapters share with the KV cache, if there is one.
    pub fn budget(&self) -> Option<&MemoryBudget> {
        Some(&*self.0.options.budget).filter(|budget| budget.total() < usize::MAX)
    }

    /// Evictions since the start of the server, for other adapters or for the KV cache.
    pub fn evictions(&self) -> u64 {
        self.0.lock().memory.evictions()
    }

    /// Memory of adapters and its limit, in bytes.
    pub fn memory(&self) -> (usize, usize) {
        (self.0.lock().memory.bytes(), self.0.most())
    }
}

impl Inner {
    /// A poisoned lock is taken over: nothing panics between changes that belong together, so the
    /// state is consistent.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Signals a possible change of a phase.
    fn changed(&self) {
        self.changed.send_replace(());
    }

    /// Sends a job to its threads, which run as long as the registry exists.
    fn submit(&self, job: Job) {
        self.changed();
        let _ = match job.is_to_be_fetched() {
            true => self.fetches.send(job).is_ok(),
            false => self.jobs.send(Task::Load(job)).is_ok(),
        };
    }

    /// Limit of all adapters' memory, in bytes.
    fn most(&self) -> usize {
        let budget = self.options.budget.most_for_adapters();
        self.options.memory.min(budget)
    }

    fn change(&self) -> MutexGuard<'_, ()> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The storage of a name, if the name is stored.
    fn storage_of(&self, name: &str) -> Result<Option<&Storage>, ChangeError> {
        match self.lock().names.get(name) {
            Some(named) => Ok(self.storage.as_ref().filter(|_| named.record.stored)),
            None => Err(ChangeError::Unknown(name.to_owned())),
        }
    }
}

impl State {
    /// Removes adapters that no name stands for. Their users still hold them.
    #[must_use]
    fn remove_unnamed(&mut self) -> Dropped {
        let named: HashSet<AdapterHash> = self
            .names
            .values()
            .filter_map(|named| named.record.active_hash())
            .collect();
        self.memory.retain(|hash| named.contains(hash))
    }

    /// Forgets requests that have stopped waiting.
    fn forget_closed(&mut self) {
        let mut gone: usize = self
            .names
            .values_mut()
            .map(|named| named.activity.forget_closed())
            .sum();
        for waiting in self.merging.values_mut() {
            let before = waiting.len();
            // One reply stays, because a merge is in progress as long as there are replies.
            let mut first = true;
            waiting.retain(|(_, reply)| std::mem::take(&mut first) || !reply.is_closed());
            gone += before - waiting.len();
        }
        self.waiting -= gone;
    }

    /// Hashes of pinned adapters.
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

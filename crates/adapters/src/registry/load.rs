//! The threads that read and check adapters and make them ready.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use multigraft_kernels::malloc::return_freed;
use multigraft_model::{AdapterHash, AdapterWeights, ReadyAdapter, Throttle};
use multigraft_peft::{AdapterFile, AdapterFiles, AdapterInfo, BaseShape};
use multigraft_sources::Fetched;

use super::memory::Held;
use super::room::Room;
use super::state::Next;
use super::storage::Storage;
use super::task::{Job, Kind, Loaded, Task, failed};
use super::{Inner, LoadError, State};
use crate::error::AdapterError;
use crate::self_test::Verdict;

/// How long the failure of a name that no longer exists is remembered, as a multiple of the first
/// back-off.
const FAILURES_KEPT: u32 = 10;

/// Idle time after which freed memory is returned to the operating system.
const IDLE_BEFORE_RETURN: Duration = Duration::from_secs(1);

/// Niceness of the loaders, from 0 to 19. With 19, loads make hardly any progress beside 32
/// streams; with 0, they slow steps down.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// Starts `count` threads that take tasks from `inbox`. The threads end with the registry.
pub(super) fn start(registry: &Arc<Inner>, inbox: Receiver<Task>, count: usize) -> std::io::Result<()> {
    let inbox = Arc::new(Mutex::new(inbox));
    for index in 0..count {
        let (registry, inbox) = (Arc::downgrade(registry), Arc::clone(&inbox));
        let builder = thread::Builder::new().name(format!("loader-{index}"));
        builder.spawn(move || serve(&registry, &inbox))?;
    }
    Ok(())
}

fn serve(registry: &Weak<Inner>, inbox: &Mutex<Receiver<Task>>) {
    lower_priority();
    let watched = Weak::clone(registry);
    let throttle = Throttle::new(move || {
        watched
            .upgrade()
            .is_some_and(|registry| registry.options.is_busy.ask())
    });
    // Reading and packing take several times the memory that the adapter keeps.
    let mut has_freed_memory = false;
    loop {
        let inbox = inbox.lock().unwrap_or_else(PoisonError::into_inner);
        let task = match has_freed_memory {
            true => inbox.recv_timeout(IDLE_BEFORE_RETURN),
            false => inbox.recv().map_err(RecvTimeoutError::from),
        };
        drop(inbox);
        if let Err(RecvTimeoutError::Timeout) = task {
            return_freed();
            has_freed_memory = false;
            continue;
        }
        let (Ok(task), Some(registry)) = (task, registry.upgrade()) else {
            return;
        };
        has_freed_memory = true;
        throttle.restart();
        let loaded = catch_unwind(AssertUnwindSafe(|| match &task {
            Task::Load(job) => registry.load(job, &throttle),
            Task::Merge(recipe) => registry.merge(recipe, &throttle),
        }));
        let loaded = loaded.unwrap_or(Err(LoadError::Panicked));
        match task {
            Task::Load(job) => registry.complete(job, loaded),
            Task::Merge(recipe) => registry.complete_merge(recipe, loaded),
        }
    }
}

/// Lowers the priority of this thread. The threads that compute a step wait for each other, so
/// interrupting one of them delays all.
fn lower_priority() {
    // On Linux, 0 means this thread only. If the call fails, loading only competes with steps.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::debug!(%error, "the loader keeps its priority");
    }
}

impl Inner {
    /// Reads an adapter, checks it and makes it ready. Stores its files first if the version is to
    /// be stored.
    fn load(&self, job: &Job, throttle: &Throttle) -> Result<Loaded, LoadError> {
        if let Some(named) = self.lock().names.get_mut(&job.name) {
            named.activity.begins(job.id);
        }
        let from = job.folder.clone().unwrap_or_default();
        let files = read(&from, throttle)?;
        let hash = files.hash;
        if let Kind::Active(Some(known)) = job.kind {
            check(&files, known).map_err(failed)?;
        }
        let storage = match job.kind {
            Kind::Candidate => self.storage_of(&job.name).unwrap_or(None),
            Kind::Active(_) => None,
        };
        let Some(Storage { files: kept, .. }) = storage else {
            return self.prepare(job, files, from, throttle);
        };
        let is_new = kept
            .keep(&files)
            .map_err(|error| LoadError::Store(Arc::new(error)))?;
        let loaded = self.prepare(job, files, kept.folder(hash), throttle);
        if loaded.is_err() && is_new {
            kept.discard(hash);
        }
        loaded
    }

    /// Checks an adapter and makes it ready, unless it is in memory already.
    fn prepare(
        &self,
        job: &Job,
        files: AdapterFiles,
        folder: PathBuf,
        throttle: &Throttle,
    ) -> Result<Loaded, LoadError> {
        let hash = files.hash;
        let from = files.folder.clone();
        if let Some(resident) = self.lock().memory.touch(hash) {
            return Ok(Loaded {
                hash,
                files: job.files(folder),
                held: resident.held.clone(),
                promised: 0,
            });
        }
        let adapter = parse(files, &self.packer.shape, throttle)?;
        let template = adapter.template.map(|template| template.compiled);
        let beside = template.as_ref().map_or(0, |template| template.bytes());
        let (packed, room) = self.pack(&from, &adapter.weights, beside, throttle)?;
        let mut info = adapter.info;
        if let Some(test) = &self.packer.self_test {
            let refused = |reason| {
                failed(AdapterError::SelfTest {
                    folder: from.clone(),
                    reason,
                })
            };
            let (effect, verdict) = test.run(&from, &adapter.weights, &packed).map_err(refused)?;
            info.effect = Some(effect);
            match verdict {
                Verdict::Fine => {}
                Verdict::Warning(warning) => info.warnings.push(warning),
                Verdict::Refused(reason) => return Err(refused(reason)),
            }
        }
        Ok(Loaded {
            hash,
            files: job.files(folder),
            held: Held {
                packed,
                info: Arc::new(info),
                template,
            },
            promised: room.keep(),
        })
    }

    /// Makes an adapter ready after reserving memory for it and for `beside` further bytes.
    pub(super) fn pack(
        &self,
        folder: &Path,
        weights: &AdapterWeights,
        beside: usize,
        throttle: &Throttle,
    ) -> Result<(Arc<ReadyAdapter>, Room<'_>), LoadError> {
        let room = self.make_room((self.packer.size)(weights) + beside)?;
        let packed = (self.packer.pack)(weights, throttle).map_err(|source| {
            failed(AdapterError::Pack {
                folder: folder.to_owned(),
                source: Box::new(source),
            })
        })?;
        Ok((Arc::new(packed), room))
    }

    /// Applies the result of a job in one step, and sends it to everyone who waits for it.
    pub(super) fn complete(&self, job: Job, loaded: Result<Loaded, LoadError>) {
        match &loaded {
            Ok(loaded) => {
                tracing::info!(adapter = job.name, hash = %loaded.hash, "an adapter was loaded");
                for warning in &loaded.held.info.warnings {
                    tracing::warn!("adapter `{}`: {warning}", job.name);
                }
            }
            Err(error) => tracing::warn!(adapter = job.name, "an adapter could not be loaded: {error}"),
        }
        let _changing = self.change();
        let (next, loaded) = self.store_next(&job, loaded);
        self.options.on_load.report(job.ordered.elapsed(), loaded.is_ok());
        let mut state = self.lock();
        let State {
            names,
            memory,
            waiting,
            failed,
            ..
        } = &mut *state;
        let promised = loaded.as_ref().map_or(0, |loaded| loaded.promised);
        let Some(named) = names.get_mut(&job.name) else {
            memory.unreserve(promised);
            return;
        };
        let mut files = Fetched::default();
        let outcome = loaded.map(|loaded| {
            let held = memory.insert(loaded.hash, loaded.held, Vec::new());
            files = loaded.files;
            held.entry(job.name.clone(), loaded.hash, job.at)
        });
        // After the insertion, so that sequences cannot take the memory in between.
        memory.unreserve(promised);
        *waiting -= match job.kind {
            Kind::Active(_) => named.end_load(job.id, files, &outcome, &self.options),
            Kind::Candidate => named.end_candidate(job.id, next, &outcome),
        };
        if !named.is_known() {
            names.shift_remove(&job.name);
            if let Err(error) = &outcome {
                let until = Instant::now() + self.options.backoff * FAILURES_KEPT;
                failed.insert(job.name, (error.clone(), until));
            }
        }
        // Dropped under the lock: as long as the outcome exists, the adapter counts as in use.
        drop(outcome);
        let dropped = state.remove_unnamed();
        drop(state);
        drop(dropped);
        self.changed();
    }

    /// Stores a new version before it takes effect. If that fails, the load fails.
    fn store_next(
        &self,
        job: &Job,
        loaded: Result<Loaded, LoadError>,
    ) -> (Option<Next>, Result<Loaded, LoadError>) {
        let loaded = match (job.kind, loaded) {
            (Kind::Candidate, Ok(loaded)) => loaded,
            (Kind::Active(_), Ok(loaded)) => {
                self.store_info(job, &loaded.held.info);
                return (None, Ok(loaded));
            }
            (_, loaded) => return (None, loaded),
        };
        let next = {
            let state = self.lock();
            let named = state.names.get(&job.name);
            named.and_then(|named| {
                Some((
                    named.next(job.id, loaded.hash, &loaded.files, &loaded.held.info)?,
                    named.record.stored,
                ))
            })
        };
        let (Some((next, true)), Some(storage)) = (&next, &self.storage) else {
            return (next.map(|(next, _)| next), Ok(loaded));
        };
        let version = next.version.catalogued(loaded.hash);
        let catalogue = &storage.catalogue;
        match catalogue.add(&job.name, next.pinned, &version, next.oldest, &next.settings) {
            Ok(()) => (Some(next.clone()), Ok(loaded)),
            Err(error) => {
                self.lock().memory.unreserve(loaded.promised);
                (None, Err(LoadError::Store(Arc::new(error))))
            }
        }
    }
}

impl Inner {
    /// Stores the facts about a version if they have changed. They are only shown to people, so a
    /// failure does not fail the load.
    fn store_info(&self, job: &Job, info: &AdapterInfo) {
        let number = {
            let state = self.lock();
            let named = state.names.get(&job.name).filter(|named| named.record.stored);
            named.and_then(|named| named.changed_info(job.id, info))
        };
        if let (Some(number), Some(storage)) = (number, &self.storage)
            && let Err(error) = storage.catalogue.set_info(&job.name, number, info)
        {
            tracing::warn!(
                adapter = job.name,
                "the facts about the adapter were not stored: {error}"
            );
        }
    }
}

/// Checks that the files in `folder` still have the hash `hash`.
pub(super) fn check_files(folder: &Path, hash: AdapterHash) -> Result<(), AdapterError> {
    check(&AdapterFiles::read(folder, &Throttle::NONE)?, hash)
}

/// Checks that `files` have the hash `known`.
pub(super) fn check(files: &AdapterFiles, known: AdapterHash) -> Result<(), AdapterError> {
    match files.hash == known {
        true => Ok(()),
        false => Err(AdapterError::Changed {
            folder: files.folder.clone(),
            known: known.to_string(),
            found: files.hash.to_string(),
        }),
    }
}

/// Reads the adapter's files in `folder`.
pub(super) fn read(folder: &Path, throttle: &Throttle) -> Result<AdapterFiles, LoadError> {
    AdapterFiles::read(folder, throttle).map_err(|error| failed(error.into()))
}

/// Parses an adapter's files and checks them against the base.
pub(super) fn parse(
    files: AdapterFiles,
    base: &BaseShape,
    throttle: &Throttle,
) -> Result<AdapterFile, LoadError> {
    files.parse(base, throttle).map_err(|error| failed(error.into()))
}

//! The threads that read, check and pack adapters.

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

/// How long the failure of a name that is forgotten is remembered, in first back-offs.
const FORGET: u32 = 10;

/// After so long without a load, memory that loading took is given back to the system.
const REST: Duration = Duration::from_secs(1);

/// How far loading steps back, from 0 to 19: with 19 it hardly gets on beside 32 streams, with 0
/// steps notice it.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// Starts `count` threads that take jobs from `inbox`. They end when the registry does.
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
    step_back();
    let watched = Weak::clone(registry);
    let throttle = Throttle::new(move || {
        watched
            .upgrade()
            .is_some_and(|registry| registry.options.is_busy.ask())
    });
    // Reading and packing take several times what stays.
    let mut has_left_overs = false;
    loop {
        let inbox = inbox.lock().unwrap_or_else(PoisonError::into_inner);
        let task = match has_left_overs {
            true => inbox.recv_timeout(REST),
            false => inbox.recv().map_err(RecvTimeoutError::from),
        };
        drop(inbox);
        if let Err(RecvTimeoutError::Timeout) = task {
            return_freed();
            has_left_overs = false;
            continue;
        }
        let (Ok(task), Some(registry)) = (task, registry.upgrade()) else {
            return;
        };
        has_left_overs = true;
        throttle.restart();
        let loaded = catch_unwind(AssertUnwindSafe(|| match &task {
            Task::Load(job) => registry.load(job, &throttle),
            Task::Merge(recipe) => registry.make(recipe, &throttle),
        }));
        let loaded = loaded.unwrap_or(Err(LoadError::Panicked));
        match task {
            Task::Load(job) => registry.settle(job, loaded),
            Task::Merge(recipe) => registry.settle_merge(recipe, loaded),
        }
    }
}

/// Lets threads that compute steps go first: they wait for each other, so one that is interrupted
/// holds all of them up.
fn step_back() {
    // Of this thread alone, which is what 0 means on Linux. Refused, loading is only less
    // considerate.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::debug!(%error, "loading adapters keeps its priority");
    }
}

impl Inner {
    /// Reads, checks and packs an adapter. The files of one that is to be stored are kept.
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

    /// Checks and packs an adapter, unless it is in memory already.
    fn prepare(
        &self,
        job: &Job,
        files: AdapterFiles,
        folder: PathBuf,
        throttle: &Throttle,
    ) -> Result<Loaded, LoadError> {
        let hash = files.hash;
        let from = files.folder.clone();
        if let Some(resident) = self.lock().memory.using(hash) {
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

    /// Packs an adapter once there is memory for it and for what is kept `beside` its weights.
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

    /// Puts what a job brought where it belongs, in one move, and tells those who wait for it.
    pub(super) fn settle(&self, job: Job, loaded: Result<Loaded, LoadError>) {
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
        self.options.on_load.tell(job.ordered.elapsed(), loaded.is_ok());
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
        // Afterwards: sequences must not take it in between.
        memory.unreserve(promised);
        *waiting -= match job.kind {
            Kind::Active(_) => named.end_load(job.id, files, &outcome, &self.options),
            Kind::Candidate => named.end_candidate(job.id, next, &outcome),
        };
        if !named.is_known() {
            names.shift_remove(&job.name);
            if let Err(error) = &outcome {
                let until = Instant::now() + self.options.backoff * FORGET;
                failed.insert(job.name, (error.clone(), until));
            }
        }
        // While nobody can look: what was loaded counts as used for as long as it is held here.
        drop(outcome);
        let dropped = state.drop_unnamed();
        drop(state);
        drop(dropped);
        self.changed();
    }

    /// Stores a new version, which is then as good as there. If that fails, so does the load.
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
    /// Stores what was found of a version, if that is new. It is for people alone, so a failure is
    /// no reason not to serve it.
    fn store_info(&self, job: &Job, info: &AdapterInfo) {
        let number = {
            let state = self.lock();
            let named = state.names.get(&job.name).filter(|named| named.record.stored);
            named.and_then(|named| named.news(job.id, info))
        };
        if let (Some(number), Some(storage)) = (number, &self.storage)
            && let Err(error) = storage.catalogue.set_info(&job.name, number, info)
        {
            tracing::warn!(adapter = job.name, "what is known of it was not stored: {error}");
        }
    }
}

/// Whether the files in `folder` are still those of `hash`.
pub(super) fn check_files(folder: &Path, hash: AdapterHash) -> Result<(), AdapterError> {
    check(&AdapterFiles::read(folder, &Throttle::NONE)?, hash)
}

/// Whether `files` are those of `known`.
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

/// Reads the adapter in `folder`.
pub(super) fn read(folder: &Path, throttle: &Throttle) -> Result<AdapterFiles, LoadError> {
    AdapterFiles::read(folder, throttle).map_err(|error| failed(error.into()))
}

/// Checks an adapter against the base.
pub(super) fn parse(
    files: AdapterFiles,
    base: &BaseShape,
    throttle: &Throttle,
) -> Result<AdapterFile, LoadError> {
    files.parse(base, throttle).map_err(|error| failed(error.into()))
}

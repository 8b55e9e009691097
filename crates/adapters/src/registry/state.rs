//! What a name stands for, and what is under way for it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use multigraft_model::AdapterHash;
use serde_json::{Map, Value};
use tokio::sync::oneshot;

use super::Settings;
use super::limits::AdapterLimits;
use super::memory::Memory;
use super::store::{StoredName, StoredVersion};
use super::{
    ActivateError, AddedBy, Adding, Entry, Listed, ListedVersion, LoadError, Outcome, Phase, Progress,
    RegistryOptions, Residency,
};
use crate::info::AdapterInfo;
use crate::source::{Fetched, Reference};

/// Versions of a name that are remembered.
const VERSIONS: usize = 16;

pub(super) type Told = oneshot::Sender<Outcome>;

/// A name.
#[derive(Debug, Default)]
pub(super) struct Named {
    /// The newest last; none while the first is being loaded.
    versions: Vec<Version>,
    /// Index of the one that requests get.
    active: usize,
    /// Versions that are being loaded: the active one, or some that were.
    loads: Vec<Load>,
    /// Why the active version could not be loaded last time.
    failure: Option<Failure>,
    /// A new version that is being loaded.
    candidate: Option<Candidate>,
    pub(super) pinned: bool,
    /// Whether it is in the store.
    pub(super) stored: bool,
    pub(super) defaults: Option<Arc<Map<String, Value>>>,
    /// `None` are the usual ones.
    pub(super) limits: Option<Box<AdapterLimits>>,
    requests: u64,
    last_used: Option<SystemTime>,
}

/// What a name stands for, or stood.
#[derive(Clone, Debug)]
pub(super) struct Version {
    /// Where it came from.
    pub(super) source: Reference,
    /// What brings these files from there again.
    pub(super) revision: Option<String>,
    /// Where its files are read from, if they were brought here.
    pub(super) folder: Option<PathBuf>,
    /// `None` until its files are read for the first time.
    pub(super) hash: Option<AdapterHash>,
    /// Which of the name's versions it is, counted from the first.
    pub(super) number: u32,
    added: SystemTime,
    /// Who added it; `None` if that was not written down.
    added_by: Option<AddedBy>,
    /// What was found when it was loaded last.
    pub(super) info: Option<Arc<AdapterInfo>>,
}

impl Version {
    pub(super) fn new(source: Reference, hash: Option<AdapterHash>, by: AddedBy) -> Self {
        let folder = match &source {
            Reference::Folder(folder) | Reference::Upload { folder } => Some(folder.clone()),
            Reference::Hub { .. } | Reference::Url(_) => None,
        };
        Self {
            source,
            revision: None,
            folder,
            hash,
            number: 0,
            added: SystemTime::now(),
            added_by: Some(by),
            info: None,
        }
    }
}

impl Version {
    /// For the store.
    pub(super) fn stored(&self, hash: AdapterHash) -> StoredVersion {
        StoredVersion {
            number: self.number,
            hash,
            source: self.source.clone(),
            revision: self.revision.clone(),
            added: self.added,
            added_by: self.added_by,
            info: self.info.clone(),
        }
    }
}

/// What becomes of a name when a new version is there.
#[derive(Clone, Debug)]
pub(super) struct Next {
    pub(super) version: Version,
    pub(super) pinned: bool,
    /// Number of the oldest version that is remembered beside it.
    pub(super) oldest: u32,
    pub(super) settings: Settings,
}

/// Loading a version that is known.
#[derive(Debug)]
struct Load {
    id: u64,
    /// Of the version.
    number: u32,
    /// How far its files have come, while they are brought here.
    fetching: Option<Progress>,
    waiting: Vec<Told>,
}

/// Loads of the active version that failed, one after the other.
#[derive(Debug)]
struct Failure {
    error: LoadError,
    attempts: u32,
    /// When the next may be tried.
    next: Instant,
}

/// Loading a new version.
#[derive(Debug)]
pub(super) struct Candidate {
    id: u64,
    at: Reference,
    /// Whether its files may have been read.
    begun: bool,
    /// How far they have come, while they are brought here.
    fetching: Option<Progress>,
    pinned: Option<bool>,
    by: AddedBy,
    settings: Settings,
    /// Who waits for it to be added.
    told: Vec<Told>,
    /// Requests that have no version to go on with.
    waiting: Vec<Told>,
}

impl Named {
    pub(super) fn of(version: Version) -> Self {
        Self {
            versions: vec![version],
            ..Self::default()
        }
    }

    /// One whose first version is about to be loaded.
    pub(super) fn begun(stored: bool) -> Self {
        Self {
            stored,
            ..Self::default()
        }
    }

    /// As it was stored; `folder` says where the files of a hash are. `None` if its active version is not among them.
    pub(super) fn restored(stored: StoredName, folder: impl Fn(AdapterHash) -> PathBuf) -> Option<Self> {
        let versions = stored.versions.into_iter().map(|version| Version {
            folder: Some(folder(version.hash)),
            source: version.source,
            revision: version.revision,
            hash: Some(version.hash),
            number: version.number,
            added: version.added,
            added_by: version.added_by,
            info: version.info,
        });
        let versions: Vec<Version> = versions.collect();
        let active = versions
            .iter()
            .position(|version| version.number == stored.active)?;
        Some(Self {
            active,
            versions,
            pinned: stored.pinned,
            defaults: stored.defaults.map(Arc::new),
            limits: stored.limits.map(Box::new),
            stored: true,
            ..Self::default()
        })
    }

    /// Sets what holds for it.
    pub(super) fn set(&mut self, settings: Settings) {
        if let Some(defaults) = settings.defaults {
            self.defaults = Some(defaults)
                .filter(|defaults| !defaults.is_empty())
                .map(Arc::new);
        }
        if let Some(limits) = settings.limits {
            self.limits = Some(limits)
                .filter(|limits| *limits != AdapterLimits::default())
                .map(Box::new);
        }
    }

    /// What its requests may take.
    pub(super) fn limits(&self) -> AdapterLimits {
        self.limits.as_deref().copied().unwrap_or_default()
    }

    /// Counts a request.
    pub(super) fn used(&mut self) {
        self.requests += 1;
        self.last_used = Some(SystemTime::now());
    }

    fn active(&self) -> Option<&Version> {
        self.versions.get(self.active)
    }

    pub(super) fn active_hash(&self) -> Option<AdapterHash> {
        self.active().and_then(|version| version.hash)
    }

    /// Where its files come from. A name without versions has a candidate.
    pub(super) fn at(&self) -> Option<&Reference> {
        let candidate = self.candidate.as_ref().map(|candidate| &candidate.at);
        self.active().map(|version| &version.source).or(candidate)
    }

    /// The version with the files of `hash`, if there is one.
    pub(super) fn version_of(&self, hash: AdapterHash) -> Option<&Version> {
        let mut versions = self.versions.iter();
        versions.find(|version| version.hash == Some(hash))
    }

    /// The active version, if it is in memory.
    pub(super) fn entry(&self, name: &str, memory: &mut Memory) -> Option<Entry> {
        let version = self.active()?;
        let hash = version.hash?;
        let resident = memory.using(hash)?;
        let held = resident.held.clone();
        Some(held.entry(name.to_owned(), hash, version.source.clone()))
    }

    /// Why the active version is not tried now.
    pub(super) fn backed_off(&self, now: Instant) -> Option<LoadError> {
        let failure = self.failure.as_ref().filter(|failure| failure.next > now)?;
        Some(LoadError::BackedOff {
            error: Box::new(failure.error.clone()),
            attempts: failure.attempts,
            retry_after: failure.next - now,
        })
    }

    /// Lets a request wait for what is under way. If nothing is, it returns the version to load; that load is then
    /// number `loads`, which is counted up.
    pub(super) fn wait(&mut self, request: Told, loads: &mut u64) -> Option<Version> {
        let Some(version) = self.versions.get(self.active) else {
            // A name without versions has a candidate.
            self.candidate.as_mut()?.waiting.push(request);
            return None;
        };
        let number = version.number;
        if let Some(load) = self.loads.iter_mut().find(|load| load.number == number) {
            load.waiting.push(request);
            return None;
        }
        *loads += 1;
        self.loads.push(Load {
            id: *loads,
            number,
            fetching: None,
            waiting: vec![request],
        });
        Some(version.clone())
    }

    /// Whether there is a candidate: one from `at` whose files are yet to be read; otherwise where it is from.
    pub(super) fn candidate_from(&self, at: &Reference) -> Option<Result<(), Reference>> {
        let candidate = self.candidate.as_ref()?;
        Some(match candidate.at == *at && !candidate.begun {
            true => Ok(()),
            false => Err(candidate.at.clone()),
        })
    }

    /// Load number `id` begins to read files.
    pub(super) fn begins(&mut self, id: u64) {
        if let Some(candidate) = self.candidate.as_mut().filter(|candidate| candidate.id == id) {
            candidate.begun = true;
        }
    }

    /// The files of load number `id` are being brought here, or are here.
    pub(super) fn fetches(&mut self, id: u64, progress: Option<Progress>) {
        if let Some(candidate) = self.candidate.as_mut().filter(|candidate| candidate.id == id) {
            candidate.fetching = progress;
        }
        if let Some(load) = self.loads.iter_mut().find(|load| load.id == id) {
            load.fetching = progress;
        }
    }

    /// What is under way or, if nothing is, where the active version is.
    pub(super) fn phase(&self, memory: &Memory) -> Phase {
        let candidate = self.candidate.as_ref().map(|candidate| candidate.fetching);
        let load = self.active().and_then(|active| {
            let mut loads = self.loads.iter();
            loads.find(|load| load.number == active.number)
        });
        match candidate.or(load.map(|load| load.fetching)) {
            Some(Some(progress)) => return Phase::Fetching(progress),
            Some(None) => return Phase::Loading,
            None => {}
        }
        let is_resident = self.active_hash().is_some_and(|hash| memory.get(hash).is_some());
        match &self.failure {
            _ if is_resident => Phase::Resident,
            Some(failure) => Phase::Failed(failure.error.to_string()),
            None => Phase::Cold,
        }
    }

    /// Forgets requests that wait no more; returns how many.
    pub(super) fn forget_gone(&mut self) -> usize {
        let candidate = self.candidate.as_mut().map(|candidate| &mut candidate.waiting);
        let queues = self
            .loads
            .iter_mut()
            .map(|load| &mut load.waiting)
            .chain(candidate);
        queues
            .map(|waiting| {
                let before = waiting.len();
                waiting.retain(|told| !told.is_closed());
                before - waiting.len()
            })
            .sum()
    }

    /// Begins to load a new version, as load number `id`.
    pub(super) fn begin_candidate(&mut self, id: u64, at: &Reference, adding: Adding, told: Told) {
        self.candidate = Some(Candidate {
            id,
            at: at.clone(),
            begun: false,
            fetching: None,
            pinned: adding.pinned,
            by: adding.by,
            settings: adding.settings,
            told: vec![told],
            waiting: Vec::new(),
        });
    }

    /// Somebody else adds the same, while it is being loaded.
    pub(super) fn join_candidate(&mut self, adding: Adding, told: Told) {
        if let Some(candidate) = &mut self.candidate {
            candidate.told.push(told);
            candidate.pinned = adding.pinned.or(candidate.pinned);
            let Settings { defaults, limits } = adding.settings;
            let settings = &mut candidate.settings;
            settings.defaults = defaults.or(settings.defaults.take());
            settings.limits = limits.or(settings.limits.take());
        }
    }

    /// Load number `id` of a known version has ended; its files were brought to `files`. Returns how many waited for it.
    pub(super) fn end_load(
        &mut self,
        id: u64,
        files: Fetched,
        outcome: &Outcome,
        options: &RegistryOptions,
    ) -> usize {
        let Some(index) = self.loads.iter().position(|load| load.id == id) else {
            return 0;
        };
        let load = self.loads.swap_remove(index);
        let version = self
            .versions
            .iter_mut()
            .position(|version| version.number == load.number);
        if let (Some(index), Ok(entry)) = (version, outcome) {
            let version = &mut self.versions[index];
            version.hash = Some(entry.hash);
            version.folder = Some(files.folder);
            version.revision = files.revision;
            version.info = Some(Arc::clone(&entry.info));
        }
        if version == Some(self.active) {
            match outcome {
                Ok(_) => self.failure = None,
                Err(error) => self.fail(error, options),
            }
        }
        let waited = load.waiting.len();
        tell(load.waiting, outcome);
        waited
    }

    fn fail(&mut self, error: &LoadError, options: &RegistryOptions) {
        // That there is no room says nothing of the adapter.
        let attempts = match error {
            LoadError::NoRoom { .. } | LoadError::NoBudget { .. } => 1,
            _ => 1 + self.failure.as_ref().map_or(0, |failure| failure.attempts),
        };
        let backoff = options.backoff.saturating_mul(1 << (attempts - 1).min(16));
        self.failure = Some(Failure {
            error: error.clone(),
            attempts,
            next: Instant::now() + backoff.min(options.longest_backoff),
        });
    }

    /// The version that load number `id` is of, if what was found of it is not known yet.
    pub(super) fn news(&self, id: u64, info: &AdapterInfo) -> Option<u32> {
        let load = self.loads.iter().find(|load| load.id == id)?;
        let mut versions = self.versions.iter();
        let version = versions.find(|version| version.number == load.number)?;
        (version.info.as_deref() != Some(info)).then_some(load.number)
    }

    /// What becomes of the name when load number `id` has brought a version, unless that was given up meanwhile.
    pub(super) fn next(
        &self,
        id: u64,
        hash: AdapterHash,
        files: &Fetched,
        info: &Arc<AdapterInfo>,
    ) -> Option<Next> {
        let candidate = self.candidate.as_ref().filter(|candidate| candidate.id == id)?;
        let mut version = Version::new(candidate.at.clone(), Some(hash), candidate.by);
        version.info = Some(Arc::clone(info));
        version.folder = Some(files.folder.clone());
        version.revision.clone_from(&files.revision);
        // The same files as the active version's are no new one.
        let same = self.active().filter(|active| active.hash == Some(hash));
        let first_kept = match same {
            Some(active) => {
                version.number = active.number;
                0
            }
            None => {
                version.number = self.versions.last().map_or(0, |last| last.number + 1);
                self.versions.len().saturating_sub(VERSIONS - 1)
            }
        };
        let oldest = self.versions.get(first_kept).map_or(0, |oldest| oldest.number);
        Some(Next {
            version,
            pinned: candidate.pinned.unwrap_or(self.pinned),
            oldest,
            settings: candidate.settings.clone(),
        })
    }

    /// Load number `id` of a new version has ended; if it did well, `next` is the active version from now on. Returns how
    /// many requests waited for it.
    pub(super) fn end_candidate(&mut self, id: u64, next: Option<Next>, outcome: &Outcome) -> usize {
        let Some(candidate) = self.candidate.take_if(|candidate| candidate.id == id) else {
            return 0;
        };
        if let Some(next) = next {
            let Next {
                version,
                pinned,
                oldest,
                settings,
            } = next;
            self.set(settings);
            self.failure = None;
            self.pinned = pinned;
            let number = version.number;
            self.versions
                .retain(|version| version.number >= oldest && version.number != number);
            let at = self.versions.partition_point(|version| version.number < number);
            self.versions.insert(at, version);
            self.active = at;
        }
        let waited = candidate.waiting.len();
        tell(candidate.told.into_iter().chain(candidate.waiting), outcome);
        waited
    }

    /// Whether what requests get is being loaded.
    fn is_loading(&self) -> bool {
        self.active()
            .is_none_or(|version| self.loads.iter().any(|load| load.number == version.number))
    }

    /// Whether it stands for something, or stood.
    pub(super) fn has_versions(&self) -> bool {
        !self.versions.is_empty()
    }

    /// Whether it has versions, or may have some.
    pub(super) fn is_known(&self) -> bool {
        !self.versions.is_empty() || self.candidate.is_some()
    }

    /// The version with `hash`, or the one before the active one, and its hash.
    pub(super) fn find(
        &self,
        name: &str,
        hash: Option<AdapterHash>,
    ) -> Result<(Version, AdapterHash), ActivateError> {
        let version = match hash {
            Some(hash) => {
                let version = self.versions.iter().rfind(|version| version.hash == Some(hash));
                version.ok_or_else(|| ActivateError::NoVersion {
                    name: name.to_owned(),
                    hash: hash.to_string(),
                })?
            }
            None => {
                let earlier = self
                    .active
                    .checked_sub(1)
                    .and_then(|index| self.versions.get(index));
                earlier.ok_or_else(|| ActivateError::NoEarlier(name.to_owned()))?
            }
        };
        let hash = version
            .hash
            .ok_or_else(|| ActivateError::NoEarlier(name.to_owned()))?;
        Ok((version.clone(), hash))
    }

    /// Makes version `number` the active one.
    pub(super) fn activate(&mut self, number: u32) {
        if let Some(index) = self.versions.iter().position(|version| version.number == number)
            && index != self.active
        {
            self.active = index;
            self.failure = None;
        }
    }

    /// Ends everything under way. Returns how many requests waited.
    pub(super) fn tell_all(self, error: &LoadError) -> usize {
        let mut waiting: Vec<Told> = self.loads.into_iter().flat_map(|load| load.waiting).collect();
        let mut told = Vec::new();
        if let Some(candidate) = self.candidate {
            waiting.extend(candidate.waiting);
            told = candidate.told;
        }
        let waited = waiting.len();
        tell(waiting.into_iter().chain(told), &Err(error.clone()));
        waited
    }

    pub(super) fn listed(&self, name: &str, memory: &Memory, now: Instant) -> Listed {
        let resident = self.active_hash().and_then(|hash| memory.get(hash));
        let residency = match (resident, &self.failure) {
            (Some(resident), _) => Residency::Resident {
                bytes: resident.held.packed.bytes(),
                info: Arc::clone(&resident.held.info),
            },
            _ if self.is_loading() => Residency::Loading,
            (None, Some(failure)) => Residency::Failed {
                error: failure.error.clone(),
                retry_after: failure.next.saturating_duration_since(now),
            },
            (None, None) => Residency::Cold,
        };
        let versions = self.versions.iter().enumerate();
        let versions = versions.map(|(index, version)| ListedVersion {
            hash: version.hash,
            source: version.source.clone(),
            revision: version.revision.clone(),
            added: version.added,
            added_by: version.added_by,
            info: version.info.clone(),
            active: index == self.active,
        });
        let progress = match self.phase(memory) {
            Phase::Fetching(progress) => Some(progress),
            _ => None,
        };
        Listed {
            name: name.to_owned(),
            progress,
            versions: versions.collect(),
            residency,
            stored: self.stored,
            replacing: self.candidate.is_some() && !self.versions.is_empty(),
            pinned: self.pinned,
            defaults: self.defaults.clone(),
            limits: self.limits(),
            requests: self.requests,
            last_used: self.last_used,
        }
    }
}

/// Tells everybody. Those who went away do not matter.
fn tell(told: impl IntoIterator<Item = Told>, outcome: &Outcome) {
    for told in told {
        let _ = told.send(outcome.clone());
    }
}

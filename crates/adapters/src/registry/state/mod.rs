//! What a name stands for, and what is under way for it.

mod loads;

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
    ActivateError, AddedBy, Entry, Listed, ListedVersion, LoadError, Outcome, Phase, Progress, Residency,
};
use crate::info::AdapterInfo;
use crate::source::Reference;

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

    /// As it was stored; `folder` says where the files of a hash are. `None` if its active version
    /// is not among them.
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

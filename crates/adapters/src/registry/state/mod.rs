//! The state of a name: what servers with the same catalogue agree on, and what this process does.

mod activity;
mod record;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use multigraft_model::AdapterHash;
use multigraft_peft::AdapterInfo;
use multigraft_sources::{Fetched, Reference};

pub(super) use activity::{Activity, Reply};
pub(super) use record::{Next, Record, Version};

use super::catalogue::CataloguedName;
use super::entry::{Entry, Outcome};
use super::error::LoadError;
use super::listed::{Listed, ListedVersion, Phase, Residency};
use super::memory::Memory;
use super::options::RegistryOptions;
use activity::{Load, send};

/// A name that is served.
#[derive(Debug, Default)]
pub(super) struct ServedName {
    /// What servers that share a catalogue agree on.
    pub(super) record: Record,
    /// What this process does.
    pub(super) activity: Activity,
}

impl ServedName {
    /// A name with one version that is not stored.
    pub(super) fn of(version: Version) -> Self {
        Self {
            record: Record::of(version),
            ..Self::default()
        }
    }

    /// A name whose first version is about to be loaded.
    pub(super) fn loading(stored: bool) -> Self {
        let record = Record {
            stored,
            ..Record::default()
        };
        Self {
            record,
            ..Self::default()
        }
    }

    /// A name from the catalogue. `folder` returns the folder of a hash. `None` if the active
    /// version is missing.
    pub(super) fn restored(stored: CataloguedName, folder: impl Fn(AdapterHash) -> PathBuf) -> Option<Self> {
        Some(Self {
            record: Record::restored(stored, folder)?,
            ..Self::default()
        })
    }

    /// The source of the active version, or of the candidate if there is no version.
    pub(super) fn at(&self) -> Option<&Reference> {
        let candidate = self.activity.candidate.as_ref().map(|candidate| &candidate.at);
        self.record.active().map(|version| &version.source).or(candidate)
    }

    /// The active version, if it is in memory.
    pub(super) fn entry(&self, name: &str, memory: &mut Memory) -> Option<Entry> {
        let version = self.record.active()?;
        let hash = version.hash?;
        let resident = memory.touch(hash)?;
        let held = resident.held.clone();
        Some(held.entry(name.to_owned(), hash, version.source.clone()))
    }

    /// Whether it has versions or may get one.
    pub(super) fn is_known(&self) -> bool {
        self.record.has_versions() || self.activity.candidate.is_some()
    }

    /// Makes version `number` the active one.
    pub(super) fn activate(&mut self, number: u32) {
        if self.record.activate(number) {
            self.activity.failure = None;
        }
    }

    /// Adds a request to the load of the active version. If there is none, counts `loads` up,
    /// starts the load with that number and returns the version to load.
    pub(super) fn wait(&mut self, request: Reply, loads: &mut u64) -> Option<Version> {
        let Some(version) = self.record.active() else {
            // A name without versions has a candidate.
            self.activity.candidate.as_mut()?.waiting.push(request);
            return None;
        };
        let number = version.number;
        let mut under_way = self.activity.loads.iter_mut();
        if let Some(load) = under_way.find(|load| load.number == number) {
            load.waiting.push(request);
            return None;
        }
        *loads += 1;
        self.activity.loads.push(Load {
            id: *loads,
            number,
            fetching: None,
            waiting: vec![request],
        });
        Some(version.clone())
    }

    /// Ends load `id` of a known version, whose files are in `files`. Returns the number of
    /// requests that were waiting.
    pub(super) fn end_load(
        &mut self,
        id: u64,
        files: Fetched,
        outcome: &Outcome,
        options: &RegistryOptions,
    ) -> usize {
        let Some(index) = self.activity.loads.iter().position(|load| load.id == id) else {
            return 0;
        };
        let load = self.activity.loads.swap_remove(index);
        let version = self
            .record
            .versions
            .iter_mut()
            .position(|version| version.number == load.number);
        if let (Some(index), Ok(entry)) = (version, outcome) {
            let version = &mut self.record.versions[index];
            version.hash = Some(entry.hash);
            version.folder = Some(files.folder);
            version.revision = files.revision;
            version.info = Some(Arc::clone(&entry.info));
        }
        if version == Some(self.record.active) {
            match outcome {
                Ok(_) => self.activity.failure = None,
                Err(error) => self.activity.fail(error, options),
            }
        }
        let waited = load.waiting.len();
        send(load.waiting, outcome);
        waited
    }

    /// The number of the version that load `id` is of, if `info` differs from the known facts.
    pub(super) fn changed_info(&self, id: u64, info: &AdapterInfo) -> Option<u32> {
        let load = self.activity.loads.iter().find(|load| load.id == id)?;
        let mut versions = self.record.versions.iter();
        let version = versions.find(|version| version.number == load.number)?;
        (version.info.as_deref() != Some(info)).then_some(load.number)
    }

    /// The change that load `id` makes to the name. `None` if the load was given up.
    pub(super) fn next(
        &self,
        id: u64,
        hash: AdapterHash,
        files: &Fetched,
        info: &Arc<AdapterInfo>,
    ) -> Option<Next> {
        let candidate = self.activity.candidate.as_ref();
        let candidate = candidate.filter(|candidate| candidate.id == id)?;
        let (number, oldest) = self.record.numbers_of(hash);
        let mut version = Version::new(candidate.at.clone(), Some(hash), candidate.by);
        version.number = number;
        version.info = Some(Arc::clone(info));
        version.folder = Some(files.folder.clone());
        version.revision.clone_from(&files.revision);
        Some(Next {
            version,
            pinned: candidate.pinned.unwrap_or(self.record.pinned),
            oldest,
            settings: candidate.settings.clone(),
        })
    }

    /// Ends load `id` of a new version. If the load succeeded, `next` becomes the active version.
    /// Returns the number of requests that were waiting.
    pub(super) fn end_candidate(&mut self, id: u64, next: Option<Next>, outcome: &Outcome) -> usize {
        let candidate = &mut self.activity.candidate;
        let Some(candidate) = candidate.take_if(|candidate| candidate.id == id) else {
            return 0;
        };
        if let Some(next) = next {
            self.record.take(next);
            self.activity.failure = None;
        }
        let waited = candidate.waiting.len();
        send(candidate.replies.into_iter().chain(candidate.waiting), outcome);
        waited
    }

    /// The current activity or, if there is none, where the active version is.
    pub(super) fn phase(&self, memory: &Memory) -> Phase {
        let candidate = self.activity.candidate.as_ref();
        let load = self
            .record
            .active()
            .and_then(|active| self.activity.load_of(active.number));
        let fetching = candidate.map(|candidate| candidate.fetching);
        match fetching.or(load.map(|load| load.fetching)) {
            Some(Some(progress)) => return Phase::Fetching(progress),
            Some(None) => return Phase::Loading,
            None => {}
        }
        let hash = self.record.active_hash();
        let is_resident = hash.is_some_and(|hash| memory.get(hash).is_some());
        match &self.activity.failure {
            _ if is_resident => Phase::Resident,
            Some(failure) => Phase::Failed(failure.error.to_string()),
            None => Phase::Cold,
        }
    }

    /// Whether the active version is being loaded.
    fn is_loading(&self) -> bool {
        let active = self.record.active();
        active.is_none_or(|version| self.activity.load_of(version.number).is_some())
    }

    /// The state for listings.
    pub(super) fn listed(&self, name: &str, memory: &Memory, now: Instant) -> Listed {
        let Self { record, activity } = self;
        let resident = record.active_hash().and_then(|hash| memory.get(hash));
        let residency = match (resident, &activity.failure) {
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
        let versions = record.versions.iter().enumerate();
        let versions = versions.map(|(index, version)| ListedVersion {
            hash: version.hash,
            source: version.source.clone(),
            revision: version.revision.clone(),
            added: version.added,
            added_by: version.added_by,
            info: version.info.clone(),
            active: index == record.active,
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
            stored: record.stored,
            replacing: activity.candidate.is_some() && record.has_versions(),
            pinned: record.pinned,
            defaults: record.defaults.clone(),
            limits: record.limits(),
            requests: activity.requests,
            last_used: activity.last_used,
        }
    }

    /// Ends all loads with `error`. Returns the number of requests that were waiting.
    pub(super) fn end_all(self, error: &LoadError) -> usize {
        self.activity.end_all(error)
    }
}

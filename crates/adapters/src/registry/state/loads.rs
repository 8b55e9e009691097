//! What is under way for a name: loads of its versions, and of a new one.

use std::sync::Arc;
use std::time::Instant;

use multigraft_model::AdapterHash;

use super::{Candidate, Failure, Load, Named, Next, Told, VERSIONS, Version};
use crate::info::AdapterInfo;
use crate::registry::{Adding, LoadError, Outcome, Progress, RegistryOptions, Settings};
use crate::source::{Fetched, Reference};

impl Named {
    /// Lets a request wait for what is under way. If nothing is, it returns the version to load;
    /// that load is then number `loads`, which is counted up.
    pub(in crate::registry) fn wait(&mut self, request: Told, loads: &mut u64) -> Option<Version> {
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

    /// Whether there is a candidate: one from `at` whose files are yet to be read; otherwise where
    /// it is from.
    pub(in crate::registry) fn candidate_from(&self, at: &Reference) -> Option<Result<(), Reference>> {
        let candidate = self.candidate.as_ref()?;
        Some(match candidate.at == *at && !candidate.begun {
            true => Ok(()),
            false => Err(candidate.at.clone()),
        })
    }

    /// Load number `id` begins to read files.
    pub(in crate::registry) fn begins(&mut self, id: u64) {
        if let Some(candidate) = self.candidate.as_mut().filter(|candidate| candidate.id == id) {
            candidate.begun = true;
        }
    }

    /// The files of load number `id` are being brought here, or are here.
    pub(in crate::registry) fn fetches(&mut self, id: u64, progress: Option<Progress>) {
        if let Some(candidate) = self.candidate.as_mut().filter(|candidate| candidate.id == id) {
            candidate.fetching = progress;
        }
        if let Some(load) = self.loads.iter_mut().find(|load| load.id == id) {
            load.fetching = progress;
        }
    }

    /// Forgets requests that wait no more; returns how many.
    pub(in crate::registry) fn forget_gone(&mut self) -> usize {
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
    pub(in crate::registry) fn begin_candidate(
        &mut self,
        id: u64,
        at: &Reference,
        adding: Adding,
        told: Told,
    ) {
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
    pub(in crate::registry) fn join_candidate(&mut self, adding: Adding, told: Told) {
        if let Some(candidate) = &mut self.candidate {
            candidate.told.push(told);
            candidate.pinned = adding.pinned.or(candidate.pinned);
            let Settings { defaults, limits } = adding.settings;
            let settings = &mut candidate.settings;
            settings.defaults = defaults.or(settings.defaults.take());
            settings.limits = limits.or(settings.limits.take());
        }
    }

    /// Load number `id` of a known version has ended; its files were brought to `files`. Returns
    /// how many waited for it.
    pub(in crate::registry) fn end_load(
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
    pub(in crate::registry) fn news(&self, id: u64, info: &AdapterInfo) -> Option<u32> {
        let load = self.loads.iter().find(|load| load.id == id)?;
        let mut versions = self.versions.iter();
        let version = versions.find(|version| version.number == load.number)?;
        (version.info.as_deref() != Some(info)).then_some(load.number)
    }

    /// What becomes of the name when load number `id` has brought a version, unless that was given
    /// up meanwhile.
    pub(in crate::registry) fn next(
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

    /// Load number `id` of a new version has ended; if it did well, `next` is the active version
    /// from now on. Returns how many requests waited for it.
    pub(in crate::registry) fn end_candidate(
        &mut self,
        id: u64,
        next: Option<Next>,
        outcome: &Outcome,
    ) -> usize {
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
    pub(super) fn is_loading(&self) -> bool {
        self.active()
            .is_none_or(|version| self.loads.iter().any(|load| load.number == version.number))
    }

    /// Ends everything under way. Returns how many requests waited.
    pub(in crate::registry) fn tell_all(self, error: &LoadError) -> usize {
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
}

/// Tells everybody. Those who went away do not matter.
fn tell(told: impl IntoIterator<Item = Told>, outcome: &Outcome) {
    for told in told {
        let _ = told.send(outcome.clone());
    }
}

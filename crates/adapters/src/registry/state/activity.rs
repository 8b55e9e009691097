//! What this process does with a name: which of its versions are being loaded, what failed, and how
//! often requests used it. Nothing of it outlives the process, and servers that share a catalogue
//! each have their own.

use std::time::{Instant, SystemTime};

use multigraft_sources::Reference;
use tokio::sync::oneshot;

use crate::registry::added_by::AddedBy;
use crate::registry::entry::{Adding, Outcome};
use crate::registry::error::LoadError;
use crate::registry::listed::Progress;
use crate::registry::options::RegistryOptions;
use crate::registry::settings::Settings;

/// Where a load's outcome is sent to.
pub(in crate::registry) type Reply = oneshot::Sender<Outcome>;

/// Loads, failures and use of a name.
#[derive(Debug, Default)]
pub(in crate::registry) struct Activity {
    /// Versions that are being loaded: the active one, or some that were.
    pub(super) loads: Vec<Load>,
    /// Why the active version could not be loaded last time.
    pub(super) failure: Option<Failure>,
    /// A new version that is being loaded.
    pub(super) candidate: Option<Candidate>,
    /// Requests since the start of the process.
    pub(super) requests: u64,
    pub(super) last_used: Option<SystemTime>,
}

/// Loading a version that is known.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) id: u64,
    /// Of the version.
    pub(super) number: u32,
    /// How far its files have come, while they are brought here.
    pub(super) fetching: Option<Progress>,
    pub(super) waiting: Vec<Reply>,
}

/// Loads of the active version that failed, one after the other.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: LoadError,
    pub(super) attempts: u32,
    /// When the next may be tried.
    pub(super) next: Instant,
}

/// Loading a new version.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) id: u64,
    pub(super) at: Reference,
    /// Whether its files may have been read.
    pub(super) begun: bool,
    /// How far they have come, while they are brought here.
    pub(super) fetching: Option<Progress>,
    pub(super) pinned: Option<bool>,
    pub(super) by: AddedBy,
    pub(super) settings: Settings,
    /// Who waits for it to be added.
    pub(super) replies: Vec<Reply>,
    /// Requests that have no version to go on with.
    pub(super) waiting: Vec<Reply>,
}

impl Activity {
    /// Counts a request.
    pub(in crate::registry) fn used(&mut self) {
        self.requests += 1;
        self.last_used = Some(SystemTime::now());
    }

    /// Why the active version is not tried now.
    pub(in crate::registry) fn backed_off(&self, now: Instant) -> Option<LoadError> {
        let failure = self.failure.as_ref().filter(|failure| failure.next > now)?;
        Some(LoadError::BackedOff {
            error: Box::new(failure.error.clone()),
            attempts: failure.attempts,
            retry_after: failure.next - now,
        })
    }

    /// The load of version `number`, if it is being loaded.
    pub(super) fn load_of(&self, number: u32) -> Option<&Load> {
        self.loads.iter().find(|load| load.number == number)
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
                waiting.retain(|reply| !reply.is_closed());
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
        reply: Reply,
    ) {
        self.candidate = Some(Candidate {
            id,
            at: at.clone(),
            begun: false,
            fetching: None,
            pinned: adding.pinned,
            by: adding.by,
            settings: adding.settings,
            replies: vec![reply],
            waiting: Vec::new(),
        });
    }

    /// Somebody else adds the same, while it is being loaded.
    pub(in crate::registry) fn join_candidate(&mut self, adding: Adding, reply: Reply) {
        if let Some(candidate) = &mut self.candidate {
            candidate.replies.push(reply);
            candidate.pinned = adding.pinned.or(candidate.pinned);
            let Settings { defaults, limits } = adding.settings;
            let settings = &mut candidate.settings;
            settings.defaults = defaults.or(settings.defaults.take());
            settings.limits = limits.or(settings.limits.take());
        }
    }

    pub(super) fn fail(&mut self, error: &LoadError, options: &RegistryOptions) {
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

    /// Ends everything under way. Returns how many requests waited.
    pub(in crate::registry) fn end_all(self, error: &LoadError) -> usize {
        let mut waiting: Vec<Reply> = self.loads.into_iter().flat_map(|load| load.waiting).collect();
        let mut replies = Vec::new();
        if let Some(candidate) = self.candidate {
            waiting.extend(candidate.waiting);
            replies = candidate.replies;
        }
        let waited = waiting.len();
        send(waiting.into_iter().chain(replies), &Err(error.clone()));
        waited
    }
}

/// Sends an outcome to all who wait for it. Those who went away do not matter.
pub(super) fn send(replies: impl IntoIterator<Item = Reply>, outcome: &Outcome) {
    for reply in replies {
        let _ = reply.send(outcome.clone());
    }
}

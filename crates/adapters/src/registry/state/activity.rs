//! What this process does with a name: loads in progress, failures, and use by requests. This state
//! ends with the process, and each server that shares a catalogue has its own.

use std::time::{Instant, SystemTime};

use multigraft_sources::Reference;
use tokio::sync::oneshot;

use crate::registry::added_by::AddedBy;
use crate::registry::entry::{Adding, Outcome};
use crate::registry::error::LoadError;
use crate::registry::listed::Progress;
use crate::registry::options::RegistryOptions;
use crate::registry::settings::Settings;

/// Receives the result of a load.
pub(in crate::registry) type Reply = oneshot::Sender<Outcome>;

/// Loads, failures and use of a name.
#[derive(Debug, Default)]
pub(in crate::registry) struct Activity {
    /// Loads of known versions: the active one, or versions that were active.
    pub(super) loads: Vec<Load>,
    /// Why the last load of the active version failed.
    pub(super) failure: Option<Failure>,
    /// The load of a new version.
    pub(super) candidate: Option<Candidate>,
    /// Requests since the start of the process.
    pub(super) requests: u64,
    pub(super) last_used: Option<SystemTime>,
}

/// The load of a known version.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) id: u64,
    /// The version's number.
    pub(super) number: u32,
    /// Progress of the download, if there is one.
    pub(super) fetching: Option<Progress>,
    pub(super) waiting: Vec<Reply>,
}

/// Consecutive failed loads of the active version.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: LoadError,
    pub(super) attempts: u32,
    /// Time from which the next attempt is allowed.
    pub(super) next: Instant,
}

/// The load of a new version.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) id: u64,
    pub(super) at: Reference,
    /// Whether its files may have been read.
    pub(super) begun: bool,
    /// Progress of the download, if there is one.
    pub(super) fetching: Option<Progress>,
    pub(super) pinned: Option<bool>,
    pub(super) by: AddedBy,
    pub(super) settings: Settings,
    /// Those who added it.
    pub(super) replies: Vec<Reply>,
    /// Requests that wait because the name has no version yet.
    pub(super) waiting: Vec<Reply>,
}

impl Activity {
    /// Counts a request.
    pub(in crate::registry) fn used(&mut self) {
        self.requests += 1;
        self.last_used = Some(SystemTime::now());
    }

    /// The error while the next load of the active version is delayed.
    pub(in crate::registry) fn backed_off(&self, now: Instant) -> Option<LoadError> {
        let failure = self.failure.as_ref().filter(|failure| failure.next > now)?;
        Some(LoadError::BackedOff {
            error: Box::new(failure.error.clone()),
            attempts: failure.attempts,
            retry_after: failure.next - now,
        })
    }

    /// The load of version `number`, if there is one.
    pub(super) fn load_of(&self, number: u32) -> Option<&Load> {
        self.loads.iter().find(|load| load.number == number)
    }

    /// Whether a load from `at` can be joined: `Ok` if its files have not been read yet, otherwise
    /// the source of the candidate. `None` if there is no candidate.
    pub(in crate::registry) fn candidate_from(&self, at: &Reference) -> Option<Result<(), Reference>> {
        let candidate = self.candidate.as_ref()?;
        Some(match candidate.at == *at && !candidate.begun {
            true => Ok(()),
            false => Err(candidate.at.clone()),
        })
    }

    /// Records that load `id` is about to read its files.
    pub(in crate::registry) fn begins(&mut self, id: u64) {
        if let Some(candidate) = self.candidate.as_mut().filter(|candidate| candidate.id == id) {
            candidate.begun = true;
        }
    }

    /// Records the download progress of load `id`; `None` means that it is complete.
    pub(in crate::registry) fn fetches(&mut self, id: u64, progress: Option<Progress>) {
        if let Some(candidate) = self.candidate.as_mut().filter(|candidate| candidate.id == id) {
            candidate.fetching = progress;
        }
        if let Some(load) = self.loads.iter_mut().find(|load| load.id == id) {
            load.fetching = progress;
        }
    }

    /// Forgets requests that have stopped waiting and returns their number.
    pub(in crate::registry) fn forget_closed(&mut self) -> usize {
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

    /// Starts the load `id` of a new version.
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

    /// Joins the load of the new version, which someone else adds too.
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
        // A lack of memory does not count as the adapter's failure.
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

    /// Ends all loads with `error`. Returns the number of requests that were waiting.
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

/// Sends a result to all receivers. Receivers that no longer exist are ignored.
pub(super) fn send(replies: impl IntoIterator<Item = Reply>, outcome: &Outcome) {
    for reply in replies {
        let _ = reply.send(outcome.clone());
    }
}

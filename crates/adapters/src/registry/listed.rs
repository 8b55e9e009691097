//! What there is to say of a name.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use multigraft_model::AdapterHash;
use multigraft_peft::AdapterInfo;
use multigraft_sources::Reference;
use serde_json::{Map, Value};
use tokio::sync::watch;

use super::{AdapterLimits, AddedBy, LoadError, Registry};

/// Where an adapter is.
#[derive(Clone, Debug)]
pub enum Residency {
    /// In memory.
    Resident {
        /// How much it takes, in bytes.
        bytes: usize,
        /// What there is to know about it.
        info: Arc<AdapterInfo>,
    },
    /// Known, and loaded when it is asked for.
    Cold,
    /// Being loaded.
    Loading,
    /// Its last load failed.
    Failed {
        /// Why.
        error: LoadError,
        /// How long until the next is tried; zero if it is the next request's turn.
        retry_after: Duration,
    },
}

/// How much of an adapter's weights is here while they are fetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are here.
    pub done: u64,
    /// Bytes that there are; 0 until that is known.
    pub total: u64,
}

/// What is under way for a name or, if nothing is, where its adapter is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Files are brought to this machine.
    Fetching(Progress),
    /// Files are read, checked and packed, or wait for it.
    Loading,
    /// In memory.
    Resident,
    /// Known, and loaded when it is asked for.
    Cold,
    /// It could not be loaded, for this reason.
    Failed(String),
}

/// A name's phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The name.
    pub name: String,
    /// The phase.
    pub phase: Phase,
    /// The hash of what requests get, if that is known.
    pub hash: Option<AdapterHash>,
}

/// A version of a name.
#[derive(Clone, Debug)]
pub struct ListedVersion {
    /// The hash of its files; `None` until they are read for the first time.
    pub hash: Option<AdapterHash>,
    /// Where they come from.
    pub source: Reference,
    /// Which state of it they are: a commit of the Hub, or what an object store said of them.
    pub revision: Option<String>,
    /// When it was added.
    pub added: SystemTime,
    /// Who added it; `None` if that was before this was written down.
    pub added_by: Option<AddedBy>,
    /// What was found when it was loaded last; `None` if it never was.
    pub info: Option<Arc<AdapterInfo>>,
    /// Whether requests get this one.
    pub active: bool,
}

/// A name and what there is to say of it.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The name.
    pub name: String,
    /// Its versions, the newest last; none while its first is being loaded.
    pub versions: Vec<ListedVersion>,
    /// Where the active one is.
    pub residency: Residency,
    /// Whether a newer version is being loaded.
    pub replacing: bool,
    /// How far its files have come, while they are brought here.
    pub progress: Option<Progress>,
    /// Whether it stays in memory.
    pub pinned: bool,
    /// Whether it survives a restart.
    pub stored: bool,
    /// What its requests get where they say nothing; the server gives it its meaning.
    pub defaults: Option<Arc<Map<String, Value>>>,
    /// What its requests may take.
    pub limits: AdapterLimits,
    /// How often it was asked for since the start.
    pub requests: u64,
    /// When it was asked for last, since the start.
    pub last_used: Option<SystemTime>,
}

impl Listed {
    /// The version that requests get.
    pub fn active(&self) -> Option<&ListedVersion> {
        self.versions.iter().find(|version| version.active)
    }
}

impl Registry {
    /// All names, in the order that they were added.
    pub fn names(&self) -> Vec<String> {
        self.0.lock().names.keys().cloned().collect()
    }

    /// What there is to say of all names, in the order that they were added.
    pub fn list(&self) -> Vec<Listed> {
        let state = self.0.lock();
        let now = Instant::now();
        let names = state.names.iter();
        names
            .map(|(name, named)| named.listed(name, &state.memory, now))
            .collect()
    }

    /// What there is to say of one.
    pub fn listed(&self, name: &str) -> Option<Listed> {
        let state = self.0.lock();
        let named = state.names.get(name)?;
        Some(named.listed(name, &state.memory, Instant::now()))
    }

    /// The phases of all names, also of those that nobody has because they could not be loaded a
    /// moment ago.
    pub fn statuses(&self) -> Vec<Status> {
        let state = self.0.lock();
        let names = state.names.iter().map(|(name, named)| Status {
            name: name.clone(),
            phase: named.phase(&state.memory),
            hash: named.record.active_hash(),
        });
        let now = Instant::now();
        let failed = state.failed.iter();
        let failed = failed.filter(|(name, (_, until))| *until > now && !state.names.contains_key(*name));
        let failed = failed.map(|(name, (error, _))| Status {
            name: name.clone(),
            phase: Phase::Failed(error.to_string()),
            hash: None,
        });
        names.chain(failed).collect()
    }

    /// Says when a phase may have changed. Who is slow misses phases, never the last.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.0.changed.subscribe()
    }
}

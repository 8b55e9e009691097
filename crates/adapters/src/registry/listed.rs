//! The state of names, for listings and events.

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
        /// Its size in memory, in bytes.
        bytes: usize,
        /// Facts about the adapter.
        info: Arc<AdapterInfo>,
    },
    /// Not in memory. The next request loads it.
    Cold,
    /// Being loaded.
    Loading,
    /// The last load failed.
    Failed {
        /// The error.
        error: LoadError,
        /// Time until the next attempt; zero if the next request starts one.
        retry_after: Duration,
    },
}

/// Progress of the download of an adapter's weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes received.
    pub done: u64,
    /// Total bytes; 0 until the size is known.
    pub total: u64,
}

/// The current activity of a name, or where its adapter is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Files are being downloaded.
    Fetching(Progress),
    /// Files are being read, checked and made ready, or wait for that.
    Loading,
    /// In memory.
    Resident,
    /// Not in memory. The next request loads it.
    Cold,
    /// The last load failed, with this message.
    Failed(String),
}

/// A name's phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The name.
    pub name: String,
    /// The phase.
    pub phase: Phase,
    /// The hash of the active version, if known.
    pub hash: Option<AdapterHash>,
}

/// A version of a name.
#[derive(Clone, Debug)]
pub struct ListedVersion {
    /// The hash of its files; `None` until they have been read once.
    pub hash: Option<AdapterHash>,
    /// Its source.
    pub source: Reference,
    /// The state of the source: a commit of the Hub, or what an object store reported about the
    /// files.
    pub revision: Option<String>,
    /// When it was added.
    pub added: SystemTime,
    /// Who added it; `None` if it was added before this was stored.
    pub added_by: Option<AddedBy>,
    /// The facts found by the last load; `None` if it was never loaded.
    pub info: Option<Arc<AdapterInfo>>,
    /// Whether this is the active version.
    pub active: bool,
}

/// A name and its state.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The name.
    pub name: String,
    /// Its versions, the newest last. Empty while the first one is being loaded.
    pub versions: Vec<ListedVersion>,
    /// Where the active version is.
    pub residency: Residency,
    /// Whether a newer version is being loaded.
    pub replacing: bool,
    /// Progress of its download, if there is one.
    pub progress: Option<Progress>,
    /// Whether it is pinned.
    pub pinned: bool,
    /// Whether it is stored across restarts.
    pub stored: bool,
    /// Default values of request fields, which the server interprets.
    pub defaults: Option<Arc<Map<String, Value>>>,
    /// Limits of its requests.
    pub limits: AdapterLimits,
    /// Requests since the start of the server.
    pub requests: u64,
    /// Time of the last request since the start of the server.
    pub last_used: Option<SystemTime>,
}

impl Listed {
    /// The active version.
    pub fn active(&self) -> Option<&ListedVersion> {
        self.versions.iter().find(|version| version.active)
    }
}

impl Registry {
    /// All names, in the order in which they were added.
    pub fn names(&self) -> Vec<String> {
        self.0.lock().names.keys().cloned().collect()
    }

    /// The state of all names, in the order in which they were added.
    pub fn list(&self) -> Vec<Listed> {
        let state = self.0.lock();
        let now = Instant::now();
        let names = state.names.iter();
        names
            .map(|(name, named)| named.listed(name, &state.memory, now))
            .collect()
    }

    /// The state of one name.
    pub fn listed(&self, name: &str) -> Option<Listed> {
        let state = self.0.lock();
        let named = state.names.get(name)?;
        Some(named.listed(name, &state.memory, Instant::now()))
    }

    /// The phases of all names, and those of names whose first load failed a short while ago.
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

    /// Signals that a phase may have changed. A slow receiver misses intermediate phases, but never
    /// the last one.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.0.changed.subscribe()
    }
}

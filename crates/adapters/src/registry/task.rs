//! The loaders' tasks and results.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Instant;

use multigraft_model::AdapterHash;
use multigraft_sources::{Fetched, Reference};

use super::error::LoadError;
use super::memory::Held;
use super::recipe::Recipe;
use super::state::Version;
use crate::error::AdapterError;
use crate::source::Source;

/// A task for a loader.
#[derive(Debug)]
pub(super) enum Task {
    Load(Job),
    Merge(Recipe),
}

/// An adapter to load.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: u64,
    pub(super) name: String,
    /// Its source.
    pub(super) at: Reference,
    /// The folder of its files, if they are on this machine.
    pub(super) folder: Option<PathBuf>,
    pub(super) revision: Option<String>,
    pub(super) kind: Kind,
    pub(super) ordered: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The active version, which requests wait for, with its hash if known.
    Active(Option<AdapterHash>),
    /// A new version.
    Candidate,
}

impl Job {
    pub(super) fn active(id: u64, name: &str, version: Version) -> Self {
        Self {
            id,
            name: name.to_owned(),
            at: version.source,
            folder: version.folder,
            revision: version.revision,
            kind: Kind::Active(version.hash),
            ordered: Instant::now(),
        }
    }

    pub(super) fn candidate(id: u64, source: &Source) -> Self {
        Self {
            id,
            name: source.name.clone(),
            at: source.at.clone(),
            folder: match &source.at {
                Reference::Folder(folder) | Reference::Upload { folder } => Some(folder.clone()),
                Reference::Hub { .. } | Reference::Url(_) => None,
            },
            revision: None,
            kind: Kind::Candidate,
            ordered: Instant::now(),
        }
    }

    /// Whether its files must be downloaded. Downloaded files may have been deleted since.
    pub(super) fn is_to_be_fetched(&self) -> bool {
        let is_here = |folder: &PathBuf| folder.is_dir();
        self.at.is_remote() && !self.folder.as_ref().is_some_and(is_here)
    }

    pub(super) fn files(&self, folder: PathBuf) -> Fetched {
        Fetched {
            folder,
            revision: self.revision.clone(),
        }
    }
}

/// A loaded adapter that is not in the registry's memory yet.
pub(super) struct Loaded {
    pub(super) hash: AdapterHash,
    /// The folder where its files stay, and their revision.
    pub(super) files: Fetched,
    pub(super) held: Held,
    /// Bytes that are reserved for it.
    pub(super) promised: usize,
}

pub(super) fn failed(error: AdapterError) -> LoadError {
    LoadError::Failed(Arc::new(error))
}

/// Sends tasks to the loaders.
pub(super) type Tasks = Sender<Task>;

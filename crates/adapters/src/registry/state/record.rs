//! What servers that share a catalogue must agree on about a name: its versions, which of them is
//! active, and its settings.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use multigraft_model::AdapterHash;
use multigraft_peft::AdapterInfo;
use multigraft_sources::Reference;
use serde_json::{Map, Value};

use crate::registry::added_by::AddedBy;
use crate::registry::catalogue::{CataloguedName, CataloguedVersion};
use crate::registry::error::ActivateError;
use crate::registry::limits::AdapterLimits;
use crate::registry::settings::Settings;

/// Number of versions that are kept.
pub(super) const VERSIONS: usize = 16;

/// A name in the form in which the catalogue stores it.
#[derive(Debug, Default)]
pub(in crate::registry) struct Record {
    /// The newest last. Empty while the first one is being loaded.
    pub(super) versions: Vec<Version>,
    /// Index of the active version.
    pub(super) active: usize,
    pub(in crate::registry) pinned: bool,
    /// Whether it is in the catalogue.
    pub(in crate::registry) stored: bool,
    pub(in crate::registry) defaults: Option<Arc<Map<String, Value>>>,
    /// `None` stands for the default limits.
    pub(super) limits: Option<Box<AdapterLimits>>,
}

/// A version of a name.
#[derive(Clone, Debug)]
pub(in crate::registry) struct Version {
    /// Its source.
    pub(in crate::registry) source: Reference,
    /// What downloads the same files again.
    pub(in crate::registry) revision: Option<String>,
    /// The folder of its files, if they are on this machine.
    pub(in crate::registry) folder: Option<PathBuf>,
    /// `None` until its files have been read once.
    pub(in crate::registry) hash: Option<AdapterHash>,
    /// The version's number, counted from the name's first version, which is 0.
    pub(in crate::registry) number: u32,
    pub(super) added: SystemTime,
    /// Who added it; `None` if it was added before this was stored.
    pub(super) added_by: Option<AddedBy>,
    /// The facts found by the last load.
    pub(in crate::registry) info: Option<Arc<AdapterInfo>>,
}

impl Version {
    pub(in crate::registry) fn new(source: Reference, hash: Option<AdapterHash>, by: AddedBy) -> Self {
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
    /// The version in the catalogue's form.
    pub(in crate::registry) fn catalogued(&self, hash: AdapterHash) -> CataloguedVersion {
        CataloguedVersion {
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

/// The change that a new version makes to a name.
#[derive(Clone, Debug)]
pub(in crate::registry) struct Next {
    pub(in crate::registry) version: Version,
    pub(in crate::registry) pinned: bool,
    /// Number of the oldest version that is kept.
    pub(in crate::registry) oldest: u32,
    pub(in crate::registry) settings: Settings,
}

impl Record {
    /// A name with one version.
    pub(super) fn of(version: Version) -> Self {
        Self {
            versions: vec![version],
            ..Self::default()
        }
    }

    /// A name from the catalogue. `folder` returns the folder of a hash. `None` if the active
    /// version is missing.
    pub(super) fn restored(stored: CataloguedName, folder: impl Fn(AdapterHash) -> PathBuf) -> Option<Self> {
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
        })
    }

    /// Changes the settings.
    pub(in crate::registry) fn set(&mut self, settings: Settings) {
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

    /// The limits of its requests.
    pub(in crate::registry) fn limits(&self) -> AdapterLimits {
        self.limits.as_deref().copied().unwrap_or_default()
    }

    /// The active version.
    pub(super) fn active(&self) -> Option<&Version> {
        self.versions.get(self.active)
    }

    pub(in crate::registry) fn active_hash(&self) -> Option<AdapterHash> {
        self.active().and_then(|version| version.hash)
    }

    /// The version with the hash `hash`.
    pub(in crate::registry) fn version_of(&self, hash: AdapterHash) -> Option<&Version> {
        let mut versions = self.versions.iter();
        versions.find(|version| version.hash == Some(hash))
    }

    /// Whether it has versions.
    pub(in crate::registry) fn has_versions(&self) -> bool {
        !self.versions.is_empty()
    }

    /// The version with `hash`, or without `hash` the one before the active version. Returns its
    /// hash too.
    pub(in crate::registry) fn find(
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

    /// Makes version `number` the active one. Returns whether it was not before.
    pub(super) fn activate(&mut self, number: u32) -> bool {
        match self.versions.iter().position(|version| version.number == number) {
            Some(index) if index != self.active => {
                self.active = index;
                true
            }
            _ => false,
        }
    }

    /// The number for a new version with the hash `hash`, and the number of the oldest version to
    /// keep. Files that equal those of the active version do not make a new version.
    pub(super) fn numbers_of(&self, hash: AdapterHash) -> (u32, u32) {
        let same = self.active().filter(|active| active.hash == Some(hash));
        let (number, first_kept) = match same {
            Some(active) => (active.number, 0),
            None => (
                self.versions.last().map_or(0, |last| last.number + 1),
                self.versions.len().saturating_sub(VERSIONS - 1),
            ),
        };
        let oldest = self.versions.get(first_kept).map_or(0, |oldest| oldest.number);
        (number, oldest)
    }

    /// Adds a new version and makes it the active one.
    pub(super) fn take(&mut self, next: Next) {
        let Next {
            version,
            pinned,
            oldest,
            settings,
        } = next;
        self.set(settings);
        self.pinned = pinned;
        let number = version.number;
        self.versions
            .retain(|version| version.number >= oldest && version.number != number);
        let at = self.versions.partition_point(|version| version.number < number);
        self.versions.insert(at, version);
        self.active = at;
    }
}

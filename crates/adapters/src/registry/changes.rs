//! Changes of a name that load nothing: each is stored before it is made.

use std::sync::Arc;

use multigraft_model::AdapterHash;
use multigraft_sources::Reference;
use serde_json::{Map, Value};

use super::{ActivateError, AdapterLimits, ChangeError, LoadError, Registry, Settings, load};

impl Registry {
    /// Forgets a name. Requests under way end as they would have; memory is free when the last of
    /// them has.
    ///
    /// # Errors
    /// If there is no such name, or it cannot be stored that there is none; then it is as it was.
    pub fn remove(&self, name: &str) -> Result<(), ChangeError> {
        let _changing = self.0.change();
        self.0.storage_of(name)?;
        // Also one that was stored under the name and is not served now.
        if let Some(storage) = &self.0.storage {
            storage.catalogue.remove(name)?;
        }
        let mut state = self.0.lock();
        if let Some(named) = state.names.shift_remove(name) {
            state.waiting -= named.end_all(&LoadError::Removed);
        }
        state.failed.remove(name);
        let dropped = state.drop_unnamed();
        drop(state);
        drop(dropped);
        self.0.changed();
        Ok(())
    }

    /// Whether a name's adapter stays in memory once it is there.
    ///
    /// # Errors
    /// As [`Registry::remove`].
    pub fn pin(&self, name: &str, pinned: bool) -> Result<(), ChangeError> {
        let _changing = self.0.change();
        if let Some(storage) = self.0.storage_of(name)? {
            storage.catalogue.pin(name, pinned)?;
        }
        if let Some(named) = self.0.lock().names.get_mut(name) {
            named.record.pinned = pinned;
        }
        Ok(())
    }

    /// What requests for a name get where they say nothing; empty ones are none.
    ///
    /// # Errors
    /// As [`Registry::remove`].
    pub fn set_defaults(&self, name: &str, defaults: Map<String, Value>) -> Result<(), ChangeError> {
        let defaults = Some(defaults);
        let limits = None;
        self.set(name, Settings { defaults, limits })
    }

    /// What requests for a name may take.
    ///
    /// # Errors
    /// As [`Registry::remove`].
    pub fn set_limits(&self, name: &str, limits: AdapterLimits) -> Result<(), ChangeError> {
        let limits = Some(limits);
        let defaults = None;
        self.set(name, Settings { defaults, limits })
    }

    fn set(&self, name: &str, settings: Settings) -> Result<(), ChangeError> {
        let _changing = self.0.change();
        if let Some(storage) = self.0.storage_of(name)? {
            storage.catalogue.set(name, &settings)?;
        }
        if let Some(named) = self.0.lock().names.get_mut(name) {
            named.record.set(settings);
        }
        Ok(())
    }

    /// Makes another version of a name the active one: the one with `hash`, or the one before the
    /// active. Returns its hash.
    ///
    /// # Errors
    /// If there is no such name or version, or it cannot be stored; then the name is as it was.
    pub fn activate(&self, name: &str, hash: Option<AdapterHash>) -> Result<AdapterHash, ActivateError> {
        let _changing = self.0.change();
        let storage = self.0.storage_of(name)?;
        let (version, hash, is_resident) = {
            let state = self.0.lock();
            let named = state.names.get(name);
            let named = named.ok_or_else(|| ChangeError::Unknown(name.to_owned()))?;
            let (version, hash) = named.record.find(name, hash)?;
            (version, hash, state.memory.get(hash).is_some())
        };
        // Files that are not the store's may have changed; then the active version had better stay.
        if storage.is_none() && !is_resident {
            // Only a commit of the Hub brings the same files again.
            let is_of_the_hub = matches!(version.source, Reference::Hub { .. });
            let folder = version.folder.filter(|_| !is_of_the_hub);
            let checked = folder.map_or(Ok(()), |folder| load::check_files(&folder, hash));
            checked.map_err(|error| ActivateError::Files(Arc::new(error)))?;
        }
        if let Some(storage) = storage {
            let changed = storage.catalogue.activate(name, version.number);
            changed.map_err(ChangeError::from)?;
        }
        let mut state = self.0.lock();
        if let Some(named) = state.names.get_mut(name) {
            named.activate(version.number);
        }
        let dropped = state.drop_unnamed();
        drop(state);
        drop(dropped);
        self.0.changed();
        Ok(hash)
    }
}

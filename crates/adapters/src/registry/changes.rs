//! Changes of a name that need no load. Each change is stored before it takes effect.

use std::sync::Arc;

use multigraft_model::AdapterHash;
use multigraft_sources::Reference;
use serde_json::{Map, Value};

use super::{ActivateError, AdapterLimits, ChangeError, LoadError, Registry, Settings, load};

impl Registry {
    /// Removes a name. In-flight requests run to their end, and the last of them frees the memory.
    ///
    /// # Errors
    /// If the name does not exist, or the change cannot be stored. Then nothing has changed.
    pub fn remove(&self, name: &str) -> Result<(), ChangeError> {
        let _changing = self.0.change();
        self.0.storage_of(name)?;
        // Also removes a stored name that a registration at the start of the server hides.
        if let Some(storage) = &self.0.storage {
            storage.catalogue.remove(name)?;
        }
        let mut state = self.0.lock();
        if let Some(named) = state.names.shift_remove(name) {
            state.waiting -= named.end_all(&LoadError::Removed);
        }
        state.failed.remove(name);
        let dropped = state.remove_unnamed();
        drop(state);
        drop(dropped);
        self.0.changed();
        Ok(())
    }

    /// Pins a name, so that its adapter is never evicted, or unpins it.
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

    /// Sets the default values of request fields. An empty map removes them.
    ///
    /// # Errors
    /// As [`Registry::remove`].
    pub fn set_defaults(&self, name: &str, defaults: Map<String, Value>) -> Result<(), ChangeError> {
        let defaults = Some(defaults);
        let limits = None;
        self.set(name, Settings { defaults, limits })
    }

    /// Sets the limits of a name's requests.
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

    /// Makes the version with `hash` the active one, or without `hash` the version before the
    /// active one. Returns the hash of the version that is active now.
    ///
    /// # Errors
    /// If the name or version does not exist, or the change cannot be stored. Then nothing has
    /// changed.
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
        // Files outside the store may have changed. Then the current version stays active.
        if storage.is_none() && !is_resident {
            // Only a commit of the Hub is certain to yield the same files again.
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
        let dropped = state.remove_unnamed();
        drop(state);
        drop(dropped);
        self.0.changed();
        Ok(hash)
    }
}

//! The adapters, as far as somebody may see them.
//!
//! The registry is private to this file: whoever wants an adapter needs the [`Caller`] who asks for
//! it, and what a key may not use looks, by every way to ask, like what is not there.

use std::sync::Arc;

use multigraft_adapters::{
    ActivateError, AdapterError, AdapterLimits, Adding, ChangeError, Listed, LoadError, Lookup, MergePart,
    Outcome, Registry, Source, Status, Upload, adapter_files_in,
};
use multigraft_model::AdapterHash;
use multigraft_peft::MergeMethod;
use multigraft_sources::{AllowedSources, Reference};
use serde_json::{Map, Value};
use tokio::{sync::watch, task::spawn_blocking};

use crate::http::{caller::Caller, error::ApiError};

/// All adapters, and where more may come from.
#[derive(Clone, Debug)]
pub(crate) struct Adapters {
    /// The names and what they stand for.
    registry: Registry,
    /// Where adapters may be added from over HTTP.
    sources: AllowedSources,
}

impl Adapters {
    /// Those of `registry`; over HTTP none may be added.
    pub(crate) fn new(registry: Registry) -> Self {
        let sources = AllowedSources::default();
        Self { registry, sources }
    }

    /// The same, and more may be added from `sources`.
    pub(crate) fn with_sources(self, sources: AllowedSources) -> Self {
        Self { sources, ..self }
    }

    /// The base's name.
    pub(crate) fn base(&self) -> &str {
        self.registry.base()
    }

    /// Those that `caller` may use.
    pub(crate) fn visible_to<'a>(&'a self, caller: &'a Caller) -> VisibleAdapters<'a> {
        VisibleAdapters { all: self, caller }
    }

    /// All of them with everything about them, if `caller` is an admin.
    pub(crate) fn all(&self, caller: &Caller) -> Option<&Registry> {
        caller.is_admin().then_some(&self.registry)
    }
}

/// The adapters that one caller may use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VisibleAdapters<'a> {
    all: &'a Adapters,
    caller: &'a Caller,
}

impl VisibleAdapters<'_> {
    fn may_use(&self, name: &str) -> bool {
        self.caller.may_use(name)
    }

    /// Their names.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names = self.all.registry.names();
        names.retain(|name| self.may_use(name));
        names
    }

    /// What there is to know of each.
    pub(crate) fn list(&self) -> Vec<Listed> {
        let mut listed = self.all.registry.list();
        listed.retain(|listed| self.may_use(&listed.name));
        listed
    }

    /// The phase of each.
    pub(crate) fn statuses(&self) -> Vec<Status> {
        let mut statuses = self.all.registry.statuses();
        statuses.retain(|status| self.may_use(&status.name));
        statuses
    }

    /// Says that something has become of some adapter, of whatever name.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.all.registry.changes()
    }

    /// The adapter called `name`.
    pub(crate) fn listed(&self, name: &str) -> Option<Listed> {
        self.all.registry.listed(name).filter(|_| self.may_use(name))
    }

    /// Whether there is an adapter called `name`.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.all.registry.contains(name) && self.may_use(name)
    }

    /// What `name` stands for.
    pub(crate) fn get(&self, name: &str) -> Lookup {
        match self.may_use(name) {
            true => self.all.registry.get(name),
            false => Lookup::Unknown,
        }
    }

    /// What `name` stands for, which nobody has added, but which is called as its source is.
    pub(crate) fn first_use(&self, source: &Source) -> Result<Lookup, AdapterError> {
        match self.may_use(&source.name) {
            true => self.all.registry.first_use(source),
            false => Ok(Lookup::Unknown),
        }
    }

    /// What these parts, which were got by their names, are together.
    pub(crate) fn merged(&self, method: MergeMethod, parts: &[(MergePart, f64)]) -> Lookup {
        self.all.registry.merged(method, parts)
    }

    /// What requests for `name` may take.
    pub(crate) fn limits(&self, name: &str) -> AdapterLimits {
        match self.may_use(name) {
            true => self.all.registry.limits(name),
            false => AdapterLimits::default(),
        }
    }

    /// What requests for `name` get where they say nothing.
    pub(crate) fn defaults(&self, name: &str) -> Option<Arc<Map<String, Value>>> {
        self.all.registry.defaults(name).filter(|_| self.may_use(name))
    }

    /// The source that `name` is, if adapters are allowed from there, with the name that it has as
    /// an adapter, if that may be used.
    pub(crate) fn source(&self, name: &str) -> Option<(String, Reference)> {
        let at = self.all.sources.resolve(name, adapter_files_in).ok()?;
        let name = name_of(&at);
        self.may_use(&name).then_some((name, at))
    }

    /// Whether adapters may be sent as files.
    pub(crate) fn takes_uploads(&self) -> bool {
        self.all.sources.uploads()
    }

    /// Where `reference` leads, if adapters may come from there and grants cover that. Whether
    /// there is anything where they do not reach is not told.
    pub(crate) fn reference(&self, reference: &str) -> Result<Reference, ApiError> {
        let found = self.all.sources.resolve(reference, adapter_files_in);
        if let Some(key) = self.caller.limited() {
            let covered = match &found {
                Ok(at) => name_of(at),
                Err(_) => match AllowedSources::unchecked(reference) {
                    Some(at) => name_of(&at),
                    None => reference.to_owned(),
                },
            };
            if !key.may_use(&covered) {
                return Err(not_covered("come from", reference));
            }
        }
        found.map_err(|error| ApiError::not_added(&error.into()))
    }

    /// Whether grants cover the name of an adapter that is to be added.
    pub(crate) fn may_be_called(&self, name: &str) -> Result<(), ApiError> {
        match self.may_use(name) {
            true => Ok(()),
            false => Err(not_covered("be called", name)),
        }
    }

    /// Loads the adapter of `source` and puts it under its name.
    pub(crate) async fn add(&self, source: &Source, adding: Adding) -> Result<Outcome, ApiError> {
        self.may_be_called(&source.name)?;
        Ok(match self.all.registry.add(source, adding) {
            Ok(waiting) => waiting.outcome().await,
            Err(error) => Err(LoadError::Failed(error.into())),
        })
    }

    /// A place for the files of an adapter that is to be called `name`.
    pub(crate) async fn upload(
        &self,
        name: &str,
        replace: bool,
    ) -> Result<Result<Upload, LoadError>, ApiError> {
        self.may_be_called(name)?;
        let (registry, name) = (self.all.registry.clone(), name.to_owned());
        blocking(move || registry.upload(&name, replace)).await
    }

    /// Forgets `name`.
    pub(crate) async fn remove(&self, name: &str) -> Result<Result<(), ChangeError>, ApiError> {
        self.change(name, Registry::remove).await
    }

    /// Makes another version of `name` the active one: that of `hash`, or the one before.
    pub(crate) async fn activate(
        &self,
        name: &str,
        hash: Option<AdapterHash>,
    ) -> Result<Result<AdapterHash, ActivateError>, ApiError> {
        self.change(name, move |registry, name| registry.activate(name, hash))
            .await
    }

    /// Keeps `name` in memory, or no longer.
    pub(crate) async fn pin(&self, name: &str, pinned: bool) -> Result<Result<(), ChangeError>, ApiError> {
        self.change(name, move |registry, name| registry.pin(name, pinned))
            .await
    }

    /// Sets what requests for `name` get where they say nothing.
    pub(crate) async fn set_defaults(
        &self,
        name: &str,
        defaults: Map<String, Value>,
    ) -> Result<Result<(), ChangeError>, ApiError> {
        self.change(name, move |registry, name| registry.set_defaults(name, defaults))
            .await
    }

    /// Sets what requests for `name` may take.
    pub(crate) async fn set_limits(
        &self,
        name: &str,
        limits: AdapterLimits,
    ) -> Result<Result<(), ChangeError>, ApiError> {
        self.change(name, move |registry, name| registry.set_limits(name, limits))
            .await
    }

    /// A change of `name`.
    async fn change<T, E>(
        &self,
        name: &str,
        change: impl FnOnce(&Registry, &str) -> Result<T, E> + Send + 'static,
    ) -> Result<Result<T, E>, ApiError>
    where
        T: Send + 'static,
        E: From<ChangeError> + Send + 'static,
    {
        let (registry, name) = (self.all.registry.clone(), name.to_owned());
        if !self.may_use(&name) {
            return Ok(Err(ChangeError::Unknown(name).into()));
        }
        blocking(move || change(&registry, &name)).await
    }
}

/// Does what may wait for the disk where nobody waits for it.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    let done = spawn_blocking(work).await;
    done.map_err(|_| ApiError::Failed("an internal error; the server's log says more".to_owned()))
}

/// The name that an adapter gets which is called as its source is: however that is spelt, it is
/// one.
fn name_of(at: &Reference) -> String {
    match at.to_string() {
        written if at.is_remote() => written
            .strip_prefix("hf://")
            .map(str::to_owned)
            .unwrap_or(written),
        written => written,
    }
}

/// The refusal of a name, or of a source as it was written.
fn not_covered(what: &str, of: &str) -> ApiError {
    ApiError::Forbidden(format!(
        "adapters of this key may not {what} `{of}`: no grant covers that"
    ))
}

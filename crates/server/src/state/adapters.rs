//! The adapters, as far as a caller may see them.
//!
//! The registry is private to this file. Every lookup needs the [`Caller`], and an adapter that the
//! caller may not use looks like one that does not exist.

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

/// All adapters, and the sources of further ones.
#[derive(Clone, Debug)]
pub(crate) struct Adapters {
    /// The names and their versions.
    registry: Registry,
    /// The sources from which adapters may be added over HTTP.
    sources: AllowedSources,
}

impl Adapters {
    /// The adapters of `registry`. None may be added over HTTP.
    pub(crate) fn new(registry: Registry) -> Self {
        let sources = AllowedSources::default();
        Self { registry, sources }
    }

    /// Allows adapters to be added from `sources` over HTTP.
    pub(crate) fn with_sources(self, sources: AllowedSources) -> Self {
        Self { sources, ..self }
    }

    /// The name of the base.
    pub(crate) fn base(&self) -> &str {
        self.registry.base()
    }

    /// The adapters that `caller` may use.
    pub(crate) fn visible_to<'a>(&'a self, caller: &'a Caller) -> VisibleAdapters<'a> {
        VisibleAdapters { all: self, caller }
    }

    /// The whole registry, if `caller` is an admin.
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

    /// The names of the adapters.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names = self.all.registry.names();
        names.retain(|name| self.may_use(name));
        names
    }

    /// The details of each adapter.
    pub(crate) fn list(&self) -> Vec<Listed> {
        let mut listed = self.all.registry.list();
        listed.retain(|listed| self.may_use(&listed.name));
        listed
    }

    /// The phase of each adapter.
    pub(crate) fn statuses(&self) -> Vec<Status> {
        let mut statuses = self.all.registry.statuses();
        statuses.retain(|status| self.may_use(&status.name));
        statuses
    }

    /// Notifies of changes of any adapter, visible or not.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.all.registry.changes()
    }

    /// The details of adapter `name`.
    pub(crate) fn listed(&self, name: &str) -> Option<Listed> {
        self.all.registry.listed(name).filter(|_| self.may_use(name))
    }

    /// Whether there is an adapter `name`.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.all.registry.contains(name) && self.may_use(name)
    }

    /// Looks `name` up.
    pub(crate) fn get(&self, name: &str) -> Lookup {
        match self.may_use(name) {
            true => self.all.registry.get(name),
            false => Lookup::Unknown,
        }
    }

    /// Looks up an adapter that nobody has added and whose name is its source, and begins to load
    /// it.
    pub(crate) fn first_use(&self, source: &Source) -> Result<Lookup, AdapterError> {
        match self.may_use(&source.name) {
            true => self.all.registry.first_use(source),
            false => Ok(Lookup::Unknown),
        }
    }

    /// The merge of `parts`, each of which was looked up by its name.
    pub(crate) fn merged(&self, method: MergeMethod, parts: &[(MergePart, f64)]) -> Lookup {
        self.all.registry.merged(method, parts)
    }

    /// The limits of requests for `name`.
    pub(crate) fn limits(&self, name: &str) -> AdapterLimits {
        match self.may_use(name) {
            true => self.all.registry.limits(name),
            false => AdapterLimits::default(),
        }
    }

    /// The defaults of request fields for `name`.
    pub(crate) fn defaults(&self, name: &str) -> Option<Arc<Map<String, Value>>> {
        self.all.registry.defaults(name).filter(|_| self.may_use(name))
    }

    /// If `name` is an allowed source: the name that its adapter gets, and the source. `None` also
    /// if the caller may not use that name.
    pub(crate) fn source(&self, name: &str) -> Option<(String, Reference)> {
        let at = self.all.sources.resolve(name, adapter_files_in).ok()?;
        let name = name_of(&at);
        self.may_use(&name).then_some((name, at))
    }

    /// Whether adapters may be uploaded.
    pub(crate) fn takes_uploads(&self) -> bool {
        self.all.sources.uploads()
    }

    /// Resolves `reference`, if it is an allowed source and the key's grants cover it. The answer
    /// for a source outside the grants does not depend on whether it exists.
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

    /// Fails unless the key's grants cover `name`, for an adapter that is to be added.
    pub(crate) fn may_be_called(&self, name: &str) -> Result<(), ApiError> {
        match self.may_use(name) {
            true => Ok(()),
            false => Err(not_covered("be called", name)),
        }
    }

    /// Loads the adapter of `source` and registers it under its name.
    pub(crate) async fn add(&self, source: &Source, adding: Adding) -> Result<Outcome, ApiError> {
        self.may_be_called(&source.name)?;
        Ok(match self.all.registry.add(source, adding) {
            Ok(waiting) => waiting.outcome().await,
            Err(error) => Err(LoadError::Failed(error.into())),
        })
    }

    /// A temporary folder for the files of an uploaded adapter `name`.
    pub(crate) async fn upload(
        &self,
        name: &str,
        replace: bool,
    ) -> Result<Result<Upload, LoadError>, ApiError> {
        self.may_be_called(name)?;
        let (registry, name) = (self.all.registry.clone(), name.to_owned());
        blocking(move || registry.upload(&name, replace)).await
    }

    /// Removes `name`.
    pub(crate) async fn remove(&self, name: &str) -> Result<Result<(), ChangeError>, ApiError> {
        self.change(name, Registry::remove).await
    }

    /// Activates another version of `name`: the one of `hash`, or the previous one.
    pub(crate) async fn activate(
        &self,
        name: &str,
        hash: Option<AdapterHash>,
    ) -> Result<Result<AdapterHash, ActivateError>, ApiError> {
        self.change(name, move |registry, name| registry.activate(name, hash))
            .await
    }

    /// Pins `name` in memory, or unpins it.
    pub(crate) async fn pin(&self, name: &str, pinned: bool) -> Result<Result<(), ChangeError>, ApiError> {
        self.change(name, move |registry, name| registry.pin(name, pinned))
            .await
    }

    /// Sets the defaults of request fields for `name`.
    pub(crate) async fn set_defaults(
        &self,
        name: &str,
        defaults: Map<String, Value>,
    ) -> Result<Result<(), ChangeError>, ApiError> {
        self.change(name, move |registry, name| registry.set_defaults(name, defaults))
            .await
    }

    /// Sets the limits of requests for `name`.
    pub(crate) async fn set_limits(
        &self,
        name: &str,
        limits: AdapterLimits,
    ) -> Result<Result<(), ChangeError>, ApiError> {
        self.change(name, move |registry, name| registry.set_limits(name, limits))
            .await
    }

    /// Applies `change` to `name`, on a thread that may block.
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

/// Runs `work`, which may wait for the disk, on a thread that may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    let done = spawn_blocking(work).await;
    done.map_err(|_| ApiError::Failed("an internal error; the server's log says more".to_owned()))
}

/// The name of an adapter that is named after its source. Different spellings of a source give the
/// same name.
fn name_of(at: &Reference) -> String {
    match at.to_string() {
        written if at.is_remote() => written
            .strip_prefix("hf://")
            .map(str::to_owned)
            .unwrap_or(written),
        written => written,
    }
}

/// The error for a name, or a source as the request wrote it, outside the key's grants.
fn not_covered(what: &str, of: &str) -> ApiError {
    ApiError::Forbidden(format!(
        "adapters of this key may not {what} `{of}`: no grant covers that"
    ))
}

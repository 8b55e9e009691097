//! Adding, replacing and removing adapters at run time: multigraft's own routes, and the routes of
//! vLLM, SGLang and llama.cpp for tools that call those.

mod convert;
mod defaults;
pub(crate) mod events;
pub(crate) mod llama_cpp;
pub(crate) mod native;
pub(crate) mod sglang;
pub(crate) mod upload;
pub(crate) mod vllm;

use multigraft_access::{AccessError, Role, Store};
use multigraft_adapters::{AddedBy, Adding, ChangeError, Entry, LoadError, Source};
use tokio::task::spawn_blocking;

use crate::{caller::session::Session, http::error::ApiError};

impl Session {
    /// Loads the adapter at `reference` and registers it as `name`. The task runs to its end even
    /// if the client disconnects, so that the recorded owner always fits the registry.
    async fn add_adapter(&self, name: &str, reference: &str, adding: Adding) -> Result<Entry, ApiError> {
        let (session, name, reference) = (self.clone(), name.to_owned(), reference.to_owned());
        self.to_the_end(async move { session.add(&name, &reference, adding).await })
            .await
    }

    async fn add(&self, name: &str, reference: &str, adding: Adding) -> Result<Entry, ApiError> {
        self.may_manage()?;
        self.may_pin(adding.pinned)?;
        self.adapters().may_be_called(name)?;
        let at = self.adapters().reference(reference)?;
        let is_new = self.claim(name).await?;
        let source = Source {
            name: name.to_owned(),
            at,
        };
        let added = self.adapters().add(&source, adding).await?;
        self.settle_owner(name, is_new, added.is_ok()).await?;
        added.map_err(|error| not_loaded(name, &error))
    }

    /// Settles the owner of `name` after an attempt to add it. `name` has no owner if the attempt
    /// failed and the key did not own it before, or if an admin added it.
    async fn settle_owner(&self, name: &str, is_new: bool, added: bool) -> Result<(), ApiError> {
        let is_nobodys = match self.limited() {
            Some(_) => is_new && !added,
            None => added,
        };
        match is_nobodys {
            true => self.disown(name).await,
            false => Ok(()),
        }
    }

    /// Fails unless the caller may pin adapters, which takes memory from all tenants.
    fn may_pin(&self, pinned: Option<bool>) -> Result<(), ApiError> {
        match pinned {
            Some(true) if !self.is_admin() => Err(ApiError::Forbidden(
                "a pinned adapter takes memory from all others: only an admin's key may pin".to_owned(),
            )),
            _ => Ok(()),
        }
    }

    /// Fails unless the key's role allows to manage adapters.
    fn may_manage(&self) -> Result<(), ApiError> {
        match self.limited() {
            Some(key) if key.role == Role::Use => {
                let message = "this key may use adapters, but not add or change them";
                Err(ApiError::Forbidden(message.to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// Fails unless the caller, who may use `name`, may change it: it was added with the same key,
    /// or the caller is an admin.
    async fn may_change(&self, name: &str) -> Result<(), ApiError> {
        self.may_manage()?;
        let Some(key) = self.limited() else { return Ok(()) };
        let of = name.to_owned();
        let owner = self.stored(move |store| store.owner(&of)).await?.flatten();
        // A version that the command line or the adapters file added since then has no owner.
        let listed = self.listed(name);
        let by_http = listed.is_some_and(|listed| {
            let active = listed.active().map(|version| version.added_by);
            active.is_none_or(|by| by == Some(AddedBy::Http))
        });
        match owner.as_ref() == Some(&key.id) && by_http {
            true => Ok(()),
            false => Err(not_owned(name)),
        }
    }

    /// Claims `name` for the caller's key and returns whether the name was free. Grants are checked
    /// before the registry, so that a key cannot probe for names.
    async fn claim(&self, name: &str) -> Result<bool, ApiError> {
        let Some(key) = self.limited() else {
            return Ok(false);
        };
        if self.may_claim(name).await? {
            return Ok(false);
        }
        let (of, id) = (name.to_owned(), key.id.clone());
        match self.stored(move |store| store.claim(&of, &id)).await? {
            Some((true, is_new)) => Ok(is_new),
            _ => Err(not_owned(name)),
        }
    }

    /// Returns whether `name` exists. Fails unless the caller may add or change it.
    async fn may_claim(&self, name: &str) -> Result<bool, ApiError> {
        self.adapters().may_be_called(name)?;
        let is_there = self.contains(name);
        if is_there && self.limited().is_some() {
            self.may_change(name).await?;
        }
        Ok(is_there)
    }

    /// Removes the owner of `name`.
    async fn disown(&self, name: &str) -> Result<(), ApiError> {
        let of = name.to_owned();
        self.stored(move |store| store.disown(&of)).await.map(|_| ())
    }

    /// Runs `ask` on the store of keys, on a thread that may block. `None` without a store.
    async fn stored<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Store) -> Result<T, AccessError> + Send + 'static,
    ) -> Result<Option<T>, ApiError> {
        let Some(access) = self.access().cloned() else {
            return Ok(None);
        };
        let answer = spawn_blocking(move || ask(access.store())).await;
        match answer {
            Ok(Ok(answer)) => Ok(Some(answer)),
            Ok(Err(error)) => Err(ApiError::Failed(error.to_string())),
            Err(_) => Err(ApiError::Failed(
                "an internal error; the server's log says more".to_owned(),
            )),
        }
    }

    /// Removes an adapter. Requests in flight that named it end normally, or, if `now`, are
    /// cancelled with an error before this returns. Requests that named another adapter with the
    /// same files continue.
    async fn remove_adapter(&self, name: &str, now: bool) -> Result<(), ApiError> {
        let (session, name) = (self.clone(), name.to_owned());
        self.to_the_end(async move { session.remove(&name, now).await })
            .await
    }

    async fn remove(&self, name: &str, now: bool) -> Result<(), ApiError> {
        if name == self.base_name() {
            let message = format!("`{name}` is the base, which cannot be removed");
            return Err(ApiError::Unusable(message));
        }
        self.may_manage()?;
        let unknown = || ApiError::NoAdapter(format!("The lora adapter '{name}' cannot be found."));
        if !self.contains(name) {
            return Err(unknown());
        }
        self.may_change(name).await?;
        let removed = self.adapters().remove(name).await?;
        removed.map_err(|error| match error {
            ChangeError::Unknown(_) => unknown(),
            ChangeError::Store(_) => ApiError::Failed(error.to_string()),
        })?;
        if now {
            let requests = self.in_flight().remove(name);
            let reason = ApiError::removed(name).to_string();
            // An engine that has stopped has ended them already.
            let _ = self.engine().cancel(requests, reason).await;
        }
        self.disown(name).await
    }
}

/// The error for an adapter that was not added with the caller's key.
fn not_owned(name: &str) -> ApiError {
    ApiError::Forbidden(format!(
        "adapter `{name}` was not added with this key, which may only change its own"
    ))
}

/// The error of a failed attempt to add `name`.
fn not_loaded(name: &str, error: &LoadError) -> ApiError {
    match error {
        LoadError::Failed(error) => ApiError::not_added(error),
        LoadError::NoRoom { .. } | LoadError::NoBudget { .. } => {
            ApiError::overloaded(format!("adapter `{name}` was not added: {error}"))
        }
        error => ApiError::unavailable(name, error),
    }
}

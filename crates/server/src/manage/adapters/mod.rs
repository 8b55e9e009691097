//! Adding, replacing and removing adapters while requests are served: our own routes, and those of
//! vLLM, SGLang and llama.cpp for tools that were made for them.

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
    /// Loads the adapter at `reference` and puts it under `name`. Once begun it goes on to its end,
    /// whether or not the client waits for that: who added what must not depend on it.
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

    /// Whose `name` is after an attempt to add it: nobody's if that failed and the name was not
    /// this key's before, nor if an admin added it.
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

    /// Whether it may keep adapters in memory, which takes it from everybody.
    fn may_pin(&self, pinned: Option<bool>) -> Result<(), ApiError> {
        match pinned {
            Some(true) if !self.is_admin() => Err(ApiError::Forbidden(
                "a pinned adapter takes memory from all others: only an admin's key may pin".to_owned(),
            )),
            _ => Ok(()),
        }
    }

    /// Whether it may change adapters at all.
    fn may_manage(&self) -> Result<(), ApiError> {
        match self.limited() {
            Some(key) if key.role == Role::Use => {
                let message = "this key may use adapters, but not add or change them";
                Err(ApiError::Forbidden(message.to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// Whether it may change `name`, which it may use: only what was added with its key, unless
    /// that is an admin's.
    async fn may_change(&self, name: &str) -> Result<(), ApiError> {
        self.may_manage()?;
        let Some(key) = self.limited() else { return Ok(()) };
        let of = name.to_owned();
        let owner = self.stored(move |store| store.owner(&of)).await?.flatten();
        // What the command line or the file of adapters put there since is nobody's.
        let listed = self.listed(name);
        let by_http = listed.is_some_and(|listed| {
            let active = listed.active().map(|version| version.added_by);
            active.is_none_or(|by| by == Some(AddedBy::Http))
        });
        match owner.as_ref() == Some(&key.id) && by_http {
            true => Ok(()),
            false => Err(others(name)),
        }
    }

    /// Takes `name` for the key that adds it, if it may have it; whether it is new. Which names
    /// there are is not looked at before its grants are.
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
            _ => Err(others(name)),
        }
    }

    /// Whether there is a `name`, if this may add it or change it.
    async fn may_claim(&self, name: &str) -> Result<bool, ApiError> {
        self.adapters().may_be_called(name)?;
        let is_there = self.contains(name);
        if is_there && self.limited().is_some() {
            self.may_change(name).await?;
        }
        Ok(is_there)
    }

    /// Forgets who added `name`.
    async fn disown(&self, name: &str) -> Result<(), ApiError> {
        let of = name.to_owned();
        self.stored(move |store| store.disown(&of)).await.map(|_| ())
    }

    /// What the store of keys answers, which may wait for the disk; `None` without one.
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

    /// Forgets an adapter. Requests under way that named it end as they would have, or `now`, with
    /// an error: then they hold nothing any more when this is done. Those that named others of the
    /// same files go on.
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
            // An engine that has stopped has ended them.
            let _ = self.engine().cancel(requests, reason).await;
        }
        self.disown(name).await
    }
}

/// The refusal of what another key added, or nobody.
fn others(name: &str) -> ApiError {
    ApiError::Forbidden(format!(
        "adapter `{name}` was not added with this key, which may only change its own"
    ))
}

/// Why the adapter that was to be called `name` was not added.
fn not_loaded(name: &str, error: &LoadError) -> ApiError {
    match error {
        LoadError::Failed(error) => ApiError::not_added(error),
        LoadError::NoRoom { .. } | LoadError::NoBudget { .. } => {
            ApiError::overloaded(format!("adapter `{name}` was not added: {error}"))
        }
        error => ApiError::unavailable(name, error),
    }
}

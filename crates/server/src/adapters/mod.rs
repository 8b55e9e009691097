//! Adding, replacing and removing adapters while requests are served: our own routes, and those of vLLM, SGLang and
//! llama.cpp for tools that were made for them.

pub(crate) mod events;
pub(crate) mod llama_cpp;
pub(crate) mod own;
pub(crate) mod sglang;
pub(crate) mod upload;
pub(crate) mod vllm;

use multigraft_adapters::{Adding, ChangeError, Entry, LoadError, Registry, Source};
use tokio::task::spawn_blocking;

use crate::{error::ApiError, state::AppState};

impl AppState {
    /// Loads the adapter at `reference` and puts it under `name`.
    async fn add_adapter(&self, name: &str, reference: &str, adding: Adding) -> Result<Entry, ApiError> {
        let at = self
            .sources
            .resolve(reference)
            .map_err(|error| ApiError::not_added(&error))?;
        let source = Source {
            name: name.to_owned(),
            at,
        };
        let waiting = self.registry.add(&source, adding);
        let waiting = waiting.map_err(|error| ApiError::not_added(&error))?;
        waiting.outcome().await.map_err(|error| not_loaded(name, &error))
    }

    /// A change of the registry, which may wait for the disk.
    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(Registry) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let registry = self.registry.clone();
        let changed = spawn_blocking(move || change(registry)).await;
        changed.map_err(|_| ApiError::Failed("an internal error; the server's log says more".to_owned()))
    }

    /// Forgets an adapter. Requests under way that named it end as they would have, or `now`, with an error: then they hold
    /// nothing any more when this is done. Those that named others of the same files go on.
    async fn remove_adapter(&self, name: &str, now: bool) -> Result<(), ApiError> {
        if name == self.registry.base() {
            let message = format!("`{name}` is the base, which cannot be removed");
            return Err(ApiError::Unusable(message));
        }
        let of = name.to_owned();
        let removed = self.change(move |registry| registry.remove(&of)).await?;
        removed.map_err(|error| match error {
            ChangeError::Unknown(_) => {
                ApiError::NoAdapter(format!("The lora adapter '{name}' cannot be found."))
            }
            ChangeError::Store(_) => ApiError::Failed(error.to_string()),
        })?;
        if now {
            let requests = self.underway.remove(name);
            let reason = ApiError::removed(name).to_string();
            // An engine that has stopped has ended them.
            let _ = self.engine.cancel(requests, reason).await;
        }
        Ok(())
    }
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

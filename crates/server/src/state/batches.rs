//! Batches: files of requests that are run when the machine has nothing better to do.
//!
//! Their state is the store's ([`multigraft_batches`]); [`run`] goes through what is not done. A
//! line is a request to the router itself, so that it is checked, limited, counted and answered as
//! if its key had sent it, only in the background.

mod run;

use std::sync::Arc;

use multigraft_batches::{LineLimits, Store, StoreError};
use tokio::sync::watch;

use crate::{error::ApiError, session::Session, state::Limits};

pub use run::run;

/// The files and batches of a server.
#[derive(Clone, Debug)]
pub struct Batches {
    store: Arc<Store>,
    /// A batch was begun or cancelled.
    changed: watch::Sender<()>,
}

impl Batches {
    /// Those in `store`.
    pub fn new(store: Store) -> Self {
        let (changed, _) = watch::channel(());
        let store = Arc::new(store);
        Self { store, changed }
    }

    /// Says that a batch was begun or cancelled.
    pub(crate) fn notify(&self) {
        self.changed.send_replace(());
    }

    /// Where the bytes of files are.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Does something with the disk where nobody waits for it.
    pub(crate) async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let store = Arc::clone(&self.store);
        match tokio::task::spawn_blocking(move || work(&store)).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => {
                // Where the server keeps its data is not for clients.
                tracing::error!(%error, "files and batches");
                let message = "the server's files cannot be read or written; its log says more";
                Err(ApiError::Failed(message.to_owned()))
            }
            Err(error) => Err(ApiError::Failed(error.to_string())),
        }
    }
}

impl Session {
    /// The files and batches, if the server keeps any.
    pub(crate) fn batches(&self) -> Result<&Batches, ApiError> {
        self.batches.as_ref().ok_or_else(|| {
            let message = "this server keeps no files and no batches: start it with `--data FOLDER`";
            ApiError::Forbidden(message.to_owned())
        })
    }
}

impl Limits {
    /// How much a batch may be.
    pub(crate) fn lines(&self) -> LineLimits {
        LineLimits {
            lines: self.batch_lines,
            bytes: self.body_bytes,
        }
    }
}

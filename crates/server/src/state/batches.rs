//! Batches: files of requests that run while the engine has capacity left.
//!
//! [`multigraft_batches`] stores them; `background::batches` runs them. Each line is a request to
//! the router itself, so that it is checked, limited and counted like a request of the key that
//! made the batch, at background priority.

use std::sync::Arc;

use multigraft_batches::{Store, StoreError};
use tokio::sync::watch;

use crate::http::error::ApiError;

/// The files and batches of a server.
#[derive(Clone, Debug)]
pub struct Batches {
    store: Arc<Store>,
    /// Notifies when a batch was added or cancelled.
    changed: watch::Sender<()>,
}

impl Batches {
    /// The files and batches in `store`.
    pub fn new(store: Store) -> Self {
        let (changed, _) = watch::channel(());
        let store = Arc::new(store);
        Self { store, changed }
    }

    /// Announces that a batch was added or cancelled.
    pub(crate) fn notify(&self) {
        self.changed.send_replace(());
    }

    /// Is notified when a batch is added or cancelled.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The store, which also knows the paths of files' contents.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Runs `work` on the store, on a thread that may block.
    pub(crate) async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let store = Arc::clone(&self.store);
        match tokio::task::spawn_blocking(move || work(&store)).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => {
                // The error names paths of the server, which are not for clients.
                tracing::error!(%error, "the store of files and batches failed");
                let message = "the server's files cannot be read or written; its log says more";
                Err(ApiError::Failed(message.to_owned()))
            }
            Err(error) => Err(ApiError::Failed(error.to_string())),
        }
    }
}

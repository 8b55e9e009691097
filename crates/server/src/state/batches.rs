//! Batches: files of requests that are run when the machine has nothing better to do.
//!
//! Their state is the store's ([`multigraft_batches`]); `background::batches` goes through what is not done. A
//! line is a request to the router itself, so that it is checked, limited, counted and answered as
//! if its key had sent it, only in the background.

use std::sync::Arc;

use multigraft_batches::{Store, StoreError};
use tokio::sync::watch;

use crate::http::error::ApiError;

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

    /// Hears when a batch was begun or cancelled.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
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

//! What all requests to other machines have in common.

use std::time::Duration;

use tokio::runtime::Builder;

use crate::error::FetchError;

/// How long a connection may take to come about.
pub(crate) const CONNECT: Duration = Duration::from_secs(10);

/// The most redirections of one request.
pub(crate) const REDIRECTS: usize = 5;

/// How long nothing may arrive.
pub(crate) const STALL: Duration = Duration::from_secs(60);

/// Runs a download on this thread.
pub(crate) fn block_on<T>(future: impl Future<Output = Result<T, FetchError>>) -> Result<T, FetchError> {
    install_tls();
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| FetchError::Transport(error.to_string()))?;
    runtime.block_on(future)
}

/// Says which implementation of TLS there is; a second time it changes nothing.
fn install_tls() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// An error with its causes: many say what matters only there.
pub(crate) fn described(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

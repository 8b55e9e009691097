//! Time limits, redirects, TLS and errors of all requests to other machines.

use std::time::Duration;

use tokio::runtime::Builder;

use crate::error::FetchError;

/// Time limit for establishing a connection.
pub(crate) const CONNECT: Duration = Duration::from_secs(10);

/// Largest number of redirects of a request.
pub(crate) const REDIRECTS: usize = 5;

/// A download fails if no data arrives for this long.
pub(crate) const STALL: Duration = Duration::from_secs(60);

/// Runs a download on this thread.
pub(crate) fn block_on<T>(future: impl Future<Output = Result<T, FetchError>>) -> Result<T, FetchError> {
    install_tls();
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| FetchError::Transport(error.to_string()))?;
    runtime.block_on(future)
}

/// Selects the TLS implementation. Calls after the first change nothing.
fn install_tls() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The message of an error with those of its causes: many errors say only there what matters.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
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

//! Serving, and graceful shutdown.
//!
//! On the first signal the server stops accepting connections, waits until the requests in flight
//! have ended, and returns. The end of the grace period or a second signal ends the wait. Streams
//! that are cut off end without their last event, which clients report as an error.

use std::{future::Future, io, time::Duration};

use axum::Extension;
use tokio::{net::TcpListener, sync::watch, task::JoinError, time::timeout};

use crate::{
    background::{batches, watchdog},
    http::connections::{self, ConnectionLimits, Tls},
    routes::router,
    state::AppState,
};

/// How the server stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every request had ended.
    Drained,
    /// Some requests were still in flight and were cut off.
    CutOff,
}

/// Serves `state` on `listener` until the future of `signal` completes, over TLS if `tls` is given.
/// Requests in flight then have the time `grace` to end; after it, or at a second signal, they are
/// cut off.
///
/// # Errors
/// A panic of the accepting task. Errors of connections are only logged.
pub async fn serve<S, F>(
    listener: TcpListener,
    state: AppState,
    limits: ConnectionLimits,
    tls: Option<Tls>,
    grace: Duration,
    mut signal: S,
) -> io::Result<Ended>
where
    S: FnMut() -> F,
    F: Future<Output = ()>,
{
    let (stop, stopped) = watch::channel(false);
    let routes = router(state.clone()).layer(Extension(stopped.clone()));
    // Not awaited at shutdown: the next process continues the batches.
    tokio::spawn(batches::run(state.clone(), routes.clone(), stopped.clone()));
    tokio::spawn(watchdog::watch(state));
    let mut server = tokio::spawn(connections::answer(listener, routes, limits, tls, stopped));
    tokio::select! {
        ended = &mut server => return joined(ended),
        () = signal() => {}
    }
    tracing::info!("stopping: waiting for the requests in flight");
    let _ = stop.send(true);
    let cut_off = tokio::select! {
        ended = timeout(grace, &mut server) => match ended {
            Ok(ended) => return joined(ended),
            Err(_) => "the grace period is over",
        },
        () = signal() => "second signal",
    };
    tracing::warn!("{cut_off}: requests in flight are cut off");
    server.abort();
    Ok(Ended::CutOff)
}

fn joined(ended: Result<(), JoinError>) -> io::Result<Ended> {
    ended.map(|()| Ended::Drained).map_err(io::Error::other)
}

/// Completes at the next SIGINT (Ctrl-C) or, on Unix, SIGTERM.
pub async fn interrupt() {
    let ctrl_c = async {
        if tokio::signal::ctrl_c().await.is_err() {
            // Without this handler, the system's default ends the process.
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminate = std::future::pending();
    tokio::select! {
        () = ctrl_c => {}
        () = terminate => {}
    }
}

//! Listening, and ending gracefully.
//!
//! On the first signal the server stops accepting, lets the requests under way end, and returns; a
//! deadline or a second signal ends the wait. Streams that are cut off this way end without their
//! last event, which clients report as an error.

use std::{future::Future, io, time::Duration};

use axum::Extension;
use tokio::{net::TcpListener, sync::watch, task::JoinError, time::timeout};

use crate::{
    background::{batches, watchdog},
    http::connections::{self, ConnectionLimits, Tls},
    routes::router,
    state::AppState,
};

/// How serving came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every request was answered.
    Drained,
    /// Some requests were still under way.
    CutOff,
}

/// Serves `state` on `listener`, over TLS if there is a certificate, until `signal` yields.
/// Requests under way then have `grace` to end; `signal` a second time, or the end of `grace`, cuts
/// them off.
///
/// # Errors
/// A bug of the server's. Faults of connections, or in taking them, are logged.
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
    // It is not waited for: what is left of batches is for the next process.
    tokio::spawn(batches::run(state.clone(), routes.clone(), stopped.clone()));
    tokio::spawn(watchdog::watch(state));
    let mut server = tokio::spawn(connections::answer(listener, routes, limits, tls, stopped));
    tokio::select! {
        ended = &mut server => return joined(ended),
        () = signal() => {}
    }
    tracing::info!("stopping: waiting for the requests under way");
    let _ = stop.send(true);
    let cut_off = tokio::select! {
        ended = timeout(grace, &mut server) => match ended {
            Ok(ended) => return joined(ended),
            Err(_) => "the grace period is over",
        },
        () = signal() => "asked a second time",
    };
    tracing::warn!("{cut_off}: requests under way are cut off");
    server.abort();
    Ok(Ended::CutOff)
}

fn joined(ended: Result<(), JoinError>) -> io::Result<Ended> {
    ended.map(|()| Ended::Drained).map_err(io::Error::other)
}

/// The next SIGINT (Ctrl-C) or, on Unix, SIGTERM.
pub async fn interrupt() {
    let ctrl_c = async {
        if tokio::signal::ctrl_c().await.is_err() {
            // Without a handler the system's own ends the process.
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

//! Taking connections, and within which limits: how many there are, and how long a client may take
//! to send and to read.
//!
//! One task accepts; each connection has a task of its own, which ends with it. When the server
//! stops, connections that wait for a request are closed, and the others once their answer is sent.

mod body;
mod io;
mod tls;

use std::{convert::Infallible, net::SocketAddr, pin::pin, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request},
    response::Response,
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tower::ServiceExt as _;

use crate::http::{dialect::Dialect, error::ApiError};
use body::Paced;
pub(crate) use body::is_too_slow;
use io::{Phase, Timed};
pub use tls::{Tls, TlsError};

/// The most bytes of a request line and its headers; more are 431.
const HEADER_BYTES: usize = 64 << 10;
/// The most headers; more are 431.
const HEADERS: usize = 100;
/// The most bytes that are buffered of a connection, each way.
const BUFFER: usize = 256 << 10;

/// After an accept that failed for want of something (mostly file handles), so that it is not tried
/// in a circle.
const PAUSE: Duration = Duration::from_millis(500);

/// Connections beyond the most that are told so at once; others are closed without a word.
const REFUSALS: usize = 64;
/// How long telling them may take.
const REFUSAL: Duration = Duration::from_secs(1);

/// What a connection may take.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// How many there are at once, at least 1. The next gets 503 and is closed.
    pub most: usize,
    /// From a request's first byte (of the first request: from the connection) until all of its
    /// headers are there.
    pub headers: Duration,
    /// Between requests.
    pub idle: Duration,
    /// How long is waited for a body; each [`BODY_RATE`](Self::BODY_RATE) bytes of it that come
    /// give back a second.
    pub body: Duration,
    /// How long a client may read nothing of what is sent to it.
    pub write: Duration,
}

impl ConnectionLimits {
    /// Bytes a second that are slow, but not so slow that the client is cut off.
    pub const BODY_RATE: f64 = 1024.0;
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            most: 4096,
            headers: Duration::from_secs(10),
            // Longer than what proxies keep connections for, mostly 60 s: who closes first does not
            // run into a request.
            idle: Duration::from_secs(75),
            body: Duration::from_secs(30),
            write: Duration::from_secs(30),
        }
    }
}

/// Takes connections and answers requests by `routes`, until `stopping` is true and the last
/// connection has ended. Dropping it cuts off those that are left.
pub(crate) async fn answer(
    listener: TcpListener,
    routes: Router,
    limits: ConnectionLimits,
    tls: Option<Tls>,
    mut stopping: watch::Receiver<bool>,
) {
    let _following = tls.clone().map(|tls| {
        let mut following = JoinSet::new();
        following.spawn(async move { tls.follow().await });
        following
    });
    let mut connections = JoinSet::new();
    let mut refusals = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop(&mut stopping) => break,
        };
        while connections.try_join_next().is_some() {}
        while refusals.try_join_next().is_some() {}
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_the_clients(&error) => continue,
            Err(error) => {
                tracing::error!(%error, connections = connections.len(), "a connection could not be taken");
                tokio::select! {
                    () = sleep(PAUSE) => continue,
                    () = stop(&mut stopping) => break,
                }
            }
        };
        if connections.len() < limits.most {
            let connection = Connection {
                address,
                limits,
                routes: routes.clone(),
                stopping: stopping.clone(),
                tls: tls.clone(),
            };
            connections.spawn(connection.run(stream));
        } else {
            tracing::warn!(most = limits.most, "a connection too many was refused");
            // Within TLS it would take a handshake, which is what there is no room for.
            if refusals.len() < REFUSALS && tls.is_none() {
                refusals.spawn(timeout(REFUSAL, refuse(stream, limits.most)));
            }
        }
    }
    // Nobody connects in vain to a server that does not answer any more.
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Until the server stops. An error means that the sender is gone, which is a stop as well.
async fn stop(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// Whether accepting failed because the client has gone already.
fn is_the_clients(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

/// Tells a client that there are too many.
async fn refuse(mut stream: TcpStream, most: usize) -> std::io::Result<()> {
    // Its path was not read, so it is not known which dialect it speaks.
    let error = ApiError::Busy { most };
    let body = Dialect::OpenAi.error_body(&error).to_string();
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: {}\r\nretry-after: 1\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    // What was sent and not read would reset the connection, and the answer with it.
    let mut rest = [0; 4096];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

/// One client's connection.
struct Connection {
    address: SocketAddr,
    limits: ConnectionLimits,
    routes: Router,
    stopping: watch::Receiver<bool>,
    tls: Option<Tls>,
}

impl Connection {
    async fn run(mut self, stream: TcpStream) {
        // A token's chunk is a small packet; waiting to fill a larger one would add up to 40 ms to
        // each.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection stays with delays");
        }
        let Some(tls) = self.tls.take() else {
            return self.serve(stream).await;
        };
        let handshake = timeout(self.limits.headers, tls.acceptor().accept(stream));
        let secured = tokio::select! {
            secured = handshake => secured,
            () = stop(&mut self.stopping) => return,
        };
        match secured {
            Ok(Ok(stream)) => self.serve(stream).await,
            Ok(Err(error)) => tracing::debug!(%error, address = %self.address, "no TLS was agreed on"),
            Err(_) => tracing::debug!(address = %self.address, "the TLS handshake took too long"),
        }
    }

    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let Self {
            address,
            limits,
            routes,
            mut stopping,
            tls: _,
        } = self;
        let phase = Phase::default();
        let stream = Timed::new(stream, phase.clone(), limits);
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let answering = phase.answering();
            let mut request: Request = request.map(|body| Body::new(Paced::new(body, limits.body)));
            request.extensions_mut().insert(ConnectInfo(address));
            let response = routes.clone().oneshot(request);
            async move {
                let response: Response = response.await?;
                Ok::<_, Infallible>(response.map(|body| answering.until_the_end_of(body)))
            }
        });
        let connection = http1::Builder::new()
            // `Timed` tells waiting for a request from waiting for the rest of it, which this does
            // not; but only with it does hyper read between requests, by which `Timed` notices that
            // time passes.
            .timer(TokioTimer::new())
            .header_read_timeout(limits.idle + limits.headers)
            .max_headers(HEADERS)
            .max_header_size(HEADER_BYTES)
            .max_buf_size(BUFFER)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stop(&mut stopping) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, %address, "a connection ended early");
        }
    }
}

//! Accepting connections, and their limits: the number of connections, and the times for sending
//! and reading.
//!
//! One task accepts connections, and each connection has its own task. When the server stops, idle
//! connections are closed at once, and the others after their response.

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

/// Largest request line with headers, in bytes. Longer ones are answered with 431.
const HEADER_BYTES: usize = 64 << 10;
/// Largest number of headers. More are answered with 431.
const HEADERS: usize = 100;
/// Buffer of a connection in each direction, in bytes.
const BUFFER: usize = 256 << 10;

/// Pause after a failed accept. The usual cause is a lack of file descriptors, and retrying at once
/// would spin.
const PAUSE: Duration = Duration::from_millis(500);

/// Number of surplus connections that get a 503 at the same time. Others are closed without a
/// response.
const REFUSALS: usize = 64;
/// Time limit of such a 503.
const REFUSAL: Duration = Duration::from_secs(1);

/// Limits of connections.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Largest number of connections, at least 1. The next one gets a 503 and is closed.
    pub most: usize,
    /// From the first byte of a request (for the first request: from the accept) to the end of its
    /// headers.
    pub headers: Duration,
    /// Between two requests.
    pub idle: Duration,
    /// How long the server waits for data of a body. Every [`BODY_RATE`](Self::BODY_RATE) bytes
    /// that arrive add a second, up to this limit.
    pub body: Duration,
    /// How long a client may leave a response unread.
    pub write: Duration,
}

impl ConnectionLimits {
    /// The lowest rate of a body that does not end in a timeout, in bytes per second.
    pub const BODY_RATE: f64 = 1024.0;
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            most: 4096,
            headers: Duration::from_secs(10),
            // Longer than the keep-alive time of most proxies (60 s): the proxy then closes first,
            // and no request meets a closing connection.
            idle: Duration::from_secs(75),
            body: Duration::from_secs(30),
            write: Duration::from_secs(30),
        }
    }
}

/// Accepts connections and answers requests with `routes` until `stopping` is true and the last
/// connection has ended. Dropping the future closes the remaining connections.
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
                tracing::error!(%error, connections = connections.len(), "a connection could not be accepted");
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
            tracing::warn!(
                most = limits.most,
                "a connection was refused: the limit of connections is reached"
            );
            // Over TLS the 503 would need a handshake, which costs more than a refusal should.
            if refusals.len() < REFUSALS && tls.is_none() {
                refusals.spawn(timeout(REFUSAL, refuse(stream, limits.most)));
            }
        }
    }
    // New clients are refused at once instead of waiting for a server that has stopped.
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Waits until the server stops. An error means that the sender was dropped, which is a stop too.
async fn stop(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// Whether accepting failed because the client has disconnected.
fn is_the_clients(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

/// Sends a 503: there are too many connections.
async fn refuse(mut stream: TcpStream, most: usize) -> std::io::Result<()> {
    // The request was not read, so its dialect is unknown.
    let error = ApiError::Busy { most };
    let body = Dialect::OpenAi.error_body(&error).to_string();
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: {}\r\nretry-after: 1\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    // Unread data would reset the connection, and the client would lose the response.
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
        // The chunk of a token is a small packet. Nagle's algorithm would delay it by up to 40 ms.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY could not be set on a connection");
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
            Ok(Err(error)) => tracing::debug!(%error, address = %self.address, "the TLS handshake failed"),
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
            // hyper's timer does not distinguish idle connections from slow headers; `Timed` does.
            // But only with a timer does hyper read between requests, which `Timed` needs to notice
            // its timeouts.
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

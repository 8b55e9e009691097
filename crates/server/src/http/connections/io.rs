//! A connection with timeouts: for the headers of a request, between requests, and for writes.

use std::{
    io::{self, ErrorKind},
    mem::MaybeUninit,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use super::ConnectionLimits;

/// How long the server reads and discards what a client sends after the last response.
const LINGER: Duration = Duration::from_secs(1);
/// Buffer size for the discarded data, in bytes.
const REST: usize = 4096;

/// Counts the begins and ends of responses on a connection. The count is odd during a response.
#[derive(Clone, Debug, Default)]
pub(super) struct Phase(Arc<AtomicU64>);

impl Phase {
    /// Marks the begin of a response, which lasts until the returned value is dropped.
    pub(super) fn answering(&self) -> Answering {
        self.0.fetch_add(1, Ordering::AcqRel);
        Answering(self.clone())
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// A response in progress.
#[derive(Debug)]
pub(super) struct Answering(Phase);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::AcqRel);
    }
}

impl Answering {
    /// `body`, whose end is the end of the response.
    pub(super) fn until_the_end_of(self, body: Body) -> Answered {
        Answered {
            body,
            _answering: self,
        }
    }
}

/// The body of a response in progress.
#[derive(Debug)]
pub(super) struct Answered {
    body: Body,
    _answering: Answering,
}

impl HttpBody for Answered {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The stream of a connection. A timeout is an error of the kind [`ErrorKind::TimedOut`], which
/// closes the connection.
#[derive(Debug)]
pub(super) struct Timed<S> {
    stream: S,
    limits: ConnectionLimits,
    phase: Phase,
    /// The phase in which `read_by` was set.
    of: u64,
    /// Whether the first bytes of the next request have arrived.
    has_begun: bool,
    read_by: Pin<Box<Sleep>>,
    write_by: Pin<Box<Sleep>>,
    /// Whether a write waits until the client reads.
    is_stuck: bool,
    /// When the server stops to read and discard, once it has sent everything.
    lingers: Option<Pin<Box<Sleep>>>,
}

impl<S> Timed<S> {
    pub(super) fn new(stream: S, phase: Phase, limits: ConnectionLimits) -> Self {
        let begin = Instant::now();
        Self {
            stream,
            of: phase.count(),
            phase,
            has_begun: true,
            read_by: Box::pin(sleep_until(begin + limits.headers)),
            write_by: Box::pin(sleep_until(begin)),
            is_stuck: false,
            lingers: None,
            limits,
        }
    }

    /// Starts the write timer when a write blocks, and fails when the timer ends.
    fn written<T>(&mut self, outcome: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.is_stuck = false;
            return outcome;
        }
        if !self.is_stuck {
            self.is_stuck = true;
            self.write_by.as_mut().reset(Instant::now() + self.limits.write);
        }
        ready!(self.write_by.as_mut().poll(context));
        Poll::Ready(Err(late("the client does not read its answer")))
    }
}

fn late(what: &str) -> io::Error {
    io::Error::new(ErrorKind::TimedOut, what)
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_read(context, buffer);
        let phase = self.phase.count();
        if phase != self.of {
            self.of = phase;
            self.has_begun = false;
            let idle = Instant::now() + self.limits.idle;
            self.read_by.as_mut().reset(idle);
        }
        if phase % 2 == 1 {
            // `Paced` limits the time of bodies, and a client that waits for a response has nothing
            // to send.
            return outcome;
        }
        if outcome.is_ready() {
            if !self.has_begun {
                self.has_begun = true;
                let headers = Instant::now() + self.limits.headers;
                self.read_by.as_mut().reset(headers);
            }
            return outcome;
        }
        ready!(self.read_by.as_mut().poll(context));
        Poll::Ready(Err(late("the client sent no request in time")))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(outcome, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.written(outcome, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(context);
        self.written(outcome, context)
    }

    /// Closes the sending direction, then reads and discards what the client sends for [`LINGER`].
    /// Closing a connection with unread data resets it, and the client would lose the rest of the
    /// response.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingers.is_none() {
            let outcome = Pin::new(&mut self.stream).poll_shutdown(context);
            ready!(self.written(outcome, context))?;
        }
        let Self { stream, lingers, .. } = &mut *self;
        let until = lingers.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + LINGER)));
        loop {
            // The timer is polled first, or a client that sends without end would keep the
            // connection.
            if until.as_mut().poll(context).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut rest = [MaybeUninit::uninit(); REST];
            let mut rest = ReadBuf::uninit(&mut rest);
            match ready!(Pin::new(&mut *stream).poll_read(context, &mut rest)) {
                Ok(()) if !rest.filled().is_empty() => {}
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}

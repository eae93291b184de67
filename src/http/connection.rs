//! One accepted connection: hyper above, and below it a clock that closes it when headers or the next request are too long in coming.

use crate::engine::stream::Stream;
use crate::metrics::{Counter, Metrics};
use crate::protocol::limits::Limits;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::error::Error;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// hyper's floor for its read buffer.
const MIN_BUFFER: usize = 8192;

/// hyper's own bound of the headers of one request.
const HYPERS_HEADERS: usize = 100;

/// How long a request may be on its way when the port is let go.
const ON_ITS_WAY: Duration = Duration::from_millis(250);

/// Serves requests until the peer is done, a limit is reached, or `finish` is cancelled and the request in flight is answered.
pub async fn serve<F, A, B>(stream: Stream, limits: &Limits, metrics: &Arc<Metrics>, finish: &CancellationToken, answer: F)
where
    F: Fn(Request<Incoming>) -> A,
    A: Future<Output = Response<B>>,
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let _open = Open::count(metrics);
    let phase = Arc::new(AtomicU8::new(HEAD));
    let deadline = Instant::now() + limits.header_timeout;
    let io = Timed {
        stream,
        phase: Arc::clone(&phase),
        clock: Box::pin(sleep_until(deadline)),
        deadline,
        header_timeout: limits.header_timeout,
        keep_alive: limits.keep_alive,
        metrics: Arc::clone(metrics),
    };
    let service = service_fn(|request: Request<Incoming>| {
        phase.store(BUSY, Relaxed);
        let (answer, phase) = (answer(request), &phase);
        async move {
            let response = answer.await;
            phase.store(ANSWERED, Relaxed);
            Ok::<_, Infallible>(response.map(|body| body.map_err(io::Error::other)))
        }
    });
    let mut builder = http1::Builder::new();
    builder.header_read_timeout(None).max_header_size(limits.header_bytes).max_buf_size(limits.header_bytes.max(MIN_BUFFER));
    if limits.headers != HYPERS_HEADERS {
        // Told, hyper makes its room for headers anew for each request, one by one; its own bound is free.
        builder.max_headers(limits.headers);
    }
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service).with_upgrades());
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = finish.cancelled() => {
            // hyper closes a connection on which it has read nothing yet, though its request may have arrived.
            let first = poll_fn(|cx| match connection.as_mut().poll(cx) {
                Poll::Pending if phase.load(Relaxed) == HEAD => Poll::Pending,
                Poll::Pending => Poll::Ready(None),
                Poll::Ready(result) => Poll::Ready(Some(result)),
            });
            match timeout(ON_ITS_WAY, first).await {
                Ok(Some(result)) => result,
                Ok(None) | Err(_) => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        }
    };
    if let Err(error) = result {
        if error.is_parse_too_large() {
            metrics.limit_headers.inc();
        }
        debug!(%error, "connection ended");
    }
}

/// A connection that is counted, also while a panic ends it.
struct Open<'a>(&'a Metrics);

impl<'a> Open<'a> {
    fn count(metrics: &'a Metrics) -> Self {
        metrics.connections.inc();
        Self(metrics)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}

/// Waiting for the first byte of a request.
const IDLE: u8 = 0;
/// Between the first byte of a request and the end of its headers.
const HEAD: u8 = 1;
/// A request is being answered; its body has a limit of its own.
const BUSY: u8 = 2;
/// The answer is on its way out.
const ANSWERED: u8 = 3;

/// A socket with a clock that runs between requests and while headers come in.
pub(super) struct Timed {
    stream: Stream,
    phase: Arc<AtomicU8>,
    /// Rings at the deadline or before, and is wound up again only then: most requests come and go without touching it.
    clock: Pin<Box<Sleep>>,
    deadline: Instant,
    header_timeout: Duration,
    keep_alive: Duration,
    metrics: Arc<Metrics>,
}

impl Timed {
    /// The socket alone, when HTTP is over.
    pub(super) fn into_stream(self) -> Stream {
        self.stream
    }

    fn limit(&self, phase: u8) -> &Counter {
        if phase == IDLE { &self.metrics.limit_keep_alive } else { &self.metrics.limit_header_timeout }
    }

    /// Waits for the deadline.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.clock.deadline() > self.deadline {
            self.clock.as_mut().reset(self.deadline);
        }
        loop {
            ready!(self.clock.as_mut().poll(cx));
            if self.clock.deadline() >= self.deadline {
                return Poll::Ready(());
            }
            self.clock.as_mut().reset(self.deadline);
        }
    }

    /// The first written byte of an answer ends its request; every later one shows that the client is still reading it.
    fn wrote(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let phase = self.phase.load(Relaxed);
        if phase == ANSWERED || (phase == IDLE && result.is_ready()) {
            self.phase.store(IDLE, Relaxed);
            self.deadline = Instant::now() + self.keep_alive;
            // hyper has looked for the next request before it wrote the answer, and looks again only when it is woken.
            let _ = self.poll_deadline(cx);
        }
        result
    }
}

impl AsyncRead for Timed {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let result = Pin::new(&mut this.stream).poll_read(cx, buffer);
        let phase = this.phase.load(Relaxed);
        if result.is_ready() {
            if phase == IDLE && buffer.filled().len() > before {
                this.phase.store(HEAD, Relaxed);
                this.deadline = Instant::now() + this.header_timeout;
            }
            return result;
        }
        if phase == IDLE || phase == HEAD {
            ready!(this.poll_deadline(cx));
            this.limit(phase).inc();
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }
}

impl AsyncWrite for Timed {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.wrote(cx, result)
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write_vectored(cx, pieces);
        this.wrote(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

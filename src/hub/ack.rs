//! Acknowledgements: those that a client waits for, and those that we wait for.

use super::adapter::{Missing, RemoteAck};
use super::broadcast::Flags;
use super::errors::{AckError, EmitError};
use super::event::IntoArgs;
use super::socket::Socket;
use crate::protocol::sid::SocketId;
use crate::protocol::sio::{AckId, Args};
use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Sleep, sleep_until};

/// Acknowledges an event, once; clones share that once, and what comes later is ignored, as in the reference.
///
/// An event whose client waits for no acknowledgement has one too, which sends nothing.
///
/// ```
/// use stickyport::hub::{AckSender, Data, Namespace};
///
/// Namespace::new("/").on("resize", async |Data(image): Data<String>, ack: AckSender| {
///     tokio::spawn(async move {
///         let size = image.len();
///         let _ = ack.send(size);
///     });
/// });
/// ```
#[derive(Clone)]
pub struct AckSender(Option<Arc<Slot>>);

struct Slot {
    socket: Socket,
    id: AckId,
    is_sent: AtomicBool,
}

impl AckSender {
    pub(super) fn asked(socket: Socket, id: AckId) -> Self {
        Self(Some(Arc::new(Slot { socket, id, is_sent: AtomicBool::new(false) })))
    }

    pub(super) const fn unasked() -> Self {
        Self(None)
    }

    /// Whether the client waits for an acknowledgement that was not sent yet.
    pub fn is_awaited(&self) -> bool {
        self.0.as_ref().is_some_and(|slot| !slot.is_sent.load(Relaxed))
    }

    /// Whether the client asked for an acknowledgement.
    pub fn is_asked(&self) -> bool {
        self.0.is_some()
    }

    /// Acknowledges with these arguments: a tuple is several, `()` none.
    ///
    /// # Errors
    /// The arguments have no form in JSON, or the socket is disconnected.
    pub fn send(&self, args: impl IntoArgs) -> Result<(), EmitError> {
        let Some(slot) = &self.0 else { return Ok(()) };
        let args = args.into_args()?;
        if slot.is_sent.swap(true, Relaxed) {
            return Ok(());
        }
        // In its turn: who hears it may rely on what was said before to reach everybody, whatever becomes of this node.
        let packets = slot.socket.io().parser().ack(slot.socket.namespace(), &slot.id, &args);
        slot.socket.send_in_turn(&Flags::default(), packets)
    }
}

impl fmt::Debug for AckSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AckSender").field("id", &self.0.as_ref().map(|slot| &slot.id)).finish_non_exhaustive()
    }
}

/// The acknowledgements that one socket owes us.
#[derive(Default)]
pub(super) struct Pending(Mutex<Waits>);

#[derive(Default)]
struct Waits {
    /// In the order in which they were asked for, which is the order in which the end of the socket wakes them.
    by_id: BTreeMap<u64, Wait>,
    is_closed: bool,
}

/// Who waits; dropped when the socket disconnects, which the other end notices. An end that gives up calls [`Pending::forget`].
pub(super) enum Wait {
    One(oneshot::Sender<Args>),
    Broadcast(mpsc::Sender<(SocketId, Args)>),
}

impl Pending {
    pub(super) fn register(&self, id: u64, wait: Wait, limit: usize) -> Result<(), AckError> {
        let mut waits = self.lock();
        if waits.is_closed {
            return Err(AckError::Disconnected);
        }
        if waits.by_id.len() >= limit {
            return Err(AckError::TooMany);
        }
        waits.by_id.insert(id, wait);
        Ok(())
    }

    /// An acknowledgement came; nobody may have asked for it.
    pub(super) fn resolve(&self, id: u64, socket: &SocketId, args: Args) {
        let wait = self.lock().by_id.remove(&id);
        match wait {
            Some(Wait::One(sender)) => drop(sender.send(args)),
            Some(Wait::Broadcast(sender)) => drop(sender.try_send((socket.clone(), args))),
            None => tracing::trace!(id, "an acknowledgement that nobody waits for"),
        }
    }

    pub(super) fn forget(&self, id: u64) {
        self.lock().by_id.remove(&id);
    }

    /// Nothing comes any more.
    pub(super) fn close(&self) {
        let waits = {
            let mut waits = self.lock();
            waits.is_closed = true;
            std::mem::take(&mut waits.by_id)
        };
        // Without the lock: this wakes whoever waits, who may let go of another one.
        drop(waits);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().by_id.len()
    }

    fn lock(&self) -> MutexGuard<'_, Waits> {
        self.0.lock().expect("no code that can panic runs under this lock")
    }
}

/// A time limit whose clock runs from its creation.
struct Limit {
    at: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Limit {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // A timer fires a moment later, when the answer to what had no time at all may be there.
        if Instant::now() >= self.at {
            return Poll::Ready(());
        }
        self.sleep.get_or_insert_with(|| Box::pin(sleep_until(self.at))).as_mut().poll(cx)
    }
}

pub(super) fn limit(timeout: Option<std::time::Duration>) -> Option<Instant> {
    timeout.and_then(|timeout| Instant::now().checked_add(timeout))
}

/// The acknowledgement of one socket, to be awaited; the event was sent when this was made.
///
/// Without [`timeout`](super::Emitter::timeout) it waits as long as the socket is connected.
#[must_use = "the event is sent, but its acknowledgement is only had by awaiting this"]
pub struct PendingAck {
    state: Result<Awaited, Option<AckError>>,
}

struct Awaited {
    socket: Socket,
    id: u64,
    receiver: oneshot::Receiver<Args>,
    limit: Option<Limit>,
}

impl PendingAck {
    pub(super) fn failed(error: AckError) -> Self {
        Self { state: Err(Some(error)) }
    }

    pub(super) fn waiting(socket: Socket, id: u64, receiver: oneshot::Receiver<Args>, until: Option<Instant>) -> Self {
        Self { state: Ok(Awaited { socket, id, receiver, limit: until.map(|at| Limit { at, sleep: None }) }) }
    }
}

impl Future for PendingAck {
    type Output = Result<Args, AckError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let awaited = match &mut self.state {
            Ok(awaited) => awaited,
            Err(error) => return Poll::Ready(Err(error.take().expect("a future is not polled after it was ready"))),
        };
        if let Poll::Ready(result) = Pin::new(&mut awaited.receiver).poll(cx) {
            return Poll::Ready(result.map_err(|_| AckError::Disconnected));
        }
        match &mut awaited.limit {
            Some(limit) => limit.poll(cx).map(|()| Err(AckError::Timeout)),
            None => Poll::Pending,
        }
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.socket.pending().forget(self.id);
    }
}

impl fmt::Debug for PendingAck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingAck").field("is_failed", &self.state.is_err()).finish_non_exhaustive()
    }
}

/// The acknowledgements of a broadcast.
#[derive(Debug, Clone, Default)]
pub struct BroadcastReply {
    /// Who acknowledged, with what, in the order of arrival; Node's servers do not say who, and pass on the first argument only.
    pub replies: Vec<(Option<SocketId>, Args)>,
    /// How many sockets did not: they disconnected, or took longer than the time that was set.
    pub missing: usize,
    /// Nodes of the cluster that did not say how many sockets they asked.
    pub missing_nodes: Missing,
}

impl BroadcastReply {
    /// Whether every socket acknowledged.
    pub fn is_complete(&self) -> bool {
        self.missing == 0 && self.missing_nodes.is_nobody()
    }
}

/// The acknowledgements of a broadcast, to be awaited; the event was sent when this was made.
///
/// It is ready when every socket has acknowledged or disconnected, or when the time that [`timeout`](super::Broadcast::timeout) sets is over.
#[must_use = "the event is sent, but its acknowledgements are only had by awaiting this"]
pub struct PendingAcks {
    state: Result<Gathered, Option<EmitError>>,
}

struct Gathered {
    /// Each with the id that the event has in its namespace.
    sockets: Vec<(Socket, u64)>,
    receiver: mpsc::Receiver<(SocketId, Args)>,
    replies: Vec<(Option<SocketId>, Args)>,
    limit: Option<Limit>,
    is_over: bool,
    remote: Option<Remote>,
}

/// What is to come from other nodes, which keep to the time limit themselves.
struct Remote {
    receiver: mpsc::UnboundedReceiver<RemoteAck>,
    asked: usize,
    missing: Missing,
    is_over: bool,
}

impl Remote {
    fn poll(&mut self, cx: &mut Context<'_>, replies: &mut Vec<(Option<SocketId>, Args)>) -> Poll<()> {
        while !self.is_over {
            match std::task::ready!(self.receiver.poll_recv(cx)) {
                Some(RemoteAck::Asked(count)) => self.asked += count,
                Some(RemoteAck::Came(id, args)) => replies.push((id, args)),
                Some(RemoteAck::Missing(missing)) => self.missing.add(missing),
                None => self.is_over = true,
            }
        }
        Poll::Ready(())
    }
}

impl PendingAcks {
    pub(super) fn failed(error: EmitError) -> Self {
        Self { state: Err(Some(error)) }
    }

    pub(super) fn waiting(
        sockets: Vec<(Socket, u64)>,
        receiver: mpsc::Receiver<(SocketId, Args)>,
        until: Option<Instant>,
        remote: Option<mpsc::UnboundedReceiver<RemoteAck>>,
    ) -> Self {
        let limit = until.map(|at| Limit { at, sleep: None });
        let remote = remote.map(|receiver| Remote { receiver, asked: 0, missing: Missing::default(), is_over: false });
        Self { state: Ok(Gathered { sockets, receiver, replies: Vec::new(), limit, is_over: false, remote }) }
    }

    /// How many sockets of this node were asked.
    pub(crate) fn asked(&self) -> usize {
        self.state.as_ref().map_or(0, |gathered| gathered.sockets.len())
    }

    /// What the next socket of this node acknowledges with; `None` when no more come.
    pub(crate) async fn next(&mut self) -> Option<(SocketId, Args)> {
        let gathered = self.state.as_mut().ok()?;
        poll_fn(|cx| gathered.poll_next(cx)).await
    }
}

impl Future for PendingAcks {
    type Output = Result<BroadcastReply, EmitError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let gathered = match &mut self.state {
            Ok(gathered) => gathered,
            Err(error) => return Poll::Ready(Err(error.take().expect("a future is not polled after it was ready"))),
        };
        // In the order of arrival, wherever they come from.
        let remote = gathered.remote.as_mut().map_or(Poll::Ready(()), |remote| remote.poll(cx, &mut gathered.replies));
        while !gathered.is_over {
            match std::task::ready!(gathered.poll_next(cx)) {
                Some((id, args)) => gathered.replies.push((Some(id), args)),
                None => gathered.is_over = true,
            }
        }
        std::task::ready!(remote);
        let replies = std::mem::take(&mut gathered.replies);
        let (asked, missing_nodes) =
            gathered.remote.take().map_or((0, Missing::default()), |remote| (remote.asked, remote.missing));
        let missing = (gathered.sockets.len() + asked).saturating_sub(replies.len());
        Poll::Ready(Ok(BroadcastReply { replies, missing, missing_nodes }))
    }
}

impl Gathered {
    /// What the next socket of this node acknowledges with; `None` when no more come, or the time is over.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<(SocketId, Args)>> {
        match self.receiver.poll_recv(cx) {
            Poll::Pending if self.limit.as_mut().is_some_and(|limit| limit.poll(cx).is_ready()) => Poll::Ready(None),
            // `None` if every sender was used or dropped.
            next => next,
        }
    }
}

impl Drop for Gathered {
    fn drop(&mut self) {
        for (socket, id) in &self.sockets {
            socket.pending().forget(*id);
        }
    }
}

impl fmt::Debug for PendingAcks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingAcks").field("is_failed", &self.state.is_err()).finish_non_exhaustive()
    }
}

//! The one loop of a session: the only place where it sleeps, and where its WebSocket is read.

use super::session::{Farewell, Link, Session, State};
use super::stream::Stream;
use super::transport::websocket::{Lost, WebSocket, with_read_buffer};
use crate::protocol::eio::{Encoded, Message, Packet, Version, v3};
use crate::protocol::errors::CloseReason;
use std::future::poll_fn;
use std::io::IoSlice;
use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;
use tokio::task::coop::unconstrained;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until, timeout};

/// Time for the peer to take the close frame and close its side; after it the socket is dropped.
const LINGER: Duration = Duration::from_secs(3);

/// RFC 6455, section 7.4.1: a message was too big.
const CLOSE_TOO_BIG: [u8; 4] = [0x88, 2, 0x03, 0xf1];
/// A close frame without a code.
const CLOSE: [u8; 2] = [0x88, 0];

/// Runs a session to its end.
///
/// Its waits: `sleep` for the earliest deadline of the protocol and of the application, `bell` for another task's changes (something to send, an upgrade, an
/// end), `writable` for room in the kernel while packets wait, `readable` for the client's bytes while the application takes more.
pub(super) async fn drive(session: Arc<Session>, mut socket: Option<Box<WebSocket>>) {
    let sleep = sleep_until(Instant::now());
    tokio::pin!(sleep);
    let mut last_words: &[u8] = &CLOSE;
    // Who is woken by the clock and the bell. They keep it, and are asked without a lock.
    let mut listener: Option<Waker> = None;
    let mut next = session.turn(&mut socket);
    while let Some(turn) = next {
        if sleep.deadline() != turn.deadline {
            sleep.as_mut().reset(turn.deadline);
            listener = None;
        }
        let is_ready = session.connection().ready();
        let stream = socket.as_ref().map(|socket| socket.stream());
        let is_stopped = socket.as_ref().is_some_and(|socket| socket.is_stopped());
        // By hand: `select!` would enter the lists of all that it waits for, and leave them again, for every message.
        let woken = poll_fn(|cx| {
            if !listener.as_ref().is_some_and(|listener| listener.will_wake(cx.waker())) {
                session.bell.listen(cx.waker());
                // Whatever the task has left of its turn, it has to be in the clock's list.
                if pin!(unconstrained(sleep.as_mut())).poll(cx).is_ready() {
                    return Poll::Ready(Woken::Time);
                }
                listener = Some(cx.waker().clone());
            }
            if sleep.is_elapsed() {
                return Poll::Ready(Woken::Time);
            }
            if session.bell.is_heard() {
                return Poll::Ready(Woken::Told);
            }
            let Some(stream) = stream else { return Poll::Pending };
            // Errors of the socket are met by the call that follows.
            if turn.has_backlog && stream.poll_writable(cx).is_ready() {
                return Poll::Ready(Woken::Writable);
            }
            if is_ready && (is_stopped || stream.poll_readable(cx).is_ready()) {
                return Poll::Ready(Woken::Readable);
            }
            Poll::Pending
        });
        next = match woken.await {
            Woken::Time => {
                session.handle_timeout(is_ready);
                None
            }
            Woken::Told => None,
            Woken::Writable => {
                session.flush(&mut session.lock());
                None
            }
            Woken::Readable => read(&session, &mut socket, &mut last_words),
        };
        if next.is_none() {
            next = session.turn(&mut socket);
        }
        // Others get their turn before more is read; the runtime by itself would let a flood go on for a hundred turns.
        if socket.as_ref().is_some_and(|socket| socket.has_more()) {
            yield_now().await;
        }
    }
    session.bell.leave();
    if let Some(socket) = socket {
        // What it has read and cannot hand on any more goes at once.
        let stream = Arc::clone(socket.stream());
        drop(socket);
        // Apart, because it is as large as all the rest of an idle session's task.
        Box::pin(close(&session, &stream, last_words)).await;
    }
}

/// What the loop has waited for.
enum Woken {
    Time,
    Told,
    Writable,
    Readable,
}

/// What the loop waits for next.
pub(super) struct Turn {
    deadline: Instant,
    has_backlog: bool,
}

impl Turn {
    /// `None` when the session is over.
    pub(super) fn of(state: &State) -> Option<Self> {
        let (deadline, _) = state.machine.poll_deadline()?;
        let has_backlog = matches!(state.link, Link::WebSocket(_)) && !state.outbox.is_empty();
        Some(Self { deadline: Instant::from_std(deadline), has_backlog })
    }

    fn before(self, other: Option<Instant>) -> Self {
        Self { deadline: other.map_or(self.deadline, |other| other.min(self.deadline)), ..self }
    }
}

impl Session {
    /// Takes over an upgraded socket, ends a session that has nothing left to say; `None` when it is over.
    fn turn(self: &Arc<Self>, socket: &mut Option<Box<WebSocket>>) -> Option<Turn> {
        let mut state = self.run();
        if let Some(upgraded) = state.upgraded.take() {
            *socket = Some(upgraded);
        }
        let needs_no_words = match &state.link {
            // A GET that is parked is on its way to end the session.
            Link::Polling(requests) => state.farewell == Farewell::Silent && !requests.has_get(),
            Link::WebSocket(_) | Link::Closed => true,
        };
        if needs_no_words && state.machine.is_closing() && state.outbox.is_empty() {
            state.machine.handle_drained();
            state = self.run_from(state);
        }
        let turn = Turn::of(&state)?;
        drop(state);
        Some(turn.before(self.connection().deadline()))
    }

    fn handle_timeout(self: &Arc<Self>, is_reading: bool) {
        let now = Instant::now();
        self.lock().machine.handle_timeout(now.into_std(), is_reading);
        if self.connection().deadline().is_some_and(|deadline| deadline <= now) {
            self.tell(|| self.connection().timeout(self, now));
        }
    }
}

/// Hands on the messages of one turn; `Some` says what the loop waits for next, if nothing else has to be looked at before.
fn read(session: &Arc<Session>, socket: &mut Option<Box<WebSocket>>, last_words: &mut &[u8]) -> Option<Turn> {
    let socket = socket.as_mut()?;
    let mut replies = Vec::new();
    let mut next = None;
    let result = socket.read(&mut replies, |message| {
        next = match decode(session.version(), message) {
            Some(packet) => session.receive(packet),
            None => {
                session.lose(CloseReason::ParseError);
                None
            }
        };
        if next.is_some() && session.connection().ready() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    if !replies.is_empty() {
        session.push_frames(&replies);
    }
    match result {
        Ok(()) if replies.is_empty() => return next.map(|turn| turn.before(session.connection().deadline())),
        Ok(()) => {}
        Err(Lost::Closed) => {
            // The answer to a close frame, if there was one, has just been sent.
            *last_words = &[];
            session.lose(CloseReason::TransportClose);
        }
        Err(Lost::Broken | Lost::Overflow) => session.lose(CloseReason::TransportError),
        Err(Lost::TooLarge) => {
            *last_words = &CLOSE_TOO_BIG;
            session.metrics().limit_payload.inc();
            session.lose(CloseReason::TransportError);
        }
    }
    None
}

fn decode(version: Version, message: Message) -> Option<Packet> {
    match (version, message) {
        (Version::V3, message) => v3::decode_packet(message).ok(),
        (Version::V4, Message::Text(text)) => Packet::decode(text).ok(),
        (Version::V4, message) => Some(Packet::Message(message)),
    }
}

/// Runs a candidate until it has become the session's transport, or is of no use.
pub(super) async fn probe(session: Arc<Session>, mut socket: Box<WebSocket>) {
    let Some(mut cancelled) = session.propose(&socket) else {
        return close(&session, socket.stream(), &CLOSE).await;
    };
    loop {
        let stream = Arc::clone(socket.stream());
        let is_stopped = socket.is_stopped();
        tokio::select! {
            biased;
            _ = &mut cancelled => return close(&session, socket.stream(), &CLOSE).await,
            _ = stream.readable(), if !is_stopped => {}
            () = std::future::ready(()), if is_stopped => {}
        }
        let mut is_upgraded = false;
        let mut replies = Vec::new();
        let result = socket.read(&mut replies, |message| {
            match decode(session.version(), message) {
                Some(packet) => is_upgraded = session.receive_from_candidate(&stream, &packet),
                None => session.lose_candidate(&stream),
            }
            if is_upgraded { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if is_upgraded {
            match session.hand_over(socket) {
                None => session.bell.ring(),
                Some(socket) => close(&session, socket.stream(), &CLOSE).await,
            }
            return;
        }
        if !replies.is_empty() {
            let _ = stream.try_write_vectored(&[IoSlice::new(&replies)]);
        }
        if result.is_err() {
            session.lose_candidate(&stream);
            return linger(&stream).await;
        }
        if socket.has_more() {
            yield_now().await;
        }
    }
}

/// Says the last words on a socket that carries nothing more.
async fn close(session: &Session, stream: &Arc<Stream>, last_words: &[u8]) {
    let mut outbox = {
        let mut state = session.lock();
        let is_ours = matches!(&state.link, Link::WebSocket(ours) if Arc::ptr_eq(ours, stream));
        if is_ours {
            state.link = Link::Closed;
            session.metrics().outbound_bytes.add(-(state.outbox.bytes() as i64));
            std::mem::take(&mut state.outbox)
        } else {
            Default::default()
        }
    };
    if !last_words.is_empty() {
        outbox.push(Encoded::frames(last_words));
    }
    let farewell = async {
        while let Err(error) = outbox.write_with(|slices| stream.try_write_vectored(slices)) {
            if error.kind() != std::io::ErrorKind::WouldBlock || stream.writable().await.is_err() {
                return;
            }
        }
        stream.shut_down();
        swallow(stream).await;
    };
    // A peer that does not take its leave in time has none to take.
    let _ = timeout(LINGER, farewell).await;
}

async fn linger(stream: &Stream) {
    stream.shut_down();
    let _ = timeout(LINGER, swallow(stream)).await;
}

/// Reads to the end, so that closing does not reset the connection before the peer has read our last words.
async fn swallow(stream: &Stream) {
    while stream.readable().await.is_ok() {
        match with_read_buffer(|buffer| stream.try_read(buffer)) {
            Ok(0) => return,
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return,
            // Others get their turn while the peer goes on talking.
            _ => yield_now().await,
        }
    }
}

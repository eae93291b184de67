//! One client's session as Socket.IO sees it: its messages reach the sockets, and its end ends them.

use super::connect::connect;
use super::errors::{DisconnectReason, SocketError};
use super::event::Event;
use super::queue::On;
use super::socket::Socket;
use super::socketio::SocketIo;
use crate::engine::{CloseReason, Connection, Intake, Message, Session};
use crate::hub::ack::AckSender;
use crate::protocol::client::{Attempt, Client, Output, Violation};
use crate::protocol::sio::DecodeError;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use tokio::sync::Notify;
use tokio::time::Instant;

/// One client's session as Socket.IO sees it.
pub(super) struct Link {
    io: SocketIo,
    /// For the sockets that it makes.
    this: Weak<Self>,
    state: Mutex<State>,
    gone: Notify,
    /// Sockets on which too much waits.
    held_back: AtomicUsize,
    /// Cleared once the client has no deadline any more: this is asked for every message.
    has_deadline: AtomicBool,
}

struct State {
    client: Client<Socket>,
    /// Bytes of the messages that the next packet is put together from.
    incoming: Intake,
    is_closed: bool,
}

impl Link {
    pub(super) fn new(io: SocketIo, session: &Session) -> Arc<Self> {
        let limits = session.limits();
        let max_attachments = io.parser().max_attachments(limits);
        let connect_by = Instant::now() + io.options().connect_timeout;
        let client =
            Client::new(session.version(), io.parser(), max_attachments, limits.namespaces_per_session, connect_by.into_std());
        let state = Mutex::new(State { client, incoming: Intake::new(io.metrics(), limits), is_closed: false });
        Arc::new_cyclic(|this| Self {
            io,
            this: Weak::clone(this),
            state,
            gone: Notify::new(),
            held_back: AtomicUsize::new(0),
            has_deadline: AtomicBool::new(true),
        })
    }

    /// The session has just begun, and some clients come in by that alone.
    pub(super) fn open(&self, session: &Arc<Session>) {
        let output = self.lock().client.handle_open();
        self.act(session, output, 0);
    }

    pub(super) fn io(&self) -> &SocketIo {
        &self.io
    }

    /// The client is in; `false` says that it no longer wants to be.
    pub(super) fn join(&self, attempt: Attempt, socket: Socket) -> bool {
        let mut state = self.lock();
        state.client.join(attempt, socket) && !state.is_closed
    }

    /// The client stays out; `false` says that it no longer waits to hear so.
    pub(super) fn refuse(&self, attempt: Attempt) -> bool {
        let mut state = self.lock();
        state.client.refuse(attempt) && !state.is_closed
    }

    /// The server sends a socket away; `false` says that the client has left as this socket already.
    pub(super) fn leave(&self, socket: &Socket) -> bool {
        self.lock().client.leave(socket.namespace(), socket)
    }

    /// Sends the client out of every namespace and closes its session.
    pub(super) fn disconnect_all(&self, session: &Arc<Session>) {
        for socket in self.take_all() {
            if socket.close() {
                socket.farewell();
                socket.finish(DisconnectReason::ServerNamespaceDisconnect, On::Another);
            }
        }
        session.close(CloseReason::ForcedServerClose);
    }

    /// Waits until nothing of the client's is heard any more.
    pub(super) async fn closed(&self) {
        let gone = self.gone.notified();
        tokio::pin!(gone);
        // Registered before the look, so that the end does not fall between.
        gone.as_mut().enable();
        if !self.lock().is_closed {
            gone.await;
        }
    }

    /// Nothing of the client's is heard any more.
    fn take_all(&self) -> Vec<Socket> {
        let mut state = self.lock();
        state.is_closed = true;
        state.incoming.set(0);
        let sockets = state.client.leave_all();
        drop(state);
        self.gone.notify_waiters();
        sockets
    }

    fn end_all(&self, reason: CloseReason) {
        for socket in self.take_all() {
            socket.end(reason.into(), On::This);
        }
    }

    fn violated(&self, session: &Arc<Session>, violation: Violation) {
        let client = &*session.request().address;
        tracing::debug!(client, %violation, "a client broke the protocol");
        self.io.metrics().protocol_errors.inc();
        if violation == Violation::OtherParser {
            self.io.explain_parsers(client);
        }
        if let Violation::Decode(error) = violation {
            if error == DecodeError::TooManyAttachments {
                self.io.metrics().limit_attachments.inc();
            }
            let sockets: Vec<Socket> = self.lock().client.joined().cloned().collect();
            for socket in sockets {
                socket.report(&SocketError::Protocol(error));
            }
        }
        self.close(session, violation.close_reason(session.is_writable()));
    }

    fn close(&self, session: &Arc<Session>, reason: CloseReason) {
        session.close(reason);
        self.end_all(reason);
    }

    pub(super) fn hold_back(&self) {
        self.held_back.fetch_add(1, AcqRel);
    }

    pub(super) fn let_on(&self, session: &Arc<Session>) {
        if self.held_back.fetch_sub(1, AcqRel) == 1 {
            session.resume();
        }
    }

    /// Does what a message of the client's asks for, which took so many bytes.
    fn act(&self, session: &Arc<Session>, output: Option<Output<Socket>>, bytes: usize) {
        match output {
            None => {}
            Some(Output::Event { socket, name, args, ack }) => {
                self.io.metrics().events_received.inc();
                let ack = ack.map_or(AckSender::unasked(), |id| AckSender::asked(socket.clone(), id));
                socket.receive(Event::received(name, args, ack), bytes);
            }
            Some(Output::Ack { socket, id, args }) => socket.pending().resolve(id, socket.id(), args),
            Some(Output::Connect { namespace, auth, attempt }) => {
                let link = self.this.upgrade().expect("it is being called");
                connect(link, Arc::clone(session), namespace, auth, attempt);
            }
            Some(Output::TooManyNamespaces(namespace)) => {
                self.io.metrics().limit_namespaces.inc();
                self.io.metrics().connect_errors.inc();
                // A session that is closed needs no answer.
                let _ = session.send(&[self.io.parser().connect_error(&namespace, "Too many namespaces", None)]);
            }
            Some(Output::Leave(socket)) => socket.end(DisconnectReason::ClientNamespaceDisconnect, On::This),
            Some(Output::Violation(violation)) => self.violated(session, violation),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code that can panic runs under this lock")
    }
}

impl Connection for Link {
    fn message(&self, session: &Arc<Session>, message: Message) {
        let (output, bytes, room) = {
            let mut state = self.lock();
            if state.is_closed {
                return;
            }
            let bytes = state.incoming.held() + message.len();
            let output = state.client.handle_message(message);
            let waits = state.client.is_partial();
            let room = state.incoming.hold(if waits { bytes } else { 0 });
            (output, bytes, room)
        };
        if room.is_err() {
            session.discard(CloseReason::TransportError);
        }
        self.act(session, output, bytes);
    }

    fn heartbeat(&self, _session: &Arc<Session>) {
        // Nothing else wants to know, and this comes for every client all the time.
        if self.io.options().recovery.is_zero() {
            return;
        }
        let sockets: Vec<Socket> = self.lock().client.joined().cloned().collect();
        sockets.iter().for_each(Socket::heartbeat);
    }

    fn upgraded(&self, session: &Arc<Session>) {
        let sockets: Vec<Socket> = self.lock().client.joined().cloned().collect();
        for socket in sockets {
            socket.upgraded(session.transport());
        }
    }

    fn closed(&self, _session: &Arc<Session>, reason: CloseReason) {
        self.end_all(reason);
    }

    fn deadline(&self) -> Option<Instant> {
        if !self.has_deadline.load(Relaxed) {
            return None;
        }
        let deadline = self.lock().client.poll_deadline();
        self.has_deadline.store(deadline.is_some(), Relaxed);
        deadline.map(Instant::from_std)
    }

    fn timeout(&self, session: &Arc<Session>, now: Instant) {
        let is_late = self.lock().client.handle_timeout(now.into_std());
        if is_late {
            tracing::debug!("a client came into no namespace in time");
            self.close(session, CloseReason::ForcedServerClose);
        }
    }

    fn ready(&self) -> bool {
        self.held_back.load(Acquire) == 0
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("held_back", &self.held_back).finish_non_exhaustive()
    }
}

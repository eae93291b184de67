//! One client in one namespace.

use super::ack::{Pending, PendingAck, Wait, limit};
use super::adapter::Action;
use super::archive::ArchivedSession;
use super::broadcast::{Broadcast, Flags};
use super::connection::Link;
use super::emitter::Emitter;
use super::errors::{AckError, BoxError, DisconnectReason, EmitError, JoinError, SocketError};
use super::event::{IntoArgs, unreserved};
use super::handler::{Panic, guarded};
use super::handshake::Handshake;
use super::live::Live;
use super::queue::{On, Queue};
use super::recovery::{Far, Moving, Saved, Shelf, Trace, Track};
use super::room::{Room, Rooms};
use super::rooms::{Member, Target};
use super::socketio::SocketIo;
use crate::engine::{CloseReason, Intake, Session, TransportKind, Version};
use crate::protocol::eio::Encoded;
use crate::protocol::sid::SocketId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::fmt::{self, Display};
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU8, Ordering::AcqRel, Ordering::Acquire};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::oneshot;

/// One client in one namespace; clones are the same socket.
///
/// A socket may be kept as long as one likes: when its client is gone, what it is asked to do fails with an error that says so.
#[derive(Clone)]
pub struct Socket(Arc<Inner>);

struct Inner {
    id: SocketId,
    key: u64,
    live: Arc<Live>,
    link: Arc<Link>,
    session: Arc<Session>,
    handshake: Handshake,
    phase: AtomicU8,
    state: Mutex<SocketState>,
    pending: Pending,
    queue: Queue,
    /// Its part in recovery, if it has one: without recovery it takes no room.
    track: Option<Box<Track>>,
    /// The same where the cluster keeps what recovery needs.
    trace: Option<Box<Trace>>,
}

/// What of a socket is plain data, and would survive a move to another process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SocketState {
    /// In the order in which they were joined.
    pub(super) rooms: Vec<Room>,
    /// One serde value, `{}` until one is set.
    pub(super) data: Arc<RawValue>,
}

const CONNECTING: u8 = 0;
const CONNECTED: u8 = 1;
const CLOSED: u8 = 2;

impl Socket {
    /// A socket that is coming in; one that takes the place of another has its id and its data, and is still to join its rooms.
    pub(super) fn new(
        live: Arc<Live>,
        link: Arc<Link>,
        session: Arc<Session>,
        handshake: Handshake,
        track: Option<Track>,
        trace: Option<Trace>,
    ) -> Self {
        let near = track.as_ref().and_then(Track::saved).map(|Saved { sid, state, .. }| (sid, state.data));
        let far = trace.as_ref().and_then(Trace::saved).map(|saved| (saved.sid, saved.data));
        let (id, data) = match near.or(far) {
            Some(saved) => saved,
            None => (link.io().next_id(&session, &live.name), RawValue::from_string("{}".to_owned()).expect("an object").into()),
        };
        let intake = Intake::new(link.io().metrics(), session.limits());
        Self(Arc::new(Inner {
            id,
            key: live.next_key(),
            live,
            link,
            session,
            handshake,
            phase: AtomicU8::new(CONNECTING),
            state: Mutex::new(SocketState { rooms: Vec::new(), data }),
            pending: Pending::default(),
            queue: Queue::held(intake),
            track: track.map(Box::new),
            trace: trace.map(Box::new),
        }))
    }

    /// Its id, which is public, and the name of a room that it is in.
    ///
    /// Of a client of protocol 3 it holds the sid, which is a credential: see [`allow_eio3`](crate::engine::Options::allow_eio3).
    pub fn id(&self) -> &SocketId {
        &self.0.id
    }

    /// Its id as the log may show it, where no sid is.
    pub(super) fn log_id(&self) -> impl Display {
        match self.0.session.version() {
            Version::V3 => format!("{:?}", self.0.session.sid()),
            Version::V4 => self.id().to_string(),
        }
    }

    /// The name of its namespace, with the slash.
    pub fn namespace(&self) -> &str {
        &self.0.live.name
    }

    /// The server that it is connected to.
    pub fn io(&self) -> &SocketIo {
        self.0.link.io()
    }

    /// The request that it came with.
    pub fn handshake(&self) -> &Handshake {
        &self.0.handshake
    }

    /// The Engine.IO session below it, which it shares with its client's sockets in other namespaces.
    pub fn session(&self) -> &Arc<Session> {
        &self.0.session
    }

    /// How its client is reached now.
    pub fn transport(&self) -> TransportKind {
        self.0.session.transport()
    }

    /// Whether the client is in the namespace: not yet in a middleware, no longer in a disconnect handler.
    pub fn is_connected(&self) -> bool {
        self.0.phase.load(Acquire) == CONNECTED
    }

    /// Whether the client took up its former connection: it has the id, the rooms and the data that it had, and was sent what it missed.
    ///
    /// Only with the option `recovery`, which is off by default. Clients name their place by the text that came last at the end of an event. A volatile
    /// event has no place: one that ends with a text makes them lose theirs until the next event, and who breaks off in between begins anew.
    ///
    /// ```
    /// use stickyport::hub::{HandlerResult, Namespace, Socket};
    ///
    /// Namespace::new("/").on_connect(async |socket: Socket| -> HandlerResult {
    ///     if !socket.recovered() {
    ///         socket.join("lobby")?;
    ///         socket.emit("state", "all of it, from the beginning")?;
    ///     }
    ///     Ok(())
    /// });
    /// ```
    pub fn recovered(&self) -> bool {
        self.0.track.as_ref().is_some_and(|track| track.is_recovered) || self.trace().is_some_and(|trace| trace.is_recovered)
    }

    /// What its client names to take up the connection again: a credential, never to be logged or shown to other clients. `None` without the option
    /// `recovery`.
    pub fn pid(&self) -> Option<&str> {
        let near = self.0.track.as_ref().map(|track| &track.pid);
        near.or(self.trace().map(|trace| &trace.pid)).map(|pid| pid.as_str())
    }

    /// Sends an event; a tuple is several arguments, and so is an array (`[1, 2]`, which serde cannot tell from one), `()` none, anything else one: a slice
    /// or `Vec` is a list. Bytes anywhere inside travel as attachments.
    ///
    /// ```
    /// use bytes::Bytes;
    /// use stickyport::hub::{EmitError, Socket};
    ///
    /// fn greet(socket: &Socket) -> Result<(), EmitError> {
    ///     socket.emit("hello", "world")?;
    ///     socket.emit("position", (48.1, 11.6))?;
    ///     socket.emit("picture", Bytes::from_static(b"\x89PNG"))?;
    ///     socket.emit("bye", ())
    /// }
    /// ```
    ///
    /// With the option `recovery` it is kept for a client that has gone and may come back, and that is no error.
    ///
    /// # Errors
    /// The name is reserved, the arguments have no form in JSON, or the client is gone.
    pub fn emit(&self, event: &str, args: impl IntoArgs) -> Result<(), EmitError> {
        self.emit_with(&Flags::default(), event, args)
    }

    /// Sends an event at once and waits for its acknowledgement, as long as the client stays if [`Socket::timeout`] sets no limit.
    ///
    /// Set one in a handler: when `limits.pending_events` wait behind it, its session is not read, and the acknowledgement does not come either.
    ///
    /// ```
    /// use std::time::Duration;
    /// use stickyport::hub::{HandlerResult, Socket};
    ///
    /// async fn ask(socket: Socket) -> HandlerResult<bool> {
    ///     let answer = socket.timeout(Duration::from_secs(10)).emit_with_ack("sure?", ()).await?;
    ///     Ok(answer.first()?)
    /// }
    /// ```
    ///
    /// # Errors
    /// When awaited: no acknowledgement came, or the event was not sent.
    pub fn emit_with_ack(&self, event: &str, args: impl IntoArgs) -> PendingAck {
        self.emit_with_ack_with(&Flags::default(), event, args)
    }

    /// The next event may be lost: it is sent only if nothing has to wait for it.
    pub fn volatile(&self) -> Emitter {
        self.emitter().volatile()
    }

    /// Whether a polling answer with the next event may be compressed; it may unless this says no.
    pub fn compress(&self, compress: bool) -> Emitter {
        self.emitter().compress(compress)
    }

    /// How long the next event's acknowledgement is waited for.
    pub fn timeout(&self, timeout: Duration) -> Emitter {
        self.emitter().timeout(timeout)
    }

    fn emitter(&self) -> Emitter {
        Emitter::new(self.clone())
    }

    /// Everyone in its namespace, itself included.
    pub fn nsp(&self) -> Broadcast {
        Broadcast::of(self.io().clone(), self.0.live.name.clone(), Target::default())
    }

    /// Everyone else in the namespace.
    pub fn broadcast(&self) -> Broadcast {
        let target = Target { rooms: Vec::new(), except: vec![Room::from(self.id())] };
        Broadcast::of(self.io().clone(), self.0.live.name.clone(), target)
    }

    /// Everyone else in a room.
    pub fn to(&self, rooms: impl Rooms) -> Broadcast {
        self.broadcast().to(rooms)
    }

    /// The same as [`Socket::to`].
    pub fn in_(&self, rooms: impl Rooms) -> Broadcast {
        self.to(rooms)
    }

    /// Everyone else who is not in a room.
    pub fn except(&self, rooms: impl Rooms) -> Broadcast {
        self.broadcast().except(rooms)
    }

    /// The rooms that it is in, its own among them, in the order in which it joined.
    pub fn rooms(&self) -> Vec<Room> {
        self.state().rooms.clone()
    }

    /// Joins a room or several.
    ///
    /// # Errors
    /// The client is gone, or `limits.rooms_per_socket` is reached; it joins none of them then.
    pub fn join(&self, rooms: impl Rooms) -> Result<(), JoinError> {
        // The names are the application's to make, and that may panic: not under the namespace's lock.
        let rooms: Vec<Room> = rooms.rooms().collect();
        let joined = self.0.live.join(self, rooms, self.session().limits().rooms_per_socket);
        if joined == Err(JoinError::TooManyRooms) {
            self.io().metrics().limit_rooms.inc();
        }
        joined
    }

    /// Leaves a room or several, those that it is not in included.
    pub fn leave(&self, rooms: impl Rooms) {
        for room in rooms.rooms() {
            self.0.live.leave(self, &room);
        }
    }

    /// Leaves every room, its own included.
    pub fn leave_all(&self) {
        self.0.live.leave_all(self);
    }

    /// The socket's data as `T`: what [`Socket::set_data`] has set, `{}` until then.
    ///
    /// # Errors
    /// It is of another type.
    pub fn data<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        // Not under the lock: reading runs the application's code.
        let data = Arc::clone(&self.state().data);
        serde_json::from_str(data.get())
    }

    /// Sets the socket's data: one value, which [`fetch_sockets`](Broadcast::fetch_sockets) shows to the whole cluster.
    ///
    /// # Errors
    /// The value has no form in JSON; the old one stays.
    pub fn set_data<T: Serialize + ?Sized>(&self, data: &T) -> Result<(), serde_json::Error> {
        let data = serde_json::value::to_raw_value(data)?;
        self.state().data = data.into();
        self.changed();
        Ok(())
    }

    /// Sends the client out of this namespace, or, with `close`, out of every one, and closes its session.
    ///
    /// The client does not come back by itself; after [`Session::close`] it does.
    pub fn disconnect(&self, close: bool) {
        match self.far().filter(|_| self.is_connected()) {
            // What was sent to it before goes first.
            Some((far, _)) => {
                let socket = self.clone();
                far.archive.after(&self.0.live.name, 0, Box::new(move || socket.disconnect_now(close)));
            }
            None => self.disconnect_now(close),
        }
    }

    /// The same without waiting for what was sent to it before.
    pub(super) fn disconnect_now(&self, close: bool) {
        if !self.is_connected() {
            return;
        }
        if close {
            self.0.link.disconnect_all(&self.0.session);
        } else {
            self.dismiss();
        }
    }

    /// Sends the client out of this namespace.
    pub(super) fn dismiss(&self) {
        if !self.close() {
            return;
        }
        // The client may have left by itself, and come back as another socket.
        if self.0.link.leave(self) {
            self.farewell();
        }
        self.finish(DisconnectReason::ServerNamespaceDisconnect, On::Another);
    }

    /// Tells the client that it is out of this namespace.
    pub(super) fn farewell(&self) {
        // A session that is closed has told it already.
        let _ = self.0.session.send(&[self.io().parser().disconnect(self.namespace())]);
    }

    /// The socket is no longer in its namespace; its handlers hear of it after what they were told before.
    pub(super) fn end(&self, reason: DisconnectReason, on: On) {
        if self.close() {
            self.finish(reason, on);
        }
    }

    /// Nothing reaches the socket from now on; `false` says that somebody else has closed it, or that it was never connected.
    pub(super) fn close(&self) -> bool {
        if let Some((shelf, track)) = self.part() {
            shelf.left(track);
        }
        if let Some(trace) = self.trace() {
            trace.leave();
        }
        let was_connected = self.0.phase.swap(CLOSED, AcqRel) == CONNECTED;
        if was_connected {
            self.0.live.exit(self);
            self.0.pending.close();
            self.io().metrics().sockets.dec();
        }
        was_connected
    }

    /// Its handlers have heard of its end, after which it left these rooms.
    pub(super) fn save(&self, rooms: Vec<Room>) {
        if let Some((shelf, track)) = self.part() {
            let data = Arc::clone(&self.state().data);
            shelf.save(track, self.id(), SocketState { rooms, data });
        } else if let Some((far, trace)) = self.far() {
            far.save(trace, self.archived(rooms));
        }
    }

    /// As it is kept by the cluster.
    ///
    /// # Panics
    /// It is not.
    pub(super) fn archived(&self, rooms: Vec<Room>) -> ArchivedSession {
        let (far, trace) = self.far().expect("it is kept by the cluster");
        let data = Arc::clone(&self.state().data);
        far.archived(trace, self.id(), rooms, data)
    }

    /// Its rooms or its data are others now.
    pub(super) fn changed(&self) {
        // Before it has come in it is not written, and when it goes it is once more.
        if let Some((far, trace)) = self.far().filter(|_| self.is_connected()) {
            far.archive.changed(&trace.pid);
        }
    }

    /// Its client will not take up the connection again.
    pub(super) fn forget(&self) {
        if let Some((shelf, track)) = self.part() {
            shelf.forget(track);
        } else if let Some((far, trace)) = self.far() {
            far.forget(trace);
        }
    }

    /// It never came in, so that its place is for another attempt.
    pub(super) fn give_back(&self) {
        if let Some((shelf, track)) = self.part() {
            shelf.give_back(track);
        } else if let Some((far, trace)) = self.far() {
            far.give_back(trace);
        }
    }

    /// The client's part of the heartbeat came.
    pub(super) fn heartbeat(&self) {
        if let Some((shelf, track)) = self.part() {
            shelf.heartbeat(track);
        }
    }

    /// Its part in recovery, if it has one.
    pub(super) fn part(&self) -> Option<(&Shelf, &Track)> {
        self.0.live.shelf.as_deref().zip(self.0.track.as_deref())
    }

    /// Its part in recovery where the cluster keeps it.
    pub(super) fn far(&self) -> Option<(&Far, &Trace)> {
        self.0.live.far.as_deref().zip(self.trace())
    }

    pub(super) fn trace(&self) -> Option<&Trace> {
        self.0.trace.as_deref()
    }

    /// To be held while it joins or leaves rooms, if it is remembered where it was.
    pub(super) fn moving(&self) -> Option<Moving<'_>> {
        // Before it has come in and after it has gone it is sent nothing.
        self.part().filter(|_| self.is_connected()).map(|(shelf, track)| shelf.moving(track))
    }

    /// Nothing more is heard of the socket, and its namespace may go.
    pub(super) fn retire(&self) {
        self.io().release(&self.0.live);
    }

    pub(super) fn emit_with(&self, flags: &Flags, event: &str, args: impl IntoArgs) -> Result<(), EmitError> {
        let event = unreserved(event)?;
        let args = args.into_args()?;
        if let Some((shelf, track)) = self.part().filter(|_| !flags.volatile) {
            if self.is_closed() && !shelf.knows(&track.pid) {
                return Err(EmitError::Disconnected);
            }
            self.0.live.send_kept(shelf, self, track, flags, event, &args);
            return Ok(());
        }
        if let Some((far, trace)) = self.far().filter(|_| !flags.volatile) {
            if self.is_closed() && !far.keeps(trace) {
                return Err(EmitError::Disconnected);
            }
            let target = Target { rooms: vec![Room::from(self.id())], except: Vec::new() };
            if !far.archive.record(&self.0.live.name, Action::Emit { target: &target, flags, event, args: &args }) {
                self.0.live.broadcast(&target, flags, event, &args);
            }
            return Ok(());
        }
        if self.is_closed() && !flags.volatile {
            return Err(EmitError::Disconnected);
        }
        self.0.live.notify_outgoing(self, event, &args);
        self.send_with(flags, &flags.packets(self.io().parser().event(self.namespace(), None, event, &args)))
    }

    pub(super) fn emit_with_ack_with(&self, flags: &Flags, event: &str, args: impl IntoArgs) -> PendingAck {
        let (sender, receiver) = oneshot::channel();
        let id = self.0.live.next_ack();
        let sent = || {
            let event = unreserved(event)?;
            let args = args.into_args().map_err(EmitError::from)?;
            self.register(id, Wait::One(sender))?;
            self.0.live.notify_outgoing(self, event, &args);
            let packets = flags.packets(self.io().parser().event(self.namespace(), Some(id), event, &args));
            Ok(self.send_in_turn(flags, packets)?)
        };
        match sent() {
            Ok(()) => PendingAck::waiting(self.clone(), id, receiver, limit(flags.timeout)),
            Err(AckError::Emit(EmitError::Disconnected)) => PendingAck::failed(AckError::Disconnected),
            Err(error) => PendingAck::failed(error),
        }
    }

    pub(super) fn register(&self, id: u64, wait: Wait) -> Result<(), AckError> {
        let registered = self.0.pending.register(id, wait, self.session().limits().pending_acks);
        if matches!(registered, Err(AckError::TooMany)) {
            self.io().metrics().limit_pending_acks.inc();
        }
        registered
    }

    pub(super) fn send(&self, packets: &[Encoded]) -> Result<(), EmitError> {
        if self.is_closed() { Err(EmitError::Disconnected) } else { Ok(self.0.session.send(packets)?) }
    }

    pub(super) fn send_with(&self, flags: &Flags, packets: &[Encoded]) -> Result<(), EmitError> {
        if !flags.volatile {
            return self.send(packets);
        }
        if !self.is_closed() {
            self.0.session.send_volatile(packets);
        }
        Ok(())
    }

    /// Sends behind all that this node has sent in the namespace before: some of it may be on its way through the cluster still.
    pub(super) fn send_in_turn(&self, flags: &Flags, packets: Vec<Encoded>) -> Result<(), EmitError> {
        let Some((far, _)) = self.far() else { return self.send_with(flags, &packets) };
        if self.is_closed() {
            return Err(EmitError::Disconnected);
        }
        let (socket, flags) = (self.clone(), *flags);
        let bytes = packets.iter().map(Encoded::weight).sum();
        // One that cannot take it by then has gone, and will hear of it.
        let send = move || drop(socket.send_with(&flags, &packets));
        far.archive.after(&self.0.live.name, bytes, Box::new(send));
        Ok(())
    }

    /// Puts an event that is kept in line; `true` says that its session is to [let it go](Session::depart).
    pub(super) fn line_up(&self, number: u64, packets: &[Encoded]) -> bool {
        if let Some(track) = &self.0.track {
            track.send(number);
        }
        // One socket that cannot take it is none of the others' business, and may come back for it.
        !self.is_closed() && self.0.session.line_up(packets).unwrap_or(false)
    }

    /// The same with an event whose place the cluster keeps.
    pub(super) fn line_up_far(&self, packets: &[Encoded]) -> bool {
        !self.is_closed() && self.0.session.line_up(packets).unwrap_or(false)
    }

    /// A handler returned an error.
    pub(super) fn failed(&self, event: &str, error: BoxError) {
        self.io().metrics().handler_errors.inc();
        tracing::debug!(id = %self.log_id(), namespace = self.namespace(), event, error = &*error as &dyn std::error::Error, "a handler failed");
        self.report(&SocketError::Handler(error));
    }

    /// A handler panicked: that costs its socket, and nothing else.
    pub(super) fn panicked(&self, panic: &Panic, place: &str) {
        self.io().metrics().handler_panics.inc();
        tracing::error!(id = %self.log_id(), namespace = self.namespace(), handler = place, panic = panic.0, "a handler panicked");
        if self.is_connected() {
            self.dismiss();
        }
        self.report(&SocketError::Panic(panic.0.clone()));
    }

    /// Tells the namespace's error hooks.
    pub(super) fn report(&self, error: &SocketError) {
        for hook in &self.0.live.behaviour.error {
            if let Err(panic) = guarded(|| hook(self, error)) {
                self.io().metrics().handler_panics.inc();
                tracing::error!(id = %self.log_id(), namespace = self.namespace(), panic = panic.0, "an error hook panicked");
            }
        }
    }

    pub(super) fn upgraded(&self, transport: TransportKind) {
        for hook in &self.0.live.behaviour.upgrade {
            if let Err(panic) = guarded(|| hook(self, transport)) {
                self.panicked(&panic, "on_upgrade");
            }
        }
    }

    /// Closes the session below; clients come back from that by themselves.
    pub(super) fn shut_down(&self) {
        self.end(CloseReason::ServerShuttingDown.into(), On::Another);
        self.0.session.close(CloseReason::ServerShuttingDown);
    }

    pub(super) fn key(&self) -> u64 {
        self.0.key
    }

    pub(super) fn live(&self) -> &Arc<Live> {
        &self.0.live
    }

    pub(super) fn link(&self) -> &Link {
        &self.0.link
    }

    pub(super) fn pending(&self) -> &Pending {
        &self.0.pending
    }

    pub(super) fn queue(&self) -> &Queue {
        &self.0.queue
    }

    pub(super) fn is_closed(&self) -> bool {
        self.0.phase.load(Acquire) == CLOSED
    }

    /// `false` says that it has been closed before it was connected.
    pub(super) fn mark_connected(&self) -> bool {
        self.0.phase.compare_exchange(CONNECTING, CONNECTED, AcqRel, Acquire).is_ok()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, SocketState> {
        self.0.state.lock().expect("no code that can panic runs under this lock")
    }
}

impl Member for Socket {
    fn is_reached(&self) -> bool {
        self.is_connected()
    }
}

impl PartialEq for Socket {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Socket {}

impl Hash for Socket {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id().hash(state);
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket")
            .field("id", &format_args!("{}", self.log_id()))
            .field("namespace", &self.namespace())
            .finish_non_exhaustive()
    }
}

//! A namespace while it lives: who is in it, and what reaches them.

use super::archive::Offset;
use super::broadcast::Flags;
use super::dynamic::Family;
use super::errors::JoinError;
use super::event::Event;
use super::handler::guarded;
use super::namespace::Behaviour;
use super::recovery::{Far, Moving, Shelf, Track};
use super::room::Room;
use super::rooms::{Index, Target};
use super::socket::Socket;
use crate::protocol::eio::Encoded;
use crate::protocol::sid::SocketId;
use crate::protocol::sio::Args;
use bytestring::ByteString;
use smol_str::SmolStr;
use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// What happens to rooms: the reference's adapter events.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RoomEvent {
    /// `create-room`: the first socket is about to join.
    Created(Room),
    /// `join-room`
    Joined(Room, SocketId),
    /// `leave-room`
    Left(Room, SocketId),
    /// `delete-room`: the last socket has left.
    Deleted(Room),
}

/// A namespace while it lives.
pub(super) struct Live {
    pub(super) name: ByteString,
    pub(super) behaviour: Arc<Behaviour>,
    /// The declaration that it was made from, if a client's wish made it.
    pub(super) family: Option<Arc<Family>>,
    /// What is kept for clients who may come back, if they may.
    pub(super) shelf: Option<Arc<Shelf>>,
    /// The same, if the cluster keeps it.
    pub(super) far: Option<Arc<Far>>,
    inner: RwLock<Inner>,
    next_key: AtomicU64,
    next_ack: AtomicU64,
}

#[derive(Default)]
struct Inner {
    index: Index<Socket>,
    /// Sockets that are connecting, connected, or on their way out.
    occupants: usize,
    is_closed: bool,
}

impl Inner {
    /// `true` says that the room is gone.
    fn take_out(&mut self, room: &Room, socket: &Socket) -> bool {
        let is_gone = self.index.leave(room, socket.key());
        if is_gone {
            socket.io().metrics().rooms.dec();
        }
        is_gone
    }
}

impl Live {
    pub(super) fn new(
        name: ByteString,
        behaviour: Arc<Behaviour>,
        family: Option<Arc<Family>>,
        shelf: Option<Arc<Shelf>>,
        far: Option<Arc<Far>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            name,
            behaviour,
            family,
            shelf,
            far,
            inner: RwLock::default(),
            next_key: AtomicU64::new(0),
            next_ack: AtomicU64::new(0),
        })
    }

    /// Keeps the namespace alive for one more socket; `false` says that it has been dropped already.
    pub(super) fn reserve(&self) -> bool {
        let mut inner = self.write();
        if !inner.is_closed {
            inner.occupants += 1;
        }
        !inner.is_closed
    }

    /// A socket has gone for good; `true` says that nobody else is here and nobody will come any more.
    pub(super) fn release(&self, close_when_empty: bool) -> bool {
        let mut inner = self.write();
        inner.occupants -= 1;
        if close_when_empty && self.family.is_some() && inner.occupants == 0 {
            inner.is_closed = true;
        }
        inner.is_closed
    }

    /// `true` says that nobody is here, and nobody will come any more.
    pub(super) fn close_if_empty(&self) -> bool {
        let mut inner = self.write();
        inner.is_closed |= inner.occupants == 0;
        inner.is_closed
    }

    /// The place of the next socket in the order of arrival.
    pub(super) fn next_key(&self) -> u64 {
        self.next_key.fetch_add(1, Relaxed)
    }

    /// The id of the next event that wants to be acknowledged: one for all its receivers.
    pub(super) fn next_ack(&self) -> u64 {
        self.next_ack.fetch_add(1, Relaxed)
    }

    /// The socket is reached by broadcasts from now on, and what that makes of its room is to be [told](Self::tell); `None` says that it has been closed
    /// meanwhile.
    pub(super) fn enter(&self, socket: &Socket) -> Option<Vec<RoomEvent>> {
        let own = [Room::from(socket.id())];
        let mut inner = self.write();
        if !socket.mark_connected() {
            return None;
        }
        inner.index.enter(socket.key(), socket.clone());
        // Its own room counts, but no limit keeps a socket out of it.
        Some(self.put_in(&mut inner, socket, &own, None))
    }

    /// No broadcast reaches the socket from now on.
    pub(super) fn exit(&self, socket: &Socket) {
        self.write().index.exit(socket.key());
    }

    pub(super) fn join(&self, socket: &Socket, mut rooms: Vec<Room>, limit: usize) -> Result<(), JoinError> {
        {
            let state = socket.state();
            let mut seen = HashSet::new();
            rooms.retain(|room| !state.rooms.contains(room) && seen.insert(room.clone()));
            if state.rooms.len() + rooms.len() > limit {
                return Err(JoinError::TooManyRooms);
            }
        }
        // Who listens hears of each room before the next is joined, as in the reference.
        let at_once = if self.behaviour.room.is_empty() { rooms.len().max(1) } else { 1 };
        rooms.chunks(at_once).try_for_each(|rooms| self.join_now(socket, rooms))
    }

    fn join_now(&self, socket: &Socket, rooms: &[Room]) -> Result<(), JoinError> {
        let events = {
            let moving = socket.moving();
            let mut inner = self.write();
            if socket.is_closed() {
                return Err(JoinError::Disconnected);
            }
            self.put_in(&mut inner, socket, rooms, moving.as_ref())
        };
        socket.changed();
        self.tell(socket, &events);
        Ok(())
    }

    fn put_in(&self, inner: &mut Inner, socket: &Socket, rooms: &[Room], moving: Option<&Moving<'_>>) -> Vec<RoomEvent> {
        let mut events = Vec::new();
        let mut state = socket.state();
        for room in rooms {
            // Somebody may have been faster.
            if state.rooms.contains(room) {
                continue;
            }
            state.rooms.push(room.clone());
            if let Some(moving) = moving {
                moving.note(room, true);
            }
            let is_new = inner.index.join(room, socket.key(), socket);
            if is_new {
                socket.io().metrics().rooms.inc();
            }
            if !self.behaviour.room.is_empty() {
                events.extend(is_new.then(|| RoomEvent::Created(room.clone())));
                events.push(RoomEvent::Joined(room.clone(), socket.id().clone()));
            }
        }
        events
    }

    pub(super) fn leave(&self, socket: &Socket, room: &Room) {
        let moving = socket.moving();
        let mut inner = self.write();
        let mut state = socket.state();
        let Some(at) = state.rooms.iter().position(|joined| joined == room) else { return };
        state.rooms.remove(at);
        drop(state);
        let is_gone = inner.take_out(room, socket);
        drop(inner);
        if let Some(moving) = moving {
            moving.note(room, false);
        }
        socket.changed();
        self.tell_left(socket, room, is_gone);
    }

    /// Leaves every room; who listens still sees all of them until the last is left, as in the reference.
    pub(super) fn leave_all(&self, socket: &Socket) {
        let rooms = socket.state().rooms.clone();
        let is_listened_to = !self.behaviour.room.is_empty();
        if is_listened_to {
            for room in &rooms {
                let moving = socket.moving();
                let is_gone = self.write().take_out(room, socket);
                if let Some(moving) = moving {
                    moving.note(room, false);
                }
                self.tell_left(socket, room, is_gone);
            }
        }
        let moving = socket.moving().filter(|_| !is_listened_to);
        let mut inner = self.write();
        for room in &rooms {
            inner.take_out(room, socket);
            if let Some(moving) = &moving {
                moving.note(room, false);
            }
        }
        socket.state().rooms.retain(|room| !rooms.contains(room));
        drop(inner);
        socket.changed();
    }

    fn tell_left(&self, socket: &Socket, room: &Room, is_gone: bool) {
        if !self.behaviour.room.is_empty() {
            self.tell(socket, &[RoomEvent::Left(room.clone(), socket.id().clone())]);
            if is_gone {
                self.tell(socket, &[RoomEvent::Deleted(room.clone())]);
            }
        }
    }

    pub(super) fn tell(&self, socket: &Socket, events: &[RoomEvent]) {
        for event in events {
            for hook in &self.behaviour.room {
                if let Err(panic) = guarded(|| hook(&self.name, event)) {
                    socket.io().metrics().handler_panics.inc();
                    tracing::error!(namespace = &*self.name, panic = panic.0, "a room hook panicked");
                }
            }
        }
    }

    pub(super) fn rooms(&self) -> Vec<Room> {
        self.read().index.rooms()
    }

    /// Whom a target reaches now, in the order in which they came.
    pub(super) fn select(&self, target: &Target) -> Vec<Socket> {
        self.read().index.select(target)
    }

    /// Sends an event to everyone whom the target reaches: encoded once, and with no lock held while it leaves.
    pub(super) fn broadcast(&self, target: &Target, flags: &Flags, name: &str, args: &Args) {
        if let Some(shelf) = self.shelf.as_ref().filter(|_| !flags.volatile) {
            let sockets = shelf.send(target, || self.select(target), |offset| self.event(shelf, flags, name, &args.and(offset)));
            sockets.iter().for_each(|socket| self.notify_outgoing(socket, name, args));
            return;
        }
        if let Some(far) = self.far.as_ref().filter(|_| !flags.volatile) {
            let encode = |offset: &str| flags.packets(far.parser().event(&self.name, None, name, &args.and(offset)));
            let sockets = far.send(target, || self.select(target), encode);
            sockets.iter().for_each(|socket| self.notify_outgoing(socket, name, args));
            return;
        }
        self.send_to(self.select(target), flags, name, args);
    }

    /// Sends an event that the cluster has recorded.
    pub(super) fn hear(
        &self,
        offset: Option<Offset>,
        target: &Target,
        flags: &Flags,
        read: impl FnOnce() -> Option<(SmolStr, Args)>,
    ) {
        let (Some(far), Some(offset), false) = (&self.far, offset, flags.volatile) else {
            return self.deliver(target, flags, read);
        };
        let mut event = None;
        let encode = |offset: &str| {
            let (name, args) = event.insert(read()?);
            Some(flags.packets(far.parser().event(&self.name, None, name, &args.and(offset))))
        };
        let sockets = far.hear(offset, target, || self.select(target), encode);
        if let Some((name, args)) = event {
            sockets.iter().for_each(|socket| self.notify_outgoing(socket, &name, &args));
        }
    }

    /// The same with an event that is only read if somebody hears it, or may come back and hear it.
    pub(super) fn deliver(&self, target: &Target, flags: &Flags, read: impl FnOnce() -> Option<(SmolStr, Args)>) {
        if (self.shelf.is_some() || self.far.is_some()) && !flags.volatile {
            if let Some((name, args)) = read() {
                self.broadcast(target, flags, &name, &args);
            }
            return;
        }
        let sockets = self.select(target);
        if let Some((name, args)) = (!sockets.is_empty()).then(read).flatten() {
            self.send_to(sockets, flags, &name, &args);
        }
    }

    /// Whether anybody is concerned by what is sent to a room: who is in it, and who may come back and was.
    pub(super) fn hears(&self, room: &str) -> bool {
        self.shelf.is_some() || self.read().index.has(room)
    }

    fn send_to(&self, sockets: Vec<Socket>, flags: &Flags, name: &str, args: &Args) {
        let Some(parser) = sockets.first().map(|socket| socket.io().parser()) else { return };
        let packets = flags.packets(parser.event(&self.name, None, name, args));
        self.send(sockets, flags, &packets, name, args);
    }

    /// Sends an event with an acknowledgement id; `register` is called for each receiver before it is sent to.
    pub(super) fn broadcast_with_ack(
        &self,
        target: &Target,
        flags: &Flags,
        name: &str,
        args: &Args,
        register: impl Fn(&Socket, u64),
    ) -> (Vec<Socket>, u64) {
        let sockets = self.select(target);
        let id = self.next_ack();
        if let Some(parser) = sockets.first().map(|socket| socket.io().parser()) {
            let packets = flags.packets(parser.event(&self.name, Some(id), name, args));
            for socket in &sockets {
                register(socket, id);
            }
            self.send(sockets.iter().cloned(), flags, &packets, name, args);
        }
        (sockets, id)
    }

    /// Sends an event to one socket, or to the one that has taken its place, and keeps it for its client.
    pub(super) fn send_kept(&self, shelf: &Shelf, socket: &Socket, track: &Track, flags: &Flags, name: &str, args: &Args) {
        let select = || {
            if socket.is_closed() {
                let room = Target { rooms: vec![Room::from(socket.id())], except: Vec::new() };
                self.select(&room).into_iter().filter(|other| other.pid() == socket.pid()).collect()
            } else if shelf.is_behind(track) {
                Vec::new()
            } else {
                vec![socket.clone()]
            }
        };
        if !socket.is_closed() {
            self.notify_outgoing(socket, name, args);
        }
        let sockets = shelf.send(&track.alone(), select, |offset| self.event(shelf, flags, name, &args.and(offset)));
        sockets.iter().filter(|other| *other != socket).for_each(|other| self.notify_outgoing(other, name, args));
    }

    fn event(&self, shelf: &Shelf, flags: &Flags, name: &str, args: &Args) -> Vec<Encoded> {
        flags.packets(shelf.parser().event(&self.name, None, name, args))
    }

    fn send(&self, sockets: impl IntoIterator<Item = Socket>, flags: &Flags, packets: &[Encoded], name: &str, args: &Args) {
        let event = (!self.behaviour.outgoing.is_empty()).then(|| Event::sent(name, args));
        for socket in sockets {
            if let Some(event) = &event {
                self.tell_outgoing(&socket, event);
            }
            // One socket that cannot take it is none of the others' business.
            let _ = socket.send_with(flags, packets);
        }
    }

    pub(super) fn notify_outgoing(&self, socket: &Socket, name: &str, args: &Args) {
        if !self.behaviour.outgoing.is_empty() {
            self.tell_outgoing(socket, &Event::sent(name, args));
        }
    }

    fn tell_outgoing(&self, socket: &Socket, event: &Event) {
        for hook in &self.behaviour.outgoing {
            if let Err(panic) = guarded(|| hook(socket, event)) {
                socket.panicked(&panic, "on_any_outgoing");
            }
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().expect("no code that can panic runs under this lock")
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().expect("no code that can panic runs under this lock")
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("name", &self.name).finish_non_exhaustive()
    }
}
